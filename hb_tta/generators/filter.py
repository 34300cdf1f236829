"""Filter: the reference image, blurred by a box or a median. Imports no torch.

Where the real image is noisy a filter gives what a cleaner view would, and generates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from hb_tta.errors import UserError
from hb_tta.generators.image_method import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class FilterSpec(ImageSpec):
    """The image itself, filtered: each pixel becomes the mean (box) or median of those around it.

    There is one view of an image, whatever the seed and however many are asked for.

    Attributes:
        kind: box or median.
        radius: how many pixels to each side count, 1 to 50; 1 is a square of 3×3.
    """

    kind: Literal["box", "median"] = "box"
    radius: int = 1

    method: ClassVar[str] = "filter"
    distorts: ClassVar[bool] = True
    outputs: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        if self.kind not in ("box", "median"):
            raise UserError(f"kind={self.kind!r} is no filter: use box or median")
        if not 1 <= self.radius <= 50:
            raise UserError(f"radius={self.radius} is out of range: use 1 to 50")

    def change(self, image: Image, seed: int) -> Image:
        """See ``ImageSpec.change``; the seed changes nothing."""
        from PIL import ImageFilter

        if self.kind == "box":
            return image.filter(ImageFilter.BoxBlur(self.radius))
        return image.filter(ImageFilter.MedianFilter(2 * self.radius + 1))
