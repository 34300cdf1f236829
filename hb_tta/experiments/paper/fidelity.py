"""Table 12 and figure 1(g): how often an oracle says of a view what it says of its reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from hb_tta.datasets.questions import CATEGORIES, YesNoQuestion
from hb_tta.experiments.asking import answerers, images_each, questions_key
from hb_tta.experiments.ledger import kept_lines
from hb_tta.experiments.methods import (
    TUNED,
    UNTUNED,
    Arm,
    cost_of_views,
    identity,
    make_views,
    methods_of,
    questions_of,
    views_of,
)
from hb_tta.experiments.numbers import TABLE_12 as NUMBERS
from hb_tta.experiments.numbers import paper_note
from hb_tta.experiments.paper import fine_tuned, spread
from hb_tta.experiments.paper.lora import cost_of, trainings_of
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
from hb_tta.images import load_image
from hb_tta.metrics import PairedTest, bootstrap_interval, paired_test
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown
from hb_tta.report.drawing import Point, scatter
from hb_tta.report.parts import SHOWN, SHOWN_NOTE
from hb_tta.weights import Weights

RUNS = 3
"""Seeds a question, whose views the oracle is asked about; the paper says "multiple times"."""
_AT_ONCE = 16


def oracles(options: Options) -> dict[str, Weights]:
    """The MLLMs that answer, and the family's reader where it has one."""
    found = answerers(options)
    if "reader" in options.family.roles:
        found["reader"] = options.family.weights("reader")
    return found


def consistent(
    arm: Arm, name: str, oracle: Weights, questions: Sequence[YesNoQuestion], options: Options
) -> list[float]:
    """Of each question the share of its views of which the oracle says what it says of the image.

    No answer agrees with nothing, not with another none.
    """
    n = _runs(options)
    decided_by = {
        "entry": "oracle answers",
        "format": 1,
        "oracle": [name == "reader", oracle.fingerprint()],
        "views": identity(arm, options, n),
        "questions": questions_key(questions),
    }

    def make(first: int) -> Iterator[list[bool | None]]:
        asked = _oracle(name, oracle, options)
        pairs = zip(questions[first:], views_of(arm, questions[first:], options, n), strict=True)
        while some := list(islice(pairs, _AT_ONCE)):
            pictures = [
                [load_image(one.picture()), *([] if made is None else made.views)]
                for one, made in some
            ]
            texts = [
                one.guidance for (one, _), its in zip(some, pictures, strict=True) for _ in its
            ]
            said = iter(asked.answers([p for its in pictures for p in its], texts))
            yield from ([next(said) for _ in its] for its in pictures)

    lines = kept_lines(
        options.folder / "answers",
        f"{arm.label}, {name}",
        decided_by,
        len(questions),
        make,
        quiet=options.quiet,
    )
    from hb_tta.metrics import answer_fidelity

    return answer_fidelity([line[0] for line in lines], [line[1:] for line in lines]).tolist()


def _oracle(name: str, weights: Weights, options: Options) -> Any:
    from hb_tta.experiments.oracle import MllmOracle, ReaderOracle

    return ReaderOracle(weights) if name == "reader" else MllmOracle(weights, device=options.device)


def _runs(options: Options) -> int:
    return options.views or RUNS


def _plan(
    arms: Sequence[Arm], options: Options, limit: int, asked: Mapping[str, Weights]
) -> Iterator[PlannedRun]:
    questions = questions_of(options, CATEGORIES, limit)
    n = _runs(options)
    for arm in arms:
        yield PlannedRun(
            f"views of {arm.label}",
            lambda arm=arm: make_views(arm, questions, options, n),  # type: ignore[misc]
            cost_of_views([arm], len(questions) // 2, n, options, len(questions)).forecast(options),
            arm.method or "",
        )
        for name, oracle in asked.items():
            yield PlannedRun(
                f"{name}: {arm.label}",
                lambda arm=arm, name=name, oracle=oracle: consistent(  # type: ignore[misc]
                    arm, name, oracle, questions, options
                ),
                Cost(pictures=len(questions) * (1 + n)).forecast(options),
                arm.method or "",
            )


def _cost(arms: Sequence[Arm], options: Options, limit: int, count: int) -> Cost:
    questions = 10 * limit
    n = _runs(options)
    made = cost_of_views(arms, questions // 2, n, options, questions)
    return made + Cost(pictures=questions * len(arms) * (1 + n) * count)


# ── Table 12 ─────────────────────────────────────────────────────────────────────────────────────


def _needs_12(options: Options) -> Needs:
    arms = fine_tuned.before_and_after(options)
    cost = _cost(arms, options, options.number(50, 8), len(oracles(options)))
    return Needs(
        methods=("hummingbird",),
        data=("questions",),
        weights=oracles(options),
        cost=cost + cost_of(fine_tuned.trainings(options), options),
    )


def _plan_12(options: Options) -> Iterator[PlannedRun]:
    yield from trainings_of(fine_tuned.trainings(options), options)
    arms = fine_tuned.before_and_after(options)
    yield from _plan(arms, options, options.number(50, 8), oracles(options))


def _show_12(results: Results, options: Options) -> Shown:
    questions = questions_of(options, CATEGORIES, options.number(50, 8))
    rows: list[list[Cell | str]] = []
    findings = []
    for name in oracles(options):
        labels = [arm.label for arm in fine_tuned.before_and_after(options)]
        kept = {one: results[f"{name}: {one}"] for one in labels if f"{name}: {one}" in results}
        for label, its in kept.items():
            base = kept.get(UNTUNED, its)
            rows.append([name, label, *_cells(label, its, base, questions)])
        if len(kept) == 2:
            test = _test(kept[TUNED], kept[UNTUNED], questions)
            claim = f"table 12, {name}: tuning raises fidelity"
            findings.append(Finding(claim, [(f"{TUNED} − {UNTUNED}", test)], about="tuning"))
    notes = [
        f"Ours: {options.family.name}, {images_each(questions)} images a category with two "
        f"questions each, {_runs(options)} seeds; 95 % intervals over images, the difference from "
        f"{UNTUNED!r} and its p-value. {SHOWN_NOTE} Of all questions.",
        *fine_tuned.explained(options),
    ]
    columns = ["", "", "on “yes”", "on “no”", "overall", SHOWN]
    title = "Table 12. Fidelity: the oracle says of a view what it says of the reference"
    table = Table(columns, rows, title, notes, heads=2)
    return Shown([table], findings=findings, missing=fine_tuned.lacking(options))


def _cells(
    label: str, its: list[float], base: list[float], questions: Sequence[YesNoQuestion]
) -> list[Cell | str]:
    found: list[Cell | str] = []
    for column, part in enumerate(((True,), (False,), (True, False))):
        kept = [n for n, one in enumerate(questions) if one.answer in part]
        ours, before = ([values[n] for n in kept] for values in (its, base))
        groups = [questions[n].group for n in kept]
        test = None if its is base else paired_test(ours, before, groups=groups)
        told = None if test is None else Comparison.of(test, UNTUNED)
        note = paper_note(NUMBERS, label, column)
        found.append(Cell.of(bootstrap_interval(ours, groups=groups), told, note=note))
    return [*found, "" if its is base else could_have_shown(_test(its, base, questions))]


def _test(its: list[float], base: list[float], questions: Sequence[YesNoQuestion]) -> PairedTest:
    return paired_test(its, base, groups=[one.group for one in questions])


TABLE_12 = Experiment(
    "table12",
    "Fidelity by an oracle, with and without fine-tuning",
    "Hummingbird, table 12",
    _needs_12,
    _plan_12,
    _show_12,
)

# ── Figure 1(g) ──────────────────────────────────────────────────────────────────────────────────


def _needs_1g(options: Options) -> Needs:
    arms = spread.arms(options)
    cost = spread.TABLE_4.needs(options).cost + _cost(arms, options, spread.each(options), 1)
    return Needs(
        roles=("clip",),
        methods=tuple(methods_of(options)),
        data=("questions",),
        weights=_last_oracle(options),
        cost=cost,
    )


def _last_oracle(options: Options) -> dict[str, Weights]:
    """The reader, which no training has seen, where there is one."""
    name, oracle = list(oracles(options).items())[-1]
    return {name: oracle}


def _plan_1g(options: Options) -> Iterator[PlannedRun]:
    yield from trainings_of(spread.trainings(options), options)
    for run in spread.distances_of_arms(options):
        yield PlannedRun(f"spread of {run.name}", run.do, run.seconds, run.needs)
    yield from _plan(spread.arms(options), options, spread.each(options), _last_oracle(options))


def _show_1g(results: Results, options: Options) -> Shown:
    (oracle,) = _last_oracle(options)
    questions = questions_of(options, CATEGORIES, spread.each(options))
    groups = [one.group for one in questions]
    points: list[Point] = []
    fidelity: dict[str, list[float]] = {}
    rows: list[list[Cell | str]] = []
    for arm in spread.arms(options):
        if f"spread of {arm.label}" not in results:
            continue
        far, _ = spread.distances(results[f"spread of {arm.label}"])
        kept = fidelity[arm.label] = results[f"{oracle}: {arm.label}"]
        x, y = bootstrap_interval(far), bootstrap_interval(kept, groups=groups)
        percents = (100 * y.estimate, 100 * y.low, 100 * y.high)
        points.append(Point(arm.label, (x.estimate, x.low, x.high), percents))
        rows.append([arm.label, Cell.of(x, kind="fine"), Cell.of(y)])
    if not points:
        return Shown()
    title = "Figure 1 (g). Diversity and fidelity of each method"
    note = f"Fidelity is told by the {oracle}; bars are 95 % intervals over images."
    svg = scatter(points, "distance from the reference (CLIP)", "fidelity, %")
    table = Table(["", "distance from the reference", "fidelity, %"], rows)
    return Shown(
        [table], drawings=[Drawing(title, svg, note)], findings=_best(fidelity, oracle, questions)
    )


def _best(
    fidelity: dict[str, list[float]], oracle: str, questions: Sequence[YesNoQuestion]
) -> list[Finding]:
    if TUNED not in fidelity:
        return []
    tests = [
        (f"against {label}", _test(fidelity[TUNED], its, questions))
        for label, its in fidelity.items()
        if label not in (TUNED, UNTUNED)
    ]
    claim = f"figure 1 (g), {oracle}: Hummingbird's views are the most faithful"
    return [Finding(claim, tests, "there is no other method", about="best")]


FIGURE_1G = Experiment(
    "figure1g",
    "Diversity against fidelity, a point a method",
    "Hummingbird, figure 1 (g)",
    _needs_1g,
    _plan_1g,
    _show_1g,
)
