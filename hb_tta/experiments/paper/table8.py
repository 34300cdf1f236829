"""Table 8: MME's artwork and commonsense reasoning; in the pocket world filling and comparing."""

from __future__ import annotations

from hb_tta.datasets.questions import MORE
from hb_tta.experiments.methods import arms_of, methods_of
from hb_tta.experiments.numbers import TABLE_8
from hb_tta.experiments.paper.mme import Asked, asked_by, mme_table
from hb_tta.experiments.paper.table1 import findings
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Experiment, Needs, Options, Results, Shown

TITLE = "MME's artwork and reasoning by test-time augmentation"


def asked(options: Options) -> Asked:
    """All methods, the first MLLM."""
    more = MORE[options.benchmark("questions")]
    categories = {name: meant for meant, name in more.items()}
    return asked_by(options, arms_of(options), full=100, quick=8, categories=categories)


def needs(options: Options) -> Needs:
    """As of table 1."""
    its = asked(options)
    return Needs(
        methods=tuple(methods_of(options)),
        data=("more questions",),
        cost=its.cost(options),
        weights=its.mllms,
    )


def plan(options: Options) -> list[PlannedRun]:
    """Views and answers of each arm."""
    return list(asked(options).plan(options))


def show(results: Results, options: Options) -> Shown:
    """The table."""
    its = asked(options)
    scored = its.scored(results, options)
    if not scored:
        return Shown()
    table = mme_table(scored, {"": TABLE_8}, its, options, f"Table 8. {TITLE}")
    return Shown([table], findings=[f for one in scored.items() for f in findings(*one, its)])


EXPERIMENT = Experiment("table8", TITLE, "Hummingbird, table 8", needs, plan, show)
