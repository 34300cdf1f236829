"""The LoRA that is trained: PEFT's layers in the stock UNet, float32 masters on any base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from hb_tta.errors import UserError
from hb_tta.generators.lora import ADAPTER

# Appendix Q, with the alpha of the released adapter_config.json. "query" and "value" are names of
# old diffusers' attention layers; no layer of today's UNet has them.
TARGET_MODULES = ("to_q", "to_v", "query", "value", "ff.net.0.proj")
RANK, ALPHA = 8, 32.0


def lora_config(
    rank: int = RANK,
    alpha: float = ALPHA,
    target_modules: Sequence[str] = TARGET_MODULES,
    dropout: float = 0.0,
) -> LoraConfig:
    """PEFT's configuration of a plain LoRA, whose scale is alpha/r."""
    return LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        target_modules=list(target_modules),
        lora_dropout=dropout,
        init_lora_weights="gaussian",  # down drawn with deviation 1/r, up zero: starts as the base
    )


def add_lora(
    unet: Any,
    *,
    rank: int = RANK,
    alpha: float = ALPHA,
    target_modules: Sequence[str] = TARGET_MODULES,
    dropout: float = 0.0,
    seed: int = 0,
) -> LoraConfig:
    """Freezes a UNet, or another model, and adds a LoRA to train, in float32, on its device.

    Args:
        unet: in place; stays in eval mode but for the LoRA's dropout.
        rank, alpha, target_modules, dropout: of the LoRA.
        seed: of its first weights, the same on every device.

    Raises:
        UserError: no layer of the UNet has one of the names.
    """
    config = lora_config(rank, alpha, target_modules, dropout)
    device = unet.device
    unet.requires_grad_(False).eval()
    try:
        # transformers' own add_adapter wants the newest PEFT for what this does with any.
        inject_adapter_in_model(config, unet, ADAPTER)
    except ValueError as error:  # PEFT found none of them
        raise UserError(
            f"no layer of the UNet is named {', '.join(target_modules)}: change target_modules"
        ) from error
    for layer in lora_layers(unet):
        for part in (layer.lora_A, layer.lora_B):
            part.to(device=device, dtype=torch.float32).requires_grad_(True)
        layer.lora_dropout.train()
    draw = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(unet):
            down = layer.lora_A[ADAPTER].weight
            down.copy_(torch.randn(down.shape, generator=draw) / rank)
    return config


def lora_layers(unet: Any) -> list[LoraLayer]:
    """The layers that a LoRA was added to, in the order of the UNet's modules."""
    return [module for module in unet.modules() if isinstance(module, LoraLayer)]


def lora_parameters(unet: Any) -> list[nn.Parameter]:
    """The LoRA's parameters in a fixed order."""
    return [p for layer in lora_layers(unet) for p in layer.parameters() if p.requires_grad]


def lora_tensors(unet: Any) -> dict[str, Tensor]:
    """The LoRA's weights by PEFT's names ("….lora_A.weight"), without prefix, on the CPU."""
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}


def set_lora_tensors(unet: Any, tensors: dict[str, Tensor]) -> None:
    """Puts back what ``lora_tensors`` gave."""
    layers = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    assert layers.keys() == tensors.keys()
    set_peft_model_state_dict(unet, tensors, adapter_name=ADAPTER)
