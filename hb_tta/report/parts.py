"""Scores of tasks of any metrics: a part is a metric, or the first metric in a category.

Text, a page's tables, JSON; what MME's are in table.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from hb_tta.report import renderers
from hb_tta.report.cells import NOTHING, Cell, Comparison, Table, could_have_shown, figure
from hb_tta.report.scores import ALL, CHANGES, Score, Scored
from hb_tta.report.t_test import TTest

SHOWN = "could have shown"
SHOWN_NOTE = (
    f"{SHOWN.capitalize()}: the true difference that four of five such samples would show at "
    "p < 0.05."
)

_SCORES = {
    ("percent",): "Mean scores in percent",
    ("fine",): "Mean scores",
    ("fine", "percent"): "Mean scores, shares in percent",
}


def text(
    task: str, scored: Sequence[Scored], names: Sequence[str], width: int | None = None
) -> str:
    """For a terminal: the runs of each part one below the other; ``names``: the runs'."""
    found = long_table(scored, names)
    first, *others = found.notes
    shown = replace(found, title=f"{task}. {first}", notes=others)
    return renderers.text(shown, width)


def long_table(scored: Sequence[Scored], names: Sequence[str]) -> Table:
    """A row a part and run."""
    rows = [
        [_heading(part, scored), name, *_figures(one.scores[part], one)]
        for part in scored[0].scores
        for one, name in zip(scored, names, strict=True)
    ]
    columns = ["", "", "score", SHOWN, ""]
    return Table(columns, rows, notes=notes(scored, names), heads=2)


def table(scored: Sequence[Scored], names: Sequence[str]) -> Table:
    """For a page: a row a part, a column a run; it stays narrow, however many metrics there are."""
    rows: list[list[Cell | str]] = [
        [_heading(part, scored, "\n"), *(_cell(one.scores[part], one, True) for one in scored)]
        for part in scored[0].scores
    ]
    return Table(["", *names], rows)


def errors_table(scored: Sequence[Scored], names: Sequence[str]) -> Table:
    """Standard errors and t-tests, a row a part and run."""
    rows: list[list[Cell | str]] = [
        [part, name, *_errors(one.scores[part], one)]
        for part in scored[0].scores
        for one, name in zip(scored, names, strict=True)
    ]
    columns = ["", "run", "mean", "standard error", "clustered", "difference (t-test)"]
    return Table(columns, rows, heads=2)


def to_json(one: Scored) -> dict[str, Any]:
    """Every figure of a run, in the task's own unit, by metric.

    Metric → ``score``, ``interval``, ``questions``, ``clusters``, ``standard_error``,
    ``clustered_standard_error``, ``own`` (the harness's figure of all questions),
    ``lower_is_better``, ``categories`` (the same of each), and ``against_plain`` with the
    difference, its interval, ``p_value``, ``could_have_shown``, how many questions changed, and
    ``t_test``.
    """
    found: dict[str, Any] = {}
    for score in one.scores.values():
        if score.category == ALL:
            about: dict[str, Any] = {"own": one.run.own.get(score.metric.name), "categories": {}}
            lower = {"lower_is_better": score.metric.lower_is_better}
            found[score.metric.name] = {**_score_json(score), **lower, **about}
        else:
            found[score.metric.name]["categories"][score.category] = _score_json(score)
    return found


def notes(scored: Sequence[Scored], names: Sequence[str]) -> list[str]:
    """What a reader must know to read the figures right."""
    run = scored[0].run
    units = f"{run.unit}s" if run.unit != "question" else "questions"
    kinds = {metric.kind for metric in run.metrics}
    said = [
        f"{_SCORES[tuple(sorted(kinds))]}, with 95 % bootstrap intervals over {units}; behind "
        "them the difference to the plain run and the p-value of a paired sign-flip test over "
        f"{units} (not corrected for many tests). {SHOWN_NOTE}"
    ]
    if run.unit == "question":
        said.append(
            "The results do not tell which questions share an image, so that each counts as an "
            "image of its own: where several do, intervals are too narrow."
        )
    said += uncompared(scored)
    said += [_own(one, name) for one, name in zip(scored, names, strict=True)]
    if run.without:
        said.append(f"No number a question, so not compared: {', '.join(run.without)}.")
    return list(filter(None, said))


def uncompared(scored: Sequence[Scored]) -> list[str]:
    """That nothing is compared, where that is so."""
    if len(scored) == 1 or any(one.plain is not None for one in scored):
        return []
    return [
        "No run without augmentation of the same model is among the results, so nothing is "
        "compared."
    ]


def _own(one: Scored, name: str) -> str:
    """Where the harness has another figure than the mean over questions."""
    differing = [
        f"{score.metric.name} {figure(own / scale, score.metric.kind)}"
        for score in one.scores.values()
        if score.category == ALL and (own := one.run.own.get(score.metric.name)) is not None
        for scale in [100 if score.metric.kind == "percent" and abs(own) > 1 else 1]
        if not math.isclose(own / scale, score.acc.estimate, rel_tol=1e-6, abs_tol=1e-9)
    ]
    if not differing:
        return ""
    return f"{name}: the task's own figure is no mean over questions but {', '.join(differing)}."


def _heading(part: str, scored: Sequence[Scored], gap: str = ": ") -> str:
    score = scored[0].scores[part]
    return f"{part}{gap}{asked(score.questions, score.images, scored[0].run.unit)}"


def asked(questions: int, units: int, unit: str) -> str:
    """How many questions count, and on how many images where that is known."""
    told = _number(questions, "question")
    return told if unit == "question" else f"{told}, {_number(units, unit)}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def changed(score: Score) -> str:
    """How many questions changed; "" for what is not compared."""
    if score.change is None:
        return ""
    better, worse, *_ = CHANGES[score.metric.graded]
    return f"{score.change.fixed} {better}, {score.change.broken} {worse}"


def _figures(score: Score, one: Scored) -> list[Cell | str]:
    test = score.change and could_have_shown(score.change.acc, score.metric.kind)
    return [_cell(score, one, False), test or "", changed(score)]


def _cell(score: Score, one: Scored, whole: bool) -> Cell:
    """The score; ``whole``: with what stands in columns of their own elsewhere."""
    test = None
    if score.change is not None:
        test = Comparison.of(score.change.acc, one.plain.name if one.plain else "")
    return Cell.of(
        score.acc,
        test,
        kind=score.metric.kind,
        note=_note(score) if whole else "",
        lower_is_better=score.metric.lower_is_better,
    )


def _note(score: Score) -> str:
    if score.change is None:
        return ""
    size = score.change.acc.could_have_shown
    shown = NOTHING if size is None else figure(size, score.metric.kind)
    return f"{SHOWN} {shown}\n{changed(score)}"


def _errors(score: Score, one: Scored) -> list[Cell | str]:
    kind, n = score.metric.kind, score.questions
    mean = Cell(score.acc.estimate, n=n, kind=kind)
    errors = [
        NOTHING if error is None else Cell(error, n=n, kind=kind)
        for error in (score.error, score.clustered)
    ]
    test = score.change and score.change.t_test
    if not test:
        return [mean, *errors, ""]
    step = {"percent": "points", "fine": "step"}[kind]
    told = Comparison(test.p_value, one.plain.name if one.plain else "")
    return [mean, *errors, Cell(test.difference, test.low, test.high, test.n, told, kind=step)]


def _score_json(score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {
        "score": score.acc.estimate,
        "interval": [score.acc.low, score.acc.high],
        "questions": score.questions,
        "clusters": score.images,
        "standard_error": score.error,
        "clustered_standard_error": score.clustered,
    }
    if score.change is not None:
        test, (better, worse, *_) = score.change.acc, CHANGES[score.metric.graded]
        found["against_plain"] = {
            "difference": test.difference,
            "interval": [test.low, test.high],
            "p_value": test.p_value,
            "could_have_shown": test.could_have_shown,
            better: score.change.fixed,
            worse: score.change.broken,
            "t_test": _t_json(score.change.t_test),
        }
    return found


def _t_json(test: TTest | None) -> dict[str, Any] | None:
    """Its fields; ``t`` is null where no question differs from another in its difference."""
    if test is None:
        return None
    return {**asdict(test), "t": test.t if math.isfinite(test.t) else None}
