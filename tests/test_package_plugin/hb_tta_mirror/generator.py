"""The generator that the spec loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from hb_tta.generators import DescribedContext

if TYPE_CHECKING:
    from hb_tta_mirror.specs import MirrorSpec


class MirrorGenerator:
    def __init__(self, spec: MirrorSpec) -> None:
        self.spec = spec

    def generate(
        self,
        contexts: Sequence[DescribedContext | tuple[Image.Image, str | None]],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Image.Image]]:
        images = [DescribedContext(*context).image for context in contexts]
        return [
            [ImageOps.mirror(image) if seed % 2 else image.copy() for seed in its_seeds]
            for image, its_seeds in zip(images, seeds, strict=True)
        ]
