"""RandAugment of the reference image: the comparison that generates nothing.

Cubuk et al., 2020, as torchvision implements it, with its defaults (2 operations, magnitude 9 of
31), which is what the released code ran. Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hb_tta.errors import UserError
from hb_tta.generators.image_method import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class RandAugmentSpec(ImageSpec):
    """RandAugment (Cubuk et al., 2020) of the image itself, with torchvision's defaults.

    Attributes:
        num_ops: transformations one after the other, at least 1.
        magnitude: of all of them, 0 to 30.
    """

    num_ops: int = 2
    magnitude: int = 9

    method: ClassVar[str] = "randaugment"
    distorts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_ops < 1:
            raise UserError(f"num_ops={self.num_ops} changes nothing: use 1 or more")
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"magnitude={self.magnitude} is out of range: use 0 to 30")

    def change(self, image: Image, seed: int) -> Image:
        """See ``ImageSpec.change``."""
        import torch
        from torchvision.transforms import RandAugment

        # torchvision draws from torch's global CPU generator: seed it, then put it back. (Not
        # torch.manual_seed, which would seed every GPU's generator too.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return RandAugment(self.num_ops, self.magnitude)(image)
