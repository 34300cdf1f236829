"""I2T2I: the reference image's description alone, through stock SDXL.

The paper's "I2T2I SDXL" (Le et al., section 5.1): no image embedding, no LoRA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from hb_tta.context import DescribedContext
from hb_tta.generators.loading import load_pipeline
from hb_tta.generators.protocol import ContextLike
from hb_tta.generators.sdxl import Conditions, SDXLSampler, checked_device, conditions_of
from hb_tta.generators.specs import I2T2ISpec


class I2T2IGenerator:
    """Stock text-to-image on descriptions; arguments as ``HummingbirdGenerator``'s."""

    def __init__(
        self,
        spec: I2T2ISpec,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> None:
        checked_device(device)  # before the weights are read
        pipe = load_pipeline(
            spec.base, dtype=getattr(torch, spec.dtype), image_encoder=None, embeds_images=False
        )
        self.spec = spec
        self._sampler = SDXLSampler(
            pipe, spec, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )

    @property
    def pipe(self) -> StableDiffusionXLPipeline:
        """The stock pipeline, for whoever wants to call it alone."""
        return self._sampler.pipe

    @property
    def batch_size(self) -> int:
        """Views a batch."""
        return self._sampler.batch_size

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """See ``HummingbirdGenerator.generate``; the contexts' images are not looked at."""
        return self._sampler.sample(
            contexts,
            seeds,
            self.encode,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            output_type=output_type,
        )

    def encode(self, contexts: list[DescribedContext], guided: bool) -> Conditions:
        """See ``HummingbirdGenerator.encode``."""
        return conditions_of(
            *self.pipe.encode_prompt(
                [context.description for context in contexts],
                device=self._sampler.device,
                do_classifier_free_guidance=guided,
            )
        )
