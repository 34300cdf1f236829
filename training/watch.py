"""Watching a training: held-out rewards and diversity, sample grids, the convergence curve.

A reward that is maximised is soon fooled: images turn into one image, or into a texture that the
judge likes. So held-out contexts are drawn from noises of their own, several each; their spread in
a judge's features is the diversity, and a run that loses it stops.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from hb_tta.training.objectives import conditions_in, judge, noise_of
from hb_tta.training.prepare import Prepared, Sample
from hb_tta.training.rollout import Rollout
from PIL import Image, ImageDraw
from torch import Tensor

from hb_tta.disk import write_aside
from hb_tta.rewards import Judge

EVALUATION_EPOCH = 2**31  # of the noise: no training epoch has it


@dataclass
class Held:
    """What one evaluation says.

    Attributes:
        rewards: name → mean over the held-out contexts and their seeds.
        diversity: mean distance between two seeds of a context, in the first judge's features.
        pictures: of the first contexts of this process, a row a context, RGB uint8.
    """

    rewards: dict[str, float]
    diversity: float
    pictures: list[list[np.ndarray]]


@torch.no_grad()
def evaluate(
    rollout: Rollout,
    rewards: Sequence[Judge],
    prepared: Prepared,
    accelerator: Accelerator,
    *,
    seeds: int,
    rows: int,
    batch_size: int,
    seed: int,
) -> Held:
    """Samples every held-out context from the same noises at every call."""
    mine = range(accelerator.process_index, len(prepared.held_out), accelerator.num_processes)
    views = [(context, number) for context in mine for number in range(seeds)]
    sums: dict[str, Tensor] = {}
    features: dict[int, list[Tensor]] = {}
    pictures: dict[int, list[np.ndarray]] = {}
    for first in range(0, len(views), batch_size):
        some = views[first : first + batch_size]
        batch = prepared.batch([prepared.held_out[c] for c, _ in some], accelerator.device)
        keys = [(EVALUATION_EPOCH, c * seeds + n) for c, n in some]
        noise = noise_of(rollout, seed, keys).to(accelerator.device)
        pixels = rollout(conditions_in(batch), noise, gradient_steps=())
        for name, score in judge(rewards, pixels, batch).items():
            sums[name] = sums.get(name, torch.zeros((), device=score.device)) + score.double().sum()
        for (context, _), row, seen in zip(
            some, pixels, rewards[0].features(pixels).float(), strict=True
        ):
            features.setdefault(context, []).append(seen)
            if context < rows * accelerator.num_processes:
                pictures.setdefault(context, []).append(_uint8(row))
    spread = torch.stack([*(sums[name] for name in sorted(sums)), _spread(features)])
    total = accelerator.reduce(spread.to(accelerator.device).float(), "sum").tolist()
    count = len(prepared.held_out)
    return Held(
        {name: value / (count * seeds) for name, value in zip(sorted(sums), total, strict=False)},
        total[-1] / count,
        [pictures[context] for context in sorted(pictures)],
    )


def _spread(features: dict[int, list[Tensor]]) -> Tensor:
    """Sum over contexts of the mean distance between their seeds."""
    spreads = [torch.pdist(torch.stack(seen)).mean() for seen in features.values() if len(seen) > 1]
    return torch.stack(spreads).double().sum() if spreads else torch.zeros((), dtype=torch.float64)


def _uint8(pixels_CHW: Tensor) -> np.ndarray:
    return (pixels_CHW.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────

CELL = 192  # largest side of a picture in a grid
GAP = 4


def write_grid(
    path: Path, pictures: list[list[np.ndarray]], samples: Sequence[Sample], title: str
) -> None:
    """A row a context: its description, and its samples from the same noises as ever."""
    cells = [[_cell(picture) for picture in row] for row in pictures]
    side = GAP + max(cell.width for row in cells for cell in row)
    text = 240
    sheet = Image.new("RGB", (text + max(map(len, cells)) * side, 20 + len(cells) * side), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 4), title, fill="black")
    for number, (row, sample) in enumerate(zip(cells, samples, strict=False)):
        draw.multiline_text((4, 24 + number * side), _wrapped(sample.description), fill="black")
        for place, cell in enumerate(row):
            sheet.paste(cell, (text + place * side, 20 + number * side))
    _save(sheet, path)


def _cell(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    if image.width < CELL:
        factor = max(1, CELL // image.width)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((CELL, CELL))
    return image


def _wrapped(text: str, width: int = 36, lines: int = 12) -> str:
    import textwrap

    plain = text.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font knows
    return "\n".join(textwrap.wrap(plain, width)[:lines])


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_aside(path, buffer.getvalue())


def write_curve(path: Path, metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    """The convergence curve, as the paper's figure 16: a panel a reward, training and held-out.

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
        axes.set(title=f"{name} reward", xlabel="step")
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
