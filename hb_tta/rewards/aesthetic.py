"""LAION's aesthetics, one of the rewards that the authors' code adds to the paper's two.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.reading import read_json
from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.expected import picture_values
from hb_tta.rewards.pixels import Normalize, resized
from hb_tta.rewards.protocol import Targets
from hb_tta.rewards.reading import reading
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family


class Aesthetic(nn.Module):
    """LAION's improved aesthetic predictor: a small head on CLIP ViT-L/14, about 1 to 10.

    Its head is published as a pickle, which is never read. Give a folder with ``head.safetensors``
    (linear layers ``layers.0.weight``, … as published) and the CLIP in transformers' layout, named
    by ``config.json`` as ``{"clip": "openai/clip-vit-large-patch14"}`` or lying in ``clip/``.
    """

    names: ClassVar[tuple[str, ...]] = ("aesthetic",)

    def __init__(self, tower: Any, head: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.tower = tower.requires_grad_(False).eval()
        self.head = head.requires_grad_(False).eval()
        self.size = tower.config.image_size
        self.normalize = Normalize(mean, std)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """There are none."""
        return default_weights("aesthetic", family)

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """The folder that the class's docstring describes."""
        from safetensors.torch import load_file
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        with reading(weights, "aesthetic predictor"):
            folder = Path(weights.local_folder())
            written = folder / "config.json"
            named = read_json(written)["clip"] if written.exists() else None
            source = Weights(named).local_folder() if named else str(folder / "clip")
            tower = CLIPVisionModelWithProjection.from_pretrained(
                source, dtype=dtype, use_safetensors=True
            )
            pictures = CLIPImageProcessor.from_pretrained(source)
            head = _head(load_file(folder / "head.safetensors"))
        return cls(tower, head, *picture_values(pictures, tower.config.image_size, weights))

    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """Nothing: beauty alone counts."""
        return {}

    def forward(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The predicted score, (B,)."""
        return {"aesthetic": self.head(self.features(pixels_BCHW))[:, 0]}

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalised image embeddings."""
        pixels = self.normalize(resized(pixels_BCHW, self.size)).to(self.tower.dtype)
        embeds = self.tower(pixel_values=pixels).image_embeds
        return F.normalize(embeds.to(next(self.head.parameters()).dtype), dim=-1)


def _head(tensors: dict[str, Tensor]) -> nn.Sequential:
    """The linear layers of a state dict in their order; what lay between them were dropouts."""
    numbers = sorted({int(key.split(".")[1]) for key in tensors})
    layers = []
    for number in numbers:
        weight, bias = (tensors[f"layers.{number}.{part}"].float() for part in ("weight", "bias"))
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
    return nn.Sequential(*layers)
