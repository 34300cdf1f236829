"""Jitter: the reference image moved and zoomed by a little. The control that generates nothing.

What decides the answer stays, and what a vision tower makes of it varies: a gain that jitter gives
too is none of the generator's. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hb_tta.errors import UserError
from hb_tta.generators.image_method import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image

SHIFT, ZOOM = 4 / 64, 0.08  # changed no answer of the pocket world


@dataclass(frozen=True)
class JitterSpec(ImageSpec):
    """The image itself, moved and zoomed in by a little; its borders repeat.

    Attributes:
        shift: farthest move along each side, as a part of the side, 0 to 0.5.
        zoom: most that is zoomed in, as a part of the side, 0 to 0.9.
    """

    shift: float = SHIFT
    zoom: float = ZOOM

    method: ClassVar[str] = "jitter"
    distorts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 0.5:
            raise UserError(f"shift={self.shift} is out of range: use 0 to 0.5")
        if not 0 <= self.zoom <= 0.9:
            raise UserError(f"zoom={self.zoom} is out of range: use 0 to 0.9")

    def change(self, image: Image, seed: int) -> Image:
        """See ``ImageSpec.change``."""
        rng = np.random.default_rng(seed % 2**64)
        return jittered(image, rng, shift=self.shift, zoom=self.zoom)


def jittered(
    image: Image, rng: np.random.Generator, *, shift: float = SHIFT, zoom: float = ZOOM
) -> Image:
    """An RGB image moved by up to ``shift`` and zoomed in by up to ``zoom``; its borders repeat."""
    from PIL.Image import Resampling, fromarray

    size = np.array(image.size)
    right, down = room = np.ceil(shift * size).astype(int) + 1
    padded = np.pad(np.asarray(image), ((down, down), (right, right), (0, 0)), "edge")
    corner = room + rng.uniform(-shift, shift, 2) * size
    inset = 0.5 * rng.uniform(0, zoom) * size
    box = (*(corner + inset), *(corner + size - inset))
    return fromarray(padded).resize(image.size, Resampling.BICUBIC, box=box)
