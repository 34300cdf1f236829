"""Several judges of one class with different weights, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from hb_tta.rewards.protocol import Judge, Targets

if TYPE_CHECKING:
    from PIL.Image import Image


class OneOfSeveral:
    """A judge that gives only what it is named for, from targets under names of its own.

    Args:
        judge: one of several of its class.
        names: of the rewards that this one is to give.
    """

    def __init__(self, judge: Judge, names: Sequence[str]) -> None:
        self.judge = judge
        self.names = tuple(names)
        self._prefix = "+".join(names) + "/"

    def to(self, device: Any) -> Self:
        """The same on another device."""
        self.judge = self.judge.to(device)
        return self

    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """The judge's own, named apart from those of the others of its class."""
        own = self.judge.targets(images, descriptions)
        return {self._prefix + name: tensor for name, tensor in own.items()}

    def __call__(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The rewards of ``names``, (B,)."""
        own = {
            name.removeprefix(self._prefix): tensor
            for name, tensor in targets.items()
            if name.startswith(self._prefix)
        }
        given = self.judge(pixels_BCHW, own)
        return {name: given[name] for name in self.names}

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """What the judge sees in the images."""
        return self.judge.features(pixels_BCHW)
