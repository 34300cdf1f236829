"""Held-out rewards and diversity.

A reward that is maximised is soon fooled: images turn into one image, or into a texture that the
judge likes. So held-out contexts are drawn from noises of their own, several each; their spread in
a judge's features is the diversity, and a run that loses it stops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hb_tta.rewards import Judge
from hb_tta.training.objectives import conditions_in, judge, noise_of
from hb_tta.training.prepare import Prepared
from hb_tta.training.rollout import Rollout
from hb_tta.training.trained import Held

EVALUATION_EPOCH = 2**31  # of the noise: no training epoch has it


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
    """Samples every held-out context from the same noises at every call.

    The diversity is the mean distance between two seeds of a context, in the first judge's
    features; the pictures are of the first contexts of this process, a row a context, RGB uint8.
    """
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
