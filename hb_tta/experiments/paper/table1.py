"""Table 1: MME's five categories by test-time augmentation, methods beside each other."""

from __future__ import annotations

from hb_tta.experiments.methods import TUNED, arms_of, methods_of
from hb_tta.experiments.numbers import TABLE_1
from hb_tta.experiments.paper.mme import Asked, asked_by, mme_table, test_between, test_of
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Experiment, Finding, Needs, Options, Results, Shown
from hb_tta.report.scores import Scored

TITLE = "MME by test-time augmentation: methods beside each other"


def asked(options: Options) -> Asked:
    """All methods, and both MLLMs where the family has two."""
    return asked_by(options, arms_of(options), mllms=2, full=100, quick=8)


def needs(options: Options) -> Needs:
    """The MLLMs, every method's weights, and the questions."""
    its = asked(options)
    return Needs(
        methods=tuple(methods_of(options)),
        data=("questions",),
        cost=its.cost(options),
        weights=its.mllms,
    )


def plan(options: Options) -> list[PlannedRun]:
    """Views and answers of each arm."""
    return list(asked(options).plan(options))


def show(results: Results, options: Options) -> Shown:
    """The table, and what it says of fidelity."""
    its = asked(options)
    scored = its.scored(results, options)
    if not scored:
        return Shown()
    table = mme_table(scored, TABLE_1, its, options, f"Table 1. {TITLE}")
    return Shown([table], findings=[f for one in scored.items() for f in findings(*one, its)])


def findings(mllm: str, scored: list[Scored], asked: Asked) -> list[Finding]:
    """That augmentation helps on every task, and that Hummingbird is the most faithful."""
    ours = next((one for one in scored if one.run.name == TUNED), None)
    if ours is None:
        return []
    helps = [
        (f"{category}, ACC", test)
        for category in asked.categories
        if (test := test_of(ours, category)) is not None
    ]
    others = [one for one in scored if one.plain is not None and one is not ours]
    best = [(f"against {one.run.name}", test_between(ours, one)) for one in others]
    return [
        Finding(f"{mllm}: Hummingbird's views help on every task", helps),
        Finding(f"{mllm}: Hummingbird is best of all methods", best, "there is no other method"),
    ]


EXPERIMENT = Experiment("table1", TITLE, "Hummingbird, table 1", needs, plan, show)
