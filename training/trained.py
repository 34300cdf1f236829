"""What the loop asks of a kind of training.

The loop (train.py) knows steps, checkpoints, logs and processes; a kind knows its models, its data
and its loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Key = tuple[int, int]
"""(epoch, index) of a sample: with the seed, all that its draws depend on."""


class Held(NamedTuple):
    """What one evaluation says.

    Attributes:
        figures: name → mean over the held-out samples.
        diversity: of what is drawn of one sample; ``None``: nobody measures it.
        pictures: what ``draw`` shows.
    """

    figures: dict[str, float]
    diversity: float | None
    pictures: Any


class Trained(Protocol):
    """A training's models, data and loss.

    Attributes:
        models: fingerprints of what the run trains on and with.
        samples: to train on.
        bad: why rows cannot be used.
        parameters: that are trained, in a fixed order.
        optimizer: of all of them, in that order.
        curves: the figures of the convergence curve.
        min_diversity: the least, of the first evaluation's; ``None``: any.
    """

    models: dict[str, Any]
    samples: int
    bad: list[str]
    parameters: list[Any]
    optimizer: torch.optim.Optimizer
    curves: list[str]
    min_diversity: float | None

    def told(self) -> str:
        """A line about the samples."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name, whole and on the CPU; called by all processes at once."""
        ...

    def set_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what ``tensors`` gave."""
        ...

    def write(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """Writes what ``tensors`` gave as people use it."""
        ...

    def set_rates(self, step: int) -> None:
        """The rates of the step after ``step`` others."""
        ...

    def losses(self, step: int, keys: Sequence[Key]) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,) and, detached, figures (B,) to log, of one micro-batch."""
        ...

    def noted(self, step: int) -> dict[str, float]:
        """What else the line of a step says."""
        ...

    def evaluate(self) -> Held:
        """The held-out samples; called by all processes at once."""
        ...

    def draw(self, step: int, held: Held) -> None:
        """Shows them in the run's folder."""
        ...

    def score(self, figures: dict[str, float]) -> float:
        """What the best of several evaluations has most of."""
        ...
