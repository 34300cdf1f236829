"""Padding hidden from the UNet's cross-attention, in the stock pipeline.

The pipeline of SDXL has no argument for a mask, and unmasked padding changes the image. But what
it is given as ``cross_attention_kwargs`` reaches the UNet as it is: a hook takes the mask out of
there. (Facts: a batch of mixed lengths is then what one prompt after the other gives.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

MASK = "context_mask"
"""The key in ``cross_attention_kwargs`` under which a (B, L) mask travels: 1 is kept."""


def install(unet: nn.Module) -> None:
    """Have a UNet understand ``cross_attention_kwargs={MASK: mask_BL}``; without it, no change."""
    unet.register_forward_pre_hook(_take_mask, with_kwargs=True)


def _take_mask(
    unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    given = dict(kwargs.get("cross_attention_kwargs") or {})
    mask_BL: Tensor | None = given.pop(MASK, None)
    if mask_BL is None:
        return None
    sample = args[0] if args else kwargs["sample"]
    # Under guidance the rows are there twice, negatives first; zeros are zeros behind any mask.
    rows = mask_BL.repeat(len(sample) // len(mask_BL), 1)
    told = {"cross_attention_kwargs": given or None, "encoder_attention_mask": rows}
    return args, {**kwargs, **told}
