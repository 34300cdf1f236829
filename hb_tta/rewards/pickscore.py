"""PickScore, one of the rewards that the authors' code adds to the paper's two.

Shape suffixes: B images, C channels, H height, W width, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.expected import check_clip, picture_values
from hb_tta.rewards.pixels import Normalize, resized
from hb_tta.rewards.protocol import Targets
from hb_tta.rewards.reading import reading
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family


class PickScore(nn.Module):
    """PickScore (Kirstain et al., 2023): what people prefer, a CLIP's cosine of image and text.

    The cosine stands as it is, without the temperature of about 100.
    """

    names: ClassVar[tuple[str, ...]] = ("pickscore",)

    def __init__(
        self, model: Any, tokenizer: Any, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.size = model.config.vision_config.image_size
        self.normalize = Normalize(mean, std)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """The published ones, whatever the family."""
        return default_weights("pickscore", family)

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """A CLIP in transformers' layout; the vision tower in ``dtype``."""
        from transformers import AutoProcessor, CLIPModel

        with reading(weights, "PickScore"):
            folder = weights.local_folder()
            model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            processor = AutoProcessor.from_pretrained(folder)
        tokenizer = getattr(processor, "tokenizer", None)
        check_clip(tokenizer, model.config.text_config.vocab_size, weights)
        pictures = getattr(processor, "image_processor", None)
        values = picture_values(pictures, model.config.vision_config.image_size, weights)
        model.vision_model.to(dtype)
        return cls(model, tokenizer, *values)

    @torch.no_grad()
    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """Normalised embeddings of the descriptions."""
        limit = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(
            list(descriptions), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.model.device)
        pooled = self.model.text_model(**batch).pooler_output
        return {"pickscore_BE": F.normalize(self.model.text_projection(pooled), dim=-1).cpu()}

    def forward(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The cosine, (B,)."""
        seen = self.features(pixels_BCHW)
        return {"pickscore": (seen * targets["pickscore_BE"].to(seen)).sum(-1)}

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalised image embeddings."""
        tower = self.model.vision_model
        pixels = self.normalize(resized(pixels_BCHW, self.size)).to(tower.dtype)
        pooled = tower(pixel_values=pixels).pooler_output
        projection = self.model.visual_projection
        return F.normalize(projection(pooled.to(projection.weight.dtype)), dim=-1)
