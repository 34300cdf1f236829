"""Figure 16: how the rewards of a training level off."""

from __future__ import annotations

import json
from typing import Any

from hb_tta.experiments.paper.lora import Training, cost_of, trainings_of, tuned, untrained
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Drawing,
    Experiment,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.report.drawing import curves

TITLE = "Rewards of held-out contexts over a training"


def _trainings() -> list[Training]:
    return [tuned("both rewards")]


def needs(options: Options) -> Needs:
    """A training."""
    return Needs(roles=("generator", "mllm", "evaluator"), cost=cost_of(_trainings(), options))


def plan(options: Options) -> list[PlannedRun]:
    """The training of table 5's first row."""
    return list(trainings_of(_trainings(), options))


def show(results: Results, options: Options) -> Shown:
    """A drawing a reward."""
    missing = untrained(_trainings(), options)
    drawings = []
    for training in _trainings():
        path = training.folder(options) / "metrics.jsonl"
        if path.exists():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            drawings += _drawings(training.label, [row for row in rows if "held_out" in row])
    return Shown(drawings=drawings, missing=missing)


def _drawings(label: str, rows: list[dict[str, Any]]) -> list[Drawing]:
    names = list(rows[0]["held_out"]) if rows else []
    return [
        Drawing(
            f"Figure 16. {label}: {name}",
            curves({name: [(row["step"], row["held_out"][name]) for row in rows]}, "step", name),
            "The paper's level off at about 50,000 steps of its size.",
        )
        for name in names
    ]


FIGURE_16 = Experiment("figure16", TITLE, "Hummingbird, figure 16", needs, plan, show)
