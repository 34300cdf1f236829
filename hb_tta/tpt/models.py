"""Loading a CLIP by folder, hub id or open_clip name, with its preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from hb_tta.errors import UserError
from hb_tta.network import at_once, hub_answers
from hb_tta.progress import without_bars_of_libraries
from hb_tta.tpt.encoders import DualEncoder
from hb_tta.weights import Weights


@dataclass(frozen=True)
class Clip:
    """A CLIP ready for images.

    Attributes:
        encoder: the frozen model and its tokenizer.
        preprocess: an RGB image of any size → pixels (3, H, W).
        image_size: H = W.
        identity: plain JSON that names weights and preprocessing, for keys.
    """

    encoder: DualEncoder
    preprocess: Callable[[Image], Tensor]
    image_size: int
    identity: dict[str, str]


def load_clip(source: str | PathLike[str] | Weights, *, device: str | None = None) -> Clip:
    """A CLIP in float32.

    Args:
        source: a folder or hub id in open_clip's or transformers' layout, or open_clip's
            "NAME:PRETRAINED" as in "ViT-B-16-quickgelu:openai".
        device: where it runs; None: the CPU.

    Raises:
        UserError: there is no such model, or it is no CLIP.
    """
    name = source if isinstance(source, str) else ""
    if ":" in name and not Path(name).exists():
        return _named(name, device or "cpu")
    weights = source if isinstance(source, Weights) else Weights(fspath(source))
    folder = Path(weights.local_folder("clip"))
    if (folder / "open_clip_config.json").is_file():
        made = _open_clip_folder(folder, device or "cpu")
    elif (folder / "config.json").is_file():
        made = _transformers_folder(folder, device or "cpu")
    else:
        raise UserError(
            f"{str(folder)!r} holds no CLIP: it has neither open_clip_config.json nor config.json"
        )
    encoder, preprocess, size = made
    return _clip(encoder, preprocess, size, weights.fingerprint())


def _clip(encoder: DualEncoder, preprocess: Any, size: int, fingerprint: str) -> Clip:
    return Clip(encoder, preprocess, size, {"weights": fingerprint, "preprocess": f"{preprocess}"})


def _named(name: str, device: str) -> Clip:
    architecture, tag = name.split(":", 1)
    if (architecture, tag) not in open_clip.list_pretrained():
        raise UserError(
            f"open_clip has no model {architecture!r} with weights {tag!r}: take a pair of "
            "open_clip.list_pretrained(), or name a folder or a hub id"
        )
    _check_activation(architecture, tag)
    try:
        with at_once():
            model, _, preprocess = open_clip.create_model_and_transforms(
                architecture, pretrained=tag, device=device
            )
    except (OSError, RuntimeError) as error:
        told = "" if hub_answers() else "the hub cannot be reached, and "
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the weights of {name!r} cannot be loaded: {told}{reason}: connect, or name a folder"
        ) from error
    encoder = DualEncoder(model, open_clip.get_tokenizer(architecture))
    return _clip(encoder, preprocess, _side(model), _state_digest(model))


def _check_activation(architecture: str, tag: str) -> None:
    """OpenAI's and others' weights were trained with QuickGELU; with GELU they score lower."""
    meant = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    has = (open_clip.get_model_config(architecture) or {}).get("quick_gelu", False)
    if meant and not has:
        raise UserError(
            f"the weights {tag!r} of {architecture!r} were trained with QuickGELU, which "
            f"it has not: take {architecture}-quickgelu:{tag}"
        )


def _open_clip_folder(folder: Path, device: str) -> tuple[DualEncoder, Any, int]:
    where = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(where, device=device)
        return DualEncoder(model, open_clip.get_tokenizer(where)), preprocess, _side(model)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"the CLIP in {str(folder)!r} cannot be loaded: {error}") from error


def _side(model: Any) -> int:
    size = model.visual.image_size
    return int(size if isinstance(size, int) else size[0])


class _Processor:
    """transformers' image processor as a function of one image."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Image) -> Tensor:
        return self._processor(images=image, return_tensors="pt").pixel_values[0]

    def __str__(self) -> str:
        return self._processor.to_json_string()


def _transformers_folder(folder: Path, device: str) -> tuple[DualEncoder, Any, int]:
    try:
        with without_bars_of_libraries():
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        processor = _Processor(AutoImageProcessor.from_pretrained(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"the CLIP in {str(folder)!r} cannot be loaded: {error}") from error
    encoder = DualEncoder(model.to(device), tokenizer)
    return encoder, processor, int(model.config.vision_config.image_size)


def _state_digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return "sha256:" + digest.hexdigest()
