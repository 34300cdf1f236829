"""RandAugment of the reference image: the comparison that generates nothing.

Cubuk et al., 2020, as torchvision implements it, with its defaults (2 operations, magnitude 9 of
31), which is what the released code ran.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torchvision.transforms import RandAugment

from hb_tta.errors import UserError
from hb_tta.generators.arguments import checked_seed, described_contexts
from hb_tta.generators.protocol import ContextLike
from hb_tta.generators.specs import RandAugmentSpec


class RandAugmentGenerator:
    """Random photometric and geometric changes of the image; descriptions are not looked at."""

    def __init__(self, spec: RandAugmentSpec) -> None:
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
        # torchvision draws from torch's global CPU generator: seed it, then put it back. (Not
        # torch.manual_seed, which would seed every GPU's generator too.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(checked_seed(seed))
            return self._transform(image.convert("RGB"))
