"""What a reward is: a frozen judge of images, differentiable to their pixels.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family

Targets = dict[str, Tensor]
"""What a reward compares images with, computed once an image-text pair and kept; a row a pair."""


class Judge(Protocol):
    """A frozen judge of images, differentiable to their pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rewards that one call gives."""
        ...

    def to(self, device: Any) -> Self:
        """The same on another device."""
        ...

    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """The frozen side of reference images and their descriptions, on the CPU, a row each."""
        ...

    def __call__(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Every reward of ``names``, (B,), for pixels in [0, 1] of any size."""
        ...

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """What the judge sees in the images, (B, features): for measuring their diversity."""
        ...


@runtime_checkable
class Reward(Judge, Protocol):
    """A class of judges, which loads them. Implementations are ``nn.Module``s.

    Attributes:
        names: of the rewards that one call gives.
    """

    names: ClassVar[tuple[str, ...]]

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """The weights to judge with where a person names none.

        Raises:
            UserError: there are none.
        """
        ...

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """The judge on the CPU; ``dtype`` is that of its vision tower."""
        ...
