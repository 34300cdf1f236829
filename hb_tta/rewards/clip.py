"""CLIP as a reward (appendix E, table 7).

The authors' code also has HPSv2, of which there is only a pickle, which is never read; converted to
an open_clip folder of safetensors it works as ``clip_text``.

Shape suffixes: B images, C channels, H height, W width, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.pixels import Normalize, pixels_of, resized
from hb_tta.rewards.protocol import Targets
from hb_tta.rewards.reading import reading
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family


class CLIPReward(nn.Module):
    """Cosines of an open_clip model.

    ``clip_text``: of image and description, the global reward where CLIP takes the evaluator's
    place (appendix E, table 7). ``clip_image``: of image and reference, one of the authors' extra
    rewards; it pulls towards a copy of the reference.

    Args:
        model: an open_clip model; it is frozen.
        tokenizer: its own.
        size: side of the pictures it takes.
    """

    names: ClassVar[tuple[str, ...]] = ("clip_text", "clip_image")

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        size = model.visual.image_size
        self.size = size if isinstance(size, int) else size[0]
        self.normalize = Normalize(model.visual.image_mean, model.visual.image_std)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """The family's CLIP."""
        return default_weights("clip_text", family)

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """A folder or hub repository in open_clip's layout, in float32."""
        import open_clip

        with reading(weights, "CLIP"):
            source = f"local-dir:{weights.local_folder('clip')}"
            model = open_clip.create_model(source, load_weights=True)
            return cls(model, open_clip.get_tokenizer(source))

    @torch.no_grad()
    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """Normalised embeddings of the descriptions and of the references."""
        device = next(self.model.parameters()).device
        text = self.model.encode_text(self.tokenizer(list(descriptions)).to(device))
        seen = self.features(pixels_of(images, self.size).to(device))
        return {"clip_text_BE": F.normalize(text, dim=-1).cpu(), "clip_image_BE": seen.cpu()}

    def forward(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Both cosines, (B,)."""
        seen = self.features(pixels_BCHW)
        return {
            "clip_text": (seen * targets["clip_text_BE"].to(seen)).sum(-1),
            "clip_image": (seen * targets["clip_image_BE"].to(seen)).sum(-1),
        }

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalised image embeddings."""
        return F.normalize(self.embeddings(pixels_BCHW), dim=-1)

    def embeddings(self, pixels_BCHW: Tensor) -> Tensor:
        """Image embeddings as they come, whose lengths table 4's distances are of."""
        return self.model.encode_image(self.normalize(resized(pixels_BCHW, self.size)))
