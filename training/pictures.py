"""The convergence curve of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hb_tta.disk import write_aside


def write_curve(path: Path, metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    """The convergence curve, as the paper's figure 16: a panel a figure, training and held-out.

    Returns:
        Whether it was drawn: it needs matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(5 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        steps = [row["step"] for row in metrics if name in row]
        values = np.array([row[name] for row in metrics if name in row])
        if len(values):
            axes.plot(steps, values, color="#9bb8d3", linewidth=0.6, label="a step's samples")
            axes.plot(steps, _smooth(values), color="#1f4e79", label="their running mean")
        held = [row for row in metrics if name in row.get("held_out", {})]
        axes.plot(
            [row["step"] for row in held],
            [row["held_out"][name] for row in held],
            "o-",
            color="#c55a11",
            markersize=3,
            label="held-out contexts",
        )
        axes.set(title=name, xlabel="step")
        axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_aside(path, buffer.getvalue())
    return True


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a twentieth of the curve."""
    width = max(1, len(values) // 20)
    padded = np.concatenate([np.full(width - 1, values[0]), values])
    return np.convolve(padded, np.ones(width) / width, "valid")
