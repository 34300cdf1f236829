"""What tables 1, 5, 6, 7 and 8 share: arms that answer yes/no questions, in the paper's shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hb_tta.datasets.questions import CATEGORIES, YesNoQuestion
from hb_tta.experiments.asking import answerers, answers, run_of
from hb_tta.experiments.methods import REAL, Arm, make_views, questions_of
from hb_tta.experiments.numbers import Numbers, paper_note
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Cost, Options, Results
from hb_tta.metrics import PairedTest
from hb_tta.report import scores
from hb_tta.report.cells import Cell, Column, Table, could_have_shown
from hb_tta.report.parts import SHOWN, SHOWN_NOTE
from hb_tta.report.scores import ALL, Scored
from hb_tta.report.table import cells_of
from hb_tta.weights import Weights

VIEWS = 1
"""Generated images beside the real one: the released code's. The paper says no number."""


@dataclass(frozen=True)
class Asked:
    """Arms that answer the same questions.

    Attributes:
        arms: by the rows' order, the real image first.
        mllms: short name → those that answer.
        full, quick: images a category where nobody says.
        categories: of the benchmark → the paper's name of each.
    """

    arms: Sequence[Arm]
    mllms: Mapping[str, Weights]
    full: int
    quick: int
    categories: Mapping[str, str]

    def questions(self, options: Options) -> list[YesNoQuestion]:
        """In the order of the categories."""
        return questions_of(options, list(self.categories), self.images(options))

    def images(self, options: Options) -> int:
        """A category."""
        return options.number(self.full, self.quick)

    def cost(self, options: Options) -> Cost:
        """Of all arms."""
        return sum((cost_of(arm, self, options) for arm in self.arms), Cost())

    def plan(self, options: Options) -> Iterator[PlannedRun]:
        """Each arm's views, then what each MLLM says to them."""
        n = views(options)
        questions = self.questions(options)
        for arm in self.arms:
            if arm.method is not None:
                seconds = Cost(views=n * len(questions)).forecast(options)
                yield PlannedRun(
                    f"views of {arm.label}",
                    lambda arm=arm: make_views(arm, questions, options, n),  # type: ignore[misc]
                    seconds,
                    arm.method,
                )
            for name, mllm in self.mllms.items():
                asked = Cost(pictures=len(questions) * (1 + n * (arm.method is not None)))
                yield PlannedRun(
                    run_name(name, arm),
                    lambda arm=arm, mllm=mllm: answers(arm, mllm, questions, options, n),  # type: ignore[misc]
                    asked.forecast(options),
                    arm.method or "",
                )

    def scored(self, results: Results, options: Options) -> dict[str, list[Scored]]:
        """MLLM → its arms, those that were answered."""
        questions = self.questions(options)
        found = {}
        for name in self.mllms:
            runs = [
                run_of(arm.label, questions, results[run_name(name, arm)])
                for arm in self.arms
                if run_name(name, arm) in results
            ]
            if runs and runs[0].plain:
                found[name] = scores.score(runs)
        return found


def asked_by(
    options: Options,
    arms: Iterable[Arm],
    *,
    mllms: int = 1,
    full: int = 100,
    quick: int = 8,
    categories: Mapping[str, str] | None = None,
) -> Asked:
    """Arms and the real image alone, before the options' MLLMs."""
    named = {name: name for name in CATEGORIES} if categories is None else categories
    return Asked([Arm(REAL), *arms], answerers(options, mllms), full, quick, named)


def views(options: Options) -> int:
    """Generated images beside the real one."""
    return options.views or VIEWS


def cost_of(arm: Arm, asked: Asked, options: Options) -> Cost:
    """Of one arm, for all MLLMs."""
    questions = 2 * asked.images(options) * len(asked.categories)
    n = views(options) if arm.method is not None else 0
    return Cost(views=n * questions, pictures=questions * (1 + n) * len(asked.mllms))


def run_name(mllm: str, arm: Arm) -> str:
    """Of an arm's answers by one MLLM."""
    return f"{mllm}: {arm.label}"


# ── The table ────────────────────────────────────────────────────────────────────────────────────


def mme_table(
    scored: Mapping[str, Sequence[Scored]],
    papers: Mapping[str, Numbers],
    asked: Asked,
    options: Options,
    title: str,
) -> Table:
    """A row an arm, ACC and ACC+ a category; ours with intervals and tests, the paper's below.

    Args:
        papers: the papers' MLLMs, in their order → its numbers. Ours stand for them in turn.
    """
    columns: list[Column | str] = ["", ""]
    for category in asked.categories.values():
        columns += [Column("ACC", category), Column("ACC+", category)]
    columns += [Column("ACC", ALL), Column("ACC+", ALL), SHOWN]
    rows = []
    for (name, its), numbers in zip(scored.items(), _in_turn(papers, len(scored)), strict=True):
        for one in its:
            rows.append([name, one.run.name, *_cells(one, asked, numbers)])
    images = asked.images(options)
    notes = [
        f"Ours: {options.family.name}, {images} images a category with two questions each, "
        f"{views(options)} generated {'view' if views(options) == 1 else 'views'} beside the real "
        "image, plain mean of the logits; 95 % intervals over images, the difference from "
        f"{REAL!r} and its p-value. {SHOWN_NOTE} Of ACC over all."
    ]
    return Table(columns, rows, title, notes, heads=2)


def _in_turn(papers: Mapping[str, Numbers], count: int) -> list[Numbers]:
    known = list(papers.values())
    return [known[place % len(known)] for place in range(count)]


def _cells(one: Scored, asked: Asked, numbers: Numbers) -> list[Cell | str]:
    found: list[Cell | str] = []
    for place, category in enumerate(asked.categories):
        for kind, cell in enumerate(cells_of(one, category)):
            note = paper_note(numbers, one.run.name, 2 * place + kind)
            found.append(replace(cell, note=note) if isinstance(cell, Cell) else cell)
    change = one.total.change
    return [*found, *cells_of(one, ALL), could_have_shown(change.acc) if change else ""]


def test_of(one: Scored, category: str = ALL) -> PairedTest | None:
    """ACC against the real image alone."""
    change = one.scores[category].change
    return None if change is None else change.acc


def test_between(one: Scored, other: Scored, category: str = ALL) -> PairedTest:
    """ACC of one arm against another's, on the same questions."""
    from hb_tta.metrics import paired_test

    def rights(scored: Scored) -> tuple[list[float], list[str]]:
        its = [r for r in scored.run.records if category in (r.category, ALL)]
        return [r.score for r in its], [r.group for r in its]

    values, groups = rights(one)
    return paired_test(values, rights(other)[0], groups=groups)
