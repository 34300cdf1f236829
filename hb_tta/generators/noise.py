"""Noise: the reference image with Gaussian noise on it. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hb_tta.errors import UserError
from hb_tta.generators.image_method import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class NoiseSpec(ImageSpec):
    """The image itself, with Gaussian noise on every pixel.

    Attributes:
        sigma: standard deviation, with pixels from 0 to 1; above 0.
    """

    sigma: float = 0.1

    method: ClassVar[str] = "noise"
    distorts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise UserError(f"sigma={self.sigma} is out of range: use a number above 0")

    def change(self, image: Image, seed: int) -> Image:
        """See ``ImageSpec.change``."""
        from PIL.Image import fromarray

        pixels_HWC = np.asarray(image, np.float32)
        rng = np.random.default_rng(seed % 2**64)
        noisy_HWC = pixels_HWC + 255 * self.sigma * rng.standard_normal(pixels_HWC.shape, "f4")
        return fromarray(noisy_HWC.round().clip(0, 255).astype(np.uint8))
