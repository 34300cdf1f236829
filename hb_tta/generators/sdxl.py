"""How contexts become conditions of Stable Diffusion XL.

Shape suffixes: B contexts, L text positions, D text width, P pooled width.
"""

from __future__ import annotations

from torch import Tensor

from hb_tta.generators.protocol import Conditions


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
