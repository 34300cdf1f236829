"""Accuracy against time: the logs of the stages, and their picture for the card."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

from hb_tta.disk import write_aside
from hb_tta.training.pocket_family.run import RecipeRun

NOT_FIGURES = ("step", "of", "seconds", "loss")


def stage_logs(run: RecipeRun) -> dict[str, list[dict[str, float]]]:
    """The log of every stage: one dict an evaluation, with ``seconds`` of training until then."""
    logs = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(run.work.glob("*.jsonl"))
    }
    return {stage: log for stage, log in logs.items() if log}


def draw_curves(run: RecipeRun, path: Path) -> None:
    """One panel a stage: its figures against minutes; the loss where it logs no other figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = stage_logs(run)
    columns = 3
    lines = math.ceil(len(logs) / columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.1 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(logs) :]:
        axis.set_axis_off()
    for axis, (stage, log) in zip(axes.flat, logs.items(), strict=False):
        names = [name for name in log[-1] if name not in NOT_FIGURES] or ["loss"]
        minutes = [line["seconds"] / 60 for line in log]
        for name in names:
            axis.plot(
                minutes, [line.get(name, math.nan) for line in log], label=name, lw=1.4, marker="."
            )
        axis.set_title(stage, fontsize=10)
        axis.set_xlabel("minutes", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=6, ncols=1 + len(names) // 6, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    write_aside(path, buffer.getvalue())
