"""Crops: a random part of the reference image, at the image's own size. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hb_tta.errors import UserError
from hb_tta.generators.image_method import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class CropsSpec(ImageSpec):
    """A random part of the image, of its own proportions and enlarged to its size.

    What lies outside is lost, so a crop can change the answer; nothing is mirrored.

    Attributes:
        smallest: area of the smallest part, as a part of the image's, above 0 and up to 1.
    """

    smallest: float = 0.5

    method: ClassVar[str] = "crops"

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise UserError(
                f"smallest={self.smallest} is out of range: use a number above 0 and up to 1"
            )

    def change(self, image: Image, seed: int) -> Image:
        """See ``ImageSpec.change``."""
        from PIL.Image import Resampling

        rng = np.random.default_rng(seed % 2**64)
        size = np.array(image.size)
        part = np.sqrt(rng.uniform(self.smallest, 1)) * size
        corner = rng.uniform(0, 1, 2) * (size - part)
        box = (*corner, *np.minimum(corner + part, size))
        return image.resize(image.size, Resampling.BICUBIC, box=box)
