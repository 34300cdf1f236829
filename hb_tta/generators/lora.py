"""Loading a PEFT LoRA folder into a UNet exactly, or not at all.

The usual ways of bringing a PEFT save into diffusers fail in silence: a key prefix that does not
match loads nothing, a lost configuration loads with scale 1 in place of alpha/r. Here every
tensor of the file must land in a layer of the UNet, every layer that the configuration names must
get its tensors, and every layer's scale must be alpha/r.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from hb_tta.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ADAPTER = "default"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."  # what PeftModel.save_pretrained puts before every key


def load_lora(unet: UNet2DConditionModel, folder: str, *, scale: float = 1.0) -> int:
    """Adds the LoRA that lies in a folder as ``PeftModel.save_pretrained`` writes it.

    Args:
        unet: gets the adapter in place, frozen and without dropout, in the UNet's dtype and on
            its device. After an error it is of no more use.
        folder: holds adapter_config.json and adapter_model.safetensors.
        scale: multiplies alpha/r; 1 is as trained.

    Returns:
        The number of the LoRA's parameters.

    Raises:
        UserError: a file is missing or damaged, it is no plain LoRA, or it was made for another
            model (its keys or shapes do not fit).
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    _inject(unet, config, folder)
    _check_fit(tensors, get_peft_model_state_dict(unet, adapter_name=ADAPTER), folder)
    set_peft_model_state_dict(unet, tensors, adapter_name=ADAPTER)
    _set_scale(unet, config, scale, folder)
    unet.requires_grad_(False).eval()
    return sum(tensor.numel() for tensor in tensors.values())


def merge_lora(
    unet: UNet2DConditionModel, folder: str, *, scale: float = 1.0, dtype: str = "float32"
) -> None:
    """Adds a LoRA's product to the UNet's own weights, W + scale · alpha/r · B A, for inference.

    No layer of the LoRA is left, and a step takes the time that the untuned UNet takes.

    Args:
        unet: in float32, so that the sum is rounded once, to ``dtype``. A sum with weights that
            were rounded before would round a small change away again, everywhere.
        folder, scale: see ``load_lora``, which raises the same errors.
        dtype: of the whole UNet afterwards: "float32", "bfloat16" or "float16".
    """
    assert unet.dtype == torch.float32
    load_lora(unet, folder, scale=scale)
    for layer in _lora_layers(unet):
        layer.merge(adapter_names=[ADAPTER])
    unet.unload_lora()
    torch.nn.Module.to(unet, getattr(torch, dtype))  # diffusers' own prints a warning of nothing


def _read_config(folder: str) -> LoraConfig:
    path = os.path.join(folder, CONFIG_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            written = json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no LoRA folder: it has no {CONFIG_FILE}; "
            "give the folder that PEFT's save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch the LoRA again") from error
    kind = written.get("peft_type") if isinstance(written, dict) else None
    if kind != "LORA":
        raise UserError(f"{path} describes peft_type {kind!r}: only LORA can be loaded")
    for variant in ("use_rslora", "use_dora"):
        if written.get(variant):
            raise UserError(
                f"{path} sets {variant}: only a plain LoRA, whose scale is alpha/r, can be loaded"
            )
    try:
        return LoraConfig.from_pretrained(folder)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is no PEFT LoRA configuration ({error})") from error


def _read_tensors(folder: str) -> dict[str, torch.Tensor]:
    """The LoRA's tensors by module path, without PEFT's prefix."""
    path = os.path.join(folder, WEIGHTS_FILE)
    if not os.path.isfile(path):
        raise UserError(
            f"{folder} has no {WEIGHTS_FILE}: pickled weights are never read, "
            "save the LoRA again with safe_serialization=True"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): fetch the LoRA again") from error
    if not tensors:
        raise UserError(f"{path} holds no tensors: fetch the LoRA again")
    return {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in tensors.items()}


def _inject(unet: UNet2DConditionModel, config: LoraConfig, folder: str) -> None:
    """Adds the configuration's layers, still empty, in the UNet's own dtype."""
    config.inference_mode = True
    try:
        unet.add_adapter(config, ADAPTER)
    except ValueError as error:  # PEFT found none of the target modules
        raise UserError(f"{folder} is a LoRA for another kind of model: {error}") from error
    for layer in _lora_layers(unet):
        for part in (layer.lora_A, layer.lora_B):
            part.to(device=unet.device, dtype=unet.dtype)


def _check_fit(
    tensors: dict[str, torch.Tensor], layers: dict[str, torch.Tensor], folder: str
) -> None:
    """Raises UserError unless the file's tensors and the UNet's layers are the same set."""
    advice = "it was made for another model; give a LoRA for this base"
    fitting = tensors.keys() & layers.keys()
    if not fitting:
        raise UserError(
            f"{folder}: none of its {len(tensors)} tensors fits a layer of the UNet "
            f"(its first is {min(tensors)!r}): {advice}, saved by PEFT"
        )
    for what, keys in (
        ("has no place in the UNet", tensors.keys() - layers.keys()),
        ("is named by its configuration but missing", layers.keys() - tensors.keys()),
    ):
        if keys:
            raise UserError(f"{folder}: {min(keys)!r} ({len(keys)} in all) {what}: {advice}")
    for key in sorted(fitting):
        has, wants = tuple(tensors[key].shape), tuple(layers[key].shape)
        if has != wants:
            raise UserError(
                f"{folder}: {key!r} has the shape {has}, the UNet's is {wants}: {advice}"
            )


def _set_scale(unet: UNet2DConditionModel, config: LoraConfig, scale: float, folder: str) -> None:
    """Checks that every layer works at alpha/r, then multiplies by ``scale``."""
    uniform = not (config.alpha_pattern or config.rank_pattern)
    for layer in _lora_layers(unet):
        alpha_over_r = layer.lora_alpha[ADAPTER] / layer.r[ADAPTER]
        if uniform:
            assert alpha_over_r == config.lora_alpha / config.r
        if layer.scaling[ADAPTER] != alpha_over_r:
            raise UserError(
                f"{folder} would be used with scale {layer.scaling[ADAPTER]}, "
                f"not with alpha/r = {alpha_over_r}: only a plain LoRA can be loaded"
            )
        layer.set_scale(ADAPTER, scale)


def _lora_layers(unet: UNet2DConditionModel) -> list[LoraLayer]:
    return [module for module in unet.modules() if isinstance(module, LoraLayer)]
