"""What every method has that changes the reference image itself: no model, no description.

Imports no torch. A method is a file with an ``ImageSpec``: its fields, and how one seed's view is
made of an image.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import checked_seed, described_contexts
from hb_tta.generators.fields import method_settings
from hb_tta.generators.protocol import ContextLike, GeneratorSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageSpec(GeneratorSpec):
    """What every generator has that makes its views of the image's own pixels.

    Attributes:
        version: counts the changes that move a pixel; a part of the store's key.
    """

    version: ClassVar[int] = 1
    needs_description: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        own = {
            name: float(getattr(self, name)) if setting.type is float else getattr(self, name)
            for name, setting in method_settings(type(self)).items()
        }
        return {"method": self.method, "version": self.version, **own}

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> ImageGenerator:
        """Nothing is loaded; it runs on the CPU, view by view, whatever the device."""
        if cpu_offload:
            warnings.warn(f"{self.method} ignores cpu_offload=True", HbTtaWarning, stacklevel=2)
        return ImageGenerator(self)

    @abstractmethod
    def change(self, image: Image, seed: int) -> Image:
        """One view.

        Args:
            image: RGB, of any size; it is left as it is.
            seed: a 64-bit integer, which decides all that is random.

        Returns:
            RGB, of the same size.
        """
        ...


class ImageGenerator:
    """Views by ``ImageSpec.change``; descriptions are not looked at."""

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Image]]:
        """See ``Generator.generate``: RGB images of the references' own sizes, on the CPU."""
        if output_type != "pil":
            raise UserError(
                f"output_type={output_type!r} is not known to {self.spec.method}: use 'pil'"
            )
        described = described_contexts(contexts, seeds, needs_description=False)
        return [
            [self.spec.change(context.image.convert("RGB"), checked_seed(s)) for s in its_seeds]
            for context, its_seeds in zip(described, seeds, strict=True)
        ]
