"""Loading a LoRA into a UNet exactly, or not at all.

The usual ways of bringing a LoRA into diffusers fail in silence: a key prefix that does not match
loads nothing, a lost configuration loads with scale 1 in place of alpha/r. Here every tensor of
the file must land in a layer of the UNet, every layer that the configuration names must get its
tensors, and every layer's scale must be alpha/r.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from torch import Tensor, nn

from hb_tta.errors import UserError, shown
from hb_tta.lora import Lora, read_lora
from hb_tta.lora.parts import DTYPES, Part
from hb_tta.lora.plain import DOWN, UP, named_by

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ADAPTER = "default"
_ADVICE = "it was made for another model; give a LoRA for this base"


def load_lora(unet: UNet2DConditionModel, folder: str, *, scale: float = 1.0) -> int:
    """Adds the LoRA that lies in a folder.

    Args:
        unet: gets the adapter in place, frozen and without dropout, in the UNet's dtype and on
            its device. After an error it is as it was.
        folder: see ``read_lora``: as ``PeftModel.save_pretrained`` writes it, or of one file in
            diffusers' or kohya's format.
        scale: multiplies alpha/r; 1 is as trained.

    Returns:
        The number of the LoRA's parameters.

    Raises:
        UserError: a file is missing or damaged, it is no plain LoRA, or it was made for another
            model (its layers or shapes do not fit).
    """
    lora, _ = read_lora(Path(folder))
    return attach_lora(unet, lora, folder, scale=scale)


def attach_lora(
    model: Any, lora: Lora, where: str, *, scale: float = 1.0, whose: str = "the UNet"
) -> int:
    """``load_lora`` of any model of diffusers or transformers, once the LoRA is read.

    Args:
        model: see ``load_lora``.
        lora: what is added.
        where: it lies, for a sentence.
        scale: see ``load_lora``.
        whose: layers it changes, for a sentence.

    Raises:
        UserError: it was made for another model.
    """
    _check_fit(lora, model, where, whose)
    # transformers' own add_adapter wants the newest PEFT for what this does with any.
    inject_adapter_in_model(_peft_config(lora), model, ADAPTER)
    for layer in _lora_layers(model):
        for part in (layer.lora_A, layer.lora_B):
            part.to(device=model.device, dtype=model.dtype)
    set_peft_model_state_dict(model, tensors_of(lora.parts), adapter_name=ADAPTER)
    _set_scale(model, lora, scale)
    model.requires_grad_(False).eval()
    return lora.parameters


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


def tensors_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """A LoRA's parts as torch's tensors."""
    return {
        key: torch.frombuffer(bytearray(part.data), dtype=getattr(torch, DTYPES[part.dtype]))
        .reshape(part.shape)
        for key, part in parts.items()
    }  # fmt: skip


def parts_of(tensors: Mapping[str, Tensor]) -> dict[str, Part]:
    """Torch's tensors as a LoRA's parts."""
    names = {getattr(torch, name): short for short, name in DTYPES.items()}
    return {
        key: Part(
            names[tensor.dtype],
            tuple(tensor.shape),
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
        )
        for key, tensor in tensors.items()
    }


def _check_fit(lora: Lora, model: nn.Module, folder: str, whose: str) -> None:
    """Raises UserError unless the file's layers are the model's that are meant, in their shapes."""
    layers = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    modules = set(lora.modules)
    wanted = {path for path in layers if named_by(path, lora.target_modules)}
    if not modules & layers.keys():
        raise UserError(
            f"{folder}: none of its {len(modules)} layers is one of {whose} (its first is "
            f"{shown(min(modules))}): {_ADVICE}"
        )
    for what, paths in (
        (f"has no place in {whose}", modules - layers.keys()),
        ("is named by its configuration but missing", wanted - modules),
    ):
        if paths:
            raise UserError(
                f"{folder}: {shown(min(paths))} ({len(paths)} in all) {what}: {_ADVICE}"
            )
    for module in lora.modules:
        _check_shape(module, lora, layers[module], folder, whose)


def _check_shape(
    module: str, lora: Lora, layer: nn.Linear | nn.Conv2d, folder: str, whose: str
) -> None:
    down, up = lora.parts[module + DOWN].shape, lora.parts[module + UP].shape
    has, wants = (up[0], *down[1:]), tuple(layer.weight.shape)
    if has != wants:
        raise UserError(
            f"{folder}: {shown(module)} changes a weight of the shape {has}, {whose}'s is "
            f"{wants}: {_ADVICE}"
        )


def _peft_config(lora: Lora) -> LoraConfig:
    """A configuration that names exactly the LoRA's layers, each with its own rank and alpha."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # PEFT divides it, a float too
        target_modules="|".join(map(re.escape, lora.modules)),
        rank_pattern=_odd(lora.ranks, lora.rank),
        alpha_pattern=_odd(lora.alphas, lora.alpha),
        inference_mode=True,
    )


def _odd(values: Mapping[str, Any], most: float) -> dict[str, Any]:
    return {re.escape(module): value for module, value in values.items() if value != most}


def _set_scale(model: nn.Module, lora: Lora, scale: float) -> None:
    """Checks that every layer works at alpha/r, then multiplies by ``scale``."""
    scales = lora.scales()
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            assert layer.scaling[ADAPTER] == scales.pop(path)
            layer.set_scale(ADAPTER, scale)
    assert not scales


def _lora_layers(model: nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]
