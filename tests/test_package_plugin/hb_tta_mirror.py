"""A generator from another package, whole: the reference image, mirrored for some seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image, ImageOps

from hb_tta.generators import DescribedContext, GeneratorSpec


@dataclass(frozen=True)
class MirrorSpec(GeneratorSpec):
    """Mirrors the reference image for some seeds and leaves it for the others.

    Attributes:
        every: seeds that are multiples of it leave the image as it is.
    """

    every: int = 2

    method: ClassVar[str] = "mirror"
    needs_description: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "version": 1, "every": self.every}

    def load(self, device: str | None = None, **_: Any) -> MirrorGenerator:
        return MirrorGenerator(self)


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
        every = self.spec.every
        return [
            [ImageOps.mirror(image) if seed % every else image.copy() for seed in its_seeds]
            for image, its_seeds in zip(images, seeds, strict=True)
        ]
