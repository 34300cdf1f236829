"""RandAugment of the reference image: the comparison that generates nothing.

Cubuk et al., 2020, as torchvision implements it, with its defaults (2 operations, magnitude 9 of
31), which is what the released code ran. Importing this module imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import checked_seed, described_contexts
from hb_tta.generators.protocol import ContextLike, GeneratorSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class RandAugmentSpec(GeneratorSpec):
    """RandAugment (Cubuk et al., 2020) of the image itself, with torchvision's defaults.

    Attributes:
        num_ops: transformations one after the other, at least 1.
        magnitude: of all of them, 0 to 30.
    """

    num_ops: int = 2
    magnitude: int = 9

    method: ClassVar[str] = "randaugment"
    needs_description: ClassVar[bool] = False
    distorts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_ops < 1:
            raise UserError(f"num_ops={self.num_ops} changes nothing: use 1 or more")
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"magnitude={self.magnitude} is out of range: use 0 to 30")

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {
            "method": self.method,
            "version": 1,
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
        }

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> RandAugmentGenerator:
        """Nothing is loaded; it runs on the CPU, view by view, whatever the device."""
        if cpu_offload:
            warnings.warn(f"{self.method} ignores cpu_offload=True", HbTtaWarning, stacklevel=2)
        return RandAugmentGenerator(self)


class RandAugmentGenerator:
    """Random photometric and geometric changes of the image; descriptions are not looked at."""

    def __init__(self, spec: RandAugmentSpec) -> None:
        from torchvision.transforms import RandAugment

        self.spec = spec
        self._transform = RandAugment(spec.num_ops, spec.magnitude)

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Image]]:
        """See ``Generator.generate``: RGB images of the references' own sizes, on the CPU."""
        if output_type != "pil":
            raise UserError(f"output_type={output_type!r} is not known to randaugment: use 'pil'")
        described = described_contexts(contexts, seeds, needs_description=False)
        return [
            [self._augmented(context.image, seed) for seed in its_seeds]
            for context, its_seeds in zip(described, seeds, strict=True)
        ]

    def _augmented(self, image: Image, seed: int) -> Image:
        import torch

        # torchvision draws from torch's global CPU generator: seed it, then put it back. (Not
        # torch.manual_seed, which would seed every GPU's generator too.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(checked_seed(seed))
            return self._transform(image.convert("RGB"))
