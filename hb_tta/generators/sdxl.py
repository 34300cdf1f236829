"""How contexts become conditions of Stable Diffusion XL.

Shape suffixes: B contexts, L text positions, D text width, P pooled width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from hb_tta.generators.protocol import Conditions


def image_conditions(
    pipe: Any, texts: Sequence[str], images: Sequence[Image], *, guided: bool, device: torch.device
) -> Conditions:
    """A prompt, and in place of its pooled embedding an image's; that one's negative is zeros."""
    prompt, negative_prompt, _, _ = pipe.encode_prompt(
        list(texts), device=device, do_classifier_free_guidance=guided
    )
    embeds, zeros = pipe.encode_image([image.convert("RGB") for image in images], device, 1)
    return conditions_of(prompt, negative_prompt, embeds, zeros if guided else None)


def conditions_of(
    prompt_embeds_BLD: Tensor,
    negative_prompt_embeds_BLD: Tensor | None,
    pooled_prompt_embeds_BP: Tensor,
    negative_pooled_prompt_embeds_BP: Tensor | None,
) -> Conditions:
    """Conditions from what ``encode_prompt`` returns, in its order; no negatives where None."""
    parts = {
        "prompt_embeds": prompt_embeds_BLD,
        "negative_prompt_embeds": negative_prompt_embeds_BLD,
        "pooled_prompt_embeds": pooled_prompt_embeds_BP,
        "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds_BP,
    }
    return {name: part for name, part in parts.items() if part is not None}
