"""Rewards beside the Multimodal Context Evaluator: CLIP (appendix E), PickScore, aesthetics.

The authors' code adds these to the paper's two. Of their fourth, HPSv2, there is only a pickle,
which is never read; converted to an open_clip folder of safetensors it works as ``clip_text``.

Shape suffixes: B images, C channels, H height, W width, T text positions, E embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.errors import UserError
from hb_tta.rewards.evaluator import Normalize, Targets, pixels_of, reading, resized
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
        return family.weights("clip")

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """A folder or hub repository in open_clip's layout, in float32."""
        import open_clip

        with reading(weights, "CLIP"):
            source = f"local-dir:{weights.local_folder()}"
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
        pixels = self.normalize(resized(pixels_BCHW, self.size))
        return F.normalize(self.model.encode_image(pixels), dim=-1)


class PickScore(nn.Module):
    """PickScore (Kirstain et al., 2023): what people prefer, a CLIP's cosine of image and text.

    The cosine stands as it is, without the temperature of about 100.
    """

    names: ClassVar[tuple[str, ...]] = ("pickscore",)

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = processor.tokenizer
        self.size = model.config.vision_config.image_size
        pictures = processor.image_processor
        self.normalize = Normalize(pictures.image_mean, pictures.image_std)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """The published ones, whatever the family."""
        return Weights("yuvalkirstain/PickScore_v1")

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """A CLIP in transformers' layout; the vision tower in ``dtype``."""
        from transformers import AutoProcessor, CLIPModel

        with reading(weights, "PickScore"):
            folder = weights.local_folder()
            model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            processor = AutoProcessor.from_pretrained(folder)
        model.vision_model.to(dtype)
        return cls(model, processor)

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
        raise UserError(
            "the aesthetic reward is published as a pickle, which is never read: convert its head "
            "to head.safetensors and name the folder, as in "
            "--set reward_weights.aesthetic=FOLDER"
        )

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """The folder that the class's docstring describes."""
        from safetensors.torch import load_file
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        with reading(weights, "aesthetic predictor"):
            folder = Path(weights.local_folder())
            written = folder / "config.json"
            named = json.loads(written.read_text())["clip"] if written.exists() else None
            source = Weights(named).local_folder() if named else str(folder / "clip")
            tower = CLIPVisionModelWithProjection.from_pretrained(
                source, dtype=dtype, use_safetensors=True
            )
            pictures = CLIPImageProcessor.from_pretrained(source)
            head = _head(load_file(folder / "head.safetensors"))
        return cls(tower, head, pictures.image_mean, pictures.image_std)

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
