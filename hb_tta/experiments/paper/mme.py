"""Tables 1 and 8, and what 5 to 7 share with them: arms that answer yes/no questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hb_tta.datasets.questions import CATEGORIES, MORE, YesNoQuestion
from hb_tta.experiments.asking import answerers, answers, images_each, run_of
from hb_tta.experiments.gains import gains_of
from hb_tta.experiments.methods import (
    REAL,
    TUNED,
    Arm,
    arms_of,
    cost_of_views,
    make_views,
    methods_of,
    questions_of,
)
from hb_tta.experiments.numbers import TABLE_1 as NUMBERS_1
from hb_tta.experiments.numbers import TABLE_8 as NUMBERS_8
from hb_tta.experiments.numbers import Numbers, paper_note
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Drawing,
    Experiment,
    Finding,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.metrics import PairedTest, paired_test
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
                seconds = cost_of_views(
                    [arm], len(questions) // 2, n, options, len(questions)
                ).forecast(options)
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
    full: int = 60,
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
    made = cost_of_views([arm], questions // 2, n, options, questions)
    return made + Cost(pictures=questions * (1 + n) * len(asked.mllms))


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
    images = images_each(asked.questions(options))
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

    def rights(scored: Scored) -> tuple[list[float], list[str]]:
        its = [r for r in scored.run.records if category in (r.category, ALL)]
        return [r.score for r in its], [r.group for r in its]

    values, groups = rights(one)
    return paired_test(values, rights(other)[0], groups=groups)


def accuracy_gains(title: str, scored: Mapping[str, Sequence[Scored]]) -> list[Drawing]:
    """ACC over all categories: each MLLM's arms against the real image alone."""
    return gains_of(
        f"{title}, ACC over all",
        {mllm: [(one.run.name, test_of(one)) for one in its] for mllm, its in scored.items()},
    )


# ── Tables 1 and 8 ───────────────────────────────────────────────────────────────────────────────


def answered(
    number: int,
    title: str,
    asked: Callable[[Options], Asked],
    papers: Mapping[str, Numbers],
    data: str,
) -> Experiment:
    """A table of all methods' arms as an experiment.

    Args:
        asked: of the options.
        papers: see ``mme_table``.
        data: the kind of questions that it needs.
    """

    def needs(options: Options) -> Needs:
        its = asked(options)
        return Needs(
            methods=tuple(methods_of(options)),
            data=(data,),
            cost=its.cost(options),
            weights=its.mllms,
        )

    def show(results: Results, options: Options) -> Shown:
        its = asked(options)
        scored = its.scored(results, options)
        if not scored:
            return Shown()
        table = mme_table(scored, papers, its, options, f"Table {number}. {title}")
        found = [one for pair in scored.items() for one in findings(*pair, its, number)]
        return Shown([table], drawings=accuracy_gains(f"Table {number}", scored), findings=found)

    return Experiment(
        f"table{number}",
        title,
        f"Hummingbird, table {number}",
        needs,
        lambda options: list(asked(options).plan(options)),
        show,
    )


def findings(mllm: str, scored: Sequence[Scored], asked: Asked, number: int) -> list[Finding]:
    """That augmentation helps on every task, and that Hummingbird is the most faithful."""
    ours = next((one for one in scored if one.run.name == TUNED), None)
    if ours is None:
        return []
    helps = [
        (f"{meant}, ACC", test)
        for category, meant in asked.categories.items()
        if (test := test_of(ours, category)) is not None
    ]
    others = [one for one in scored if one.plain is not None and one is not ours]
    best = [(f"against {one.run.name}", test_between(ours, one)) for one in others]
    where = f"table {number}, {mllm}"
    return [
        Finding(f"{where}: Hummingbird's views help on every task", helps, about="tta"),
        Finding(
            f"{where}: Hummingbird is best of all methods",
            best,
            "there is no other method",
            about="best",
        ),
    ]


def _asked_8(options: Options) -> Asked:
    more = MORE[options.benchmark("questions")]
    return asked_by(
        options, arms_of(options), categories={name: meant for meant, name in more.items()}
    )


TABLE_1 = answered(
    1,
    "MME by test-time augmentation: methods beside each other",
    lambda options: asked_by(options, arms_of(options), mllms=2),
    NUMBERS_1,
    "questions",
)
TABLE_8 = answered(
    8,
    "MME's artwork and reasoning by test-time augmentation",
    _asked_8,
    {"": NUMBERS_8},
    "more questions",
)
