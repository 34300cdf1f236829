"""Table 10 and figure 14: a survey of people, as one page, and its evaluation.

The page shows a reference, its question and a view of each of two methods, in an order drawn by
question; nothing on it tells which is which. Who answers chooses one, both or neither, and the
page saves that as a file. ``--answers FILE…`` evaluates such files; the key lies beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hb_tta.datasets.questions import CATEGORIES, YesNoQuestion
from hb_tta.errors import UserError
from hb_tta.experiments.asking import first_of_each_image, questions_key
from hb_tta.experiments.methods import (
    LABELS,
    Arm,
    identity,
    questions_of,
    views_of,
)
from hb_tta.experiments.numbers import TABLE_10 as NUMBERS
from hb_tta.experiments.numbers import paper_note
from hb_tta.experiments.paper.pictures import panel_of, small
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Experiment,
    Finding,
    Gallery,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.metrics import bootstrap_interval, paired_test
from hb_tta.reading import read_json
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown
from hb_tta.report.contact_sheet import SMALL, data_uri
from hb_tta.report.document import document, visible
from hb_tta.report.parts import SHOWN
from hb_tta.store import content_key

TITLE = "A survey of people: which views keep what the question asks for"
PAGE, KEY = "survey.html", "survey-key.json"
PAPERS = ("i2t2i", "hummingbird")
EACH = 10  # questions a category

LEAD = (
    "Each question is about the first picture. Mark those of A and B in which the same is true as\n"
    "in it: one, both or neither. Anything else about them may differ."
)


@dataclass(frozen=True)
class Survey:
    """The questions, a view of each method, and which of them stands first.

    Attributes:
        labels: of the two methods.
        views: label → a view a question.
        order: of a question the labels' places, first shown first.
    """

    name: str
    questions: Sequence[YesNoQuestion]
    labels: tuple[str, str]
    views: Mapping[str, Sequence[Any]]
    order: Sequence[tuple[int, int]]


def methods(options: Options) -> tuple[str, str]:
    """The two that are compared: those asked for, else the paper's.

    Raises:
        UserError: there are not two.
    """
    named = options.methods or PAPERS
    if len(named) < 2:
        raise UserError(f"--methods {named[0]}: the survey compares two, name another one")
    return named[-2], named[-1]


def asked(options: Options) -> list[YesNoQuestion]:
    """Questions of each category, one an image, answered by yes and no in turn."""
    every = questions_of(options, CATEGORIES, options.number(EACH, 2))
    return first_of_each_image([one for n, one in enumerate(every) if n % 2 == (n // 2) % 2])


def _arms(options: Options) -> list[Arm]:
    return [Arm(LABELS.get(name, name), name) for name in methods(options)]


def needs(options: Options) -> Needs:
    """Two methods' views."""
    count = 5 * options.number(EACH, 2)
    return Needs(methods=methods(options), data=("questions",), cost=Cost(views=2 * count))


def plan(options: Options) -> Iterator[PlannedRun]:
    """A run a method."""
    return _views_of(asked(options), options)


def _views_of(questions: Sequence[YesNoQuestion], options: Options) -> Iterator[PlannedRun]:
    for arm in _arms(options):
        yield PlannedRun(
            arm.label,
            lambda arm=arm: list(views_of(arm, questions, options, 1)),  # type: ignore[misc]
            Cost(views=len(questions)).forecast(options),
            arm.method or "",
        )


def survey_of(results: Results, options: Options) -> Survey:
    """With an order that the options decide."""
    questions, arms = asked(options), _arms(options)
    views = {arm.label: [small(made.views[0]) for made in results[arm.label]] for arm in arms}
    name = content_key(
        {
            "questions": questions_key(questions),
            "views": [identity(arm, options, 1) for arm in arms],
            "seed": options.seed,
        }
    )[:12]
    draws = np.random.default_rng([options.seed, 10]).integers(0, 2, len(questions))
    order = [(int(first), 1 - int(first)) for first in draws]
    return Survey(name, questions, (arms[0].label, arms[1].label), views, order)


def show(results: Results, options: Options) -> Shown:
    """The page and its key; the table, where there are answers."""
    if len(results) < 2:
        return Shown(missing=["the survey compares two methods, and one of them was left out"])
    survey = survey_of(results, options)
    key = {
        "survey": survey.name,
        "shown": [[survey.labels[place] for place in its] for its in survey.order],
    }
    files = {PAGE: page(survey).encode(), KEY: json.dumps(key, indent=1).encode()}
    if not options.answers:
        return Shown(
            files=files, missing=[f"nobody was asked yet: hand out {PAGE}, then --answers FILE…"]
        )
    table, finding = evaluated(survey, options.answers)
    return Shown([table], files=files, findings=[finding])


# ── The page ─────────────────────────────────────────────────────────────────────────────────────


def page(survey: Survey) -> str:
    """One file that needs no other, and says nothing of the methods."""
    items = "\n".join(_item(number, survey) for number in range(len(survey.questions)))
    body = (
        f'<form id="survey" class="survey" data-survey="{survey.name}" autocomplete="off">\n'
        f'{items}\n<p><button type="button" id="save">Save the answers</button> '
        '<output id="told"></output></p></form>'
    )
    script = resources.files(__package__).joinpath("survey.js").read_text(encoding="utf-8")
    return document("Which pictures keep it?", body, lead=LEAD, script=script)


def _item(number: int, survey: Survey) -> str:
    one = survey.questions[number]
    choices = "".join(
        f"<label>{_image(survey.views[survey.labels[place]][number], f'picture {letter}')}<span>"
        f'<input type="checkbox"> {letter}</span></label>'
        for letter, place in zip("AB", survey.order[number], strict=True)
    )
    return (
        f'<fieldset data-question="{number}" data-seen="no">'
        f"<legend>{number + 1}. {visible(one.guidance)}</legend>"
        f"<figure>{_image(small(one.picture()), 'the picture that is asked about')}</figure>"
        f"{choices}"
        f'<label class="neither"><input type="radio" name="neither{number}"> neither</label>'
        "</fieldset>"
    )


def _image(image: Any, told: str) -> str:
    size = "small" if max(image.size) <= SMALL else "large"
    return f'<img class="{size}" src="{data_uri(image)}" alt="{told}">'


# ── Its answers ──────────────────────────────────────────────────────────────────────────────────


def read_answers(path: Path, survey: Survey) -> list[list[bool]]:
    """Of each question whether each method's view was chosen, in the order of the labels.

    Raises:
        UserError: the file is damaged, incomplete, or of another survey.
    """
    try:
        found = read_json(path)
        if found["survey"] != survey.name:
            raise UserError(
                f"{path} answers another survey ({found['survey']!r}, not {survey.name}): evaluate "
                "it with the options that its page was made with"
            )
        by_number = {one["question"]: one for one in found["answers"]}
        said = [by_number[number] for number in range(len(survey.questions))]
        return [_chosen(one, order) for one, order in zip(said, survey.order, strict=True)]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no whole answer to the survey ({error!r}): save it again"
        ) from error


def _chosen(said: Mapping[str, Any], order: tuple[int, int]) -> list[bool]:
    if said["seen"] is not True or not set(said["chosen"]) <= {0, 1}:
        raise ValueError(f"question {said['question']} is not answered")
    chosen = [False, False]
    for place in said["chosen"]:
        chosen[order[place]] = True
    return chosen


def evaluated(survey: Survey, files: Sequence[Path]) -> tuple[Table, Finding]:
    """The share of each method's views that people chose, with intervals over questions."""
    chosen_PQM = np.array([read_answers(path, survey) for path in files], dtype=float)
    share_QM = chosen_PQM.mean(0)  # the questions, not the people, are what is sampled
    categories = np.array([one.category for one in survey.questions])
    test = paired_test(share_QM[:, 1], share_QM[:, 0])
    rows: list[list[Cell | str]] = []
    for place, label in enumerate(survey.labels):
        cells: list[Cell | str] = []
        for column, category in enumerate(CATEGORIES):
            its = share_QM[categories == category, place]
            note = paper_note(NUMBERS, label, column)
            cells.append(Cell.of(bootstrap_interval(its), note=note))
        told = None if place == 0 else Comparison.of(test, survey.labels[0])
        note = paper_note(NUMBERS, label, len(CATEGORIES))
        cells.append(Cell.of(bootstrap_interval(share_QM[:, place]), told, note=note))
        rows.append([label, *cells, "" if place == 0 else could_have_shown(test)])
    people = "1 person" if len(files) == 1 else f"{len(files)} people"
    table = Table(
        ["", *CATEGORIES, "average", SHOWN],
        rows,
        f"Table 10. {TITLE}",
        [
            f"{people}, {len(survey.questions)} questions: percent of a method's views that were "
            "chosen; 95 % intervals over questions. The paper asked 70."
        ],
    )
    return table, _finding(survey, share_QM)


def _finding(survey: Survey, share_QM: NDArray[np.float64]) -> Finding:
    """That people choose Hummingbird's; of another pair the second's, which is no claim."""
    papers = [LABELS[name] for name in PAPERS]
    is_papers = set(survey.labels) == set(papers)
    worse, better = papers if is_papers else survey.labels
    of = {label: share_QM[:, place] for place, label in enumerate(survey.labels)}
    return Finding(
        f"people choose {better} more often than {worse}",
        [(f"{better} − {worse}", paired_test(of[better], of[worse]))],
        about="people" if is_papers else "",
    )


EXPERIMENT = Experiment("table10", TITLE, "Hummingbird, table 10", needs, plan, show)


# ── Figure 14 ────────────────────────────────────────────────────────────────────────────────────

_SHOWN = 2  # questions a category


def _asked_14(options: Options) -> list[YesNoQuestion]:
    """The questions behind those of the survey, which whoever is asked must not see named."""
    survey = {one.group for one in asked(options)}
    more = questions_of(options, CATEGORIES, options.number(EACH, 2) + _SHOWN)
    return [one for one in first_of_each_image(more) if one.group not in survey]


def _plan_14(options: Options) -> Iterator[PlannedRun]:
    return _views_of(_asked_14(options), options)


def _show_14(results: Results, options: Options) -> Shown:
    panels = [
        panel_of(one, {label: its[place] for label, its in results.items()})
        for place, one in enumerate(_asked_14(options))
    ]
    return Shown(
        galleries=[
            Gallery(
                "Figure 14. Questions like the survey's, with names",
                panels,
                "The survey's own are on a page without names.",
            )
        ]
    )


FIGURE_14 = Experiment(
    "figure14",
    "Questions like the survey's",
    "Hummingbird, figure 14",
    needs,
    _plan_14,
    _show_14,
)
