"""What changes from step to step: the sampling steps that carry the gradient, the learning rate."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hb_tta.training.recipes import Settings
from hb_tta.training.rollout import last_steps
from hb_tta.training.settings import Common


def gradient_steps(settings: Settings, step: int) -> list[int]:
    """The sampling steps with gradient, the same for all samples of an optimizer step."""
    draw = np.random.default_rng([settings.seed, step, 7])
    total, carried = settings.num_inference_steps, settings.gradient_steps
    if settings.random_gradient_steps:
        carried = int(draw.integers(1, min(total, 2 * carried - 1) + 1))
    if settings.gradient_at == "end":
        return [*last_steps(carried, total)]
    edges = np.linspace(0, total, carried + 1).round().astype(int)  # one in each of K parts
    return [int(draw.integers(low, high)) for low, high in pairwise(edges)]


def learning_rate(settings: Settings, step: int) -> float:
    """Of the step after ``step`` others."""
    return settings.learning_rate * rate_factor(settings, step)


def rate_factor(settings: Common, step: int) -> float:
    """What the schedule makes of a rate: it rises in a line, and falls to 0 in one."""
    rising = min(1, (step + 1) / (settings.warmup_steps + 1))
    falling = 1 if settings.decay_steps is None else 1 - step / settings.decay_steps
    return min(rising, falling)
