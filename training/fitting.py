"""Whether the settings fit the generator, by its configurations: before hours of descriptions."""

from __future__ import annotations

from typing import Any

from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn

from hb_tta.errors import UserError
from hb_tta.generators.reading import reading
from hb_tta.lora.plain import named_by
from hb_tta.reading import read_json
from hb_tta.training.recipes import Settings
from hb_tta.weights import Weights


def check_generator(settings: Settings, weights: Weights) -> None:
    """Raises UserError for target modules or an image size that the generator does not have.

    Args:
        settings: of the training.
        weights: of the generator, in diffusers' layout; two small files of it are read.
    """
    with reading(weights, "a generator to train"):
        unet, vae = (_config(weights, part) for part in ("unet", "vae"))
        levels = len(vae["block_out_channels"])
        with init_empty_weights(include_buffers=True):
            model = UNet2DConditionModel.from_config(unet)
    _check_targets(settings, model)
    _check_size(settings, 2 ** (levels - 1))


def _config(weights: Weights, part: str) -> dict[str, Any]:
    found = read_json(weights.file(f"{part}/config.json"))
    if not isinstance(found, dict):
        raise ValueError(f"{part}/config.json holds no object")
    return found


def _check_targets(settings: Settings, unet: nn.Module) -> None:
    names = settings.target_modules
    layers = [
        path
        for path, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and named_by(path, names)
    ]
    if not layers:
        raise UserError(f"no layer of the UNet is named {', '.join(names)}: change target_modules")


def _check_size(settings: Settings, scale: int) -> None:
    if settings.image_size is not None and settings.image_size % scale:
        raise UserError(
            f"image_size={settings.image_size} is no multiple of {scale}, the pixels of one of "
            "the generator's latents: use one"
        )
