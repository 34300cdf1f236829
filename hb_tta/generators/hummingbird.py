"""Hummingbird: a reference image and its context description in, faithful and different views out.

Le et al., ICLR 2025, section 4.1. The description is SDXL's prompt; the CLIP
embedding of the reference image takes the place of the pooled text embedding, with zeros as its
negative. Nothing else of the stock pipeline changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from hb_tta.context import DescribedContext
from hb_tta.device import default_dtype
from hb_tta.generators.loading import load_pipeline
from hb_tta.generators.lora import load_lora
from hb_tta.generators.protocol import ContextLike
from hb_tta.generators.sdxl import Conditions, SDXLSampler, checked_device, conditions_of
from hb_tta.generators.specs import HummingbirdSpec, as_weights
from hb_tta.weights import Weights


class HummingbirdGenerator:
    """The method's generator, on its device.

    Args:
        spec: what decides the pixels.
        device, batch_size, cpu_offload: see ``SDXLSampler``; they decide none.
    """

    def __init__(
        self,
        spec: HummingbirdSpec,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> None:
        checked_device(device)  # before the weights are read
        pipe = load_pipeline(
            spec.base,
            dtype=getattr(torch, spec.dtype),
            image_encoder=spec.image_encoder,
            embeds_images=True,
        )
        if spec.lora is not None:
            load_lora(pipe.unet, spec.lora.local_folder(), scale=spec.lora_scale)
        self.spec = spec
        self._sampler = SDXLSampler(
            pipe, spec, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )

    @classmethod
    def from_pretrained(
        cls,
        base: str | PathLike[str] | Weights,
        *,
        image_encoder: str | PathLike[str] | Weights | None = None,
        lora: str | PathLike[str] | Weights | None = None,
        lora_scale: float = 1.0,
        device: str | None = None,
        dtype: str | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 15.0,
        height: int | None = None,
        width: int | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> HummingbirdGenerator:
        """The generator of a pipeline folder or hub repository.

        Args:
            base: SDXL in diffusers' layout.
            image_encoder: the CLIP vision tower; ``None``: the base's own. SDXL Base 1.0 has none
                and goes with "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k".
            lora: a PEFT LoRA folder for the UNet; ``None``: the untuned generator.
            lora_scale: multiplies the LoRA's alpha/r.
            device: "cpu", "cuda", …; ``None``: a GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; ``None``: what suits the device.
            num_inference_steps, guidance_scale: defaults of ``generate``.
            height, width: pixels, multiples of 8; ``None``: the base's own size.
            batch_size: views a batch; ``None``: what the device has room for.
            cpu_offload: keep each model on the GPU only while it works.

        Raises:
            UserError: weights are missing, damaged or do not fit each other, or a setting is out
                of range.
        """
        spec = HummingbirdSpec(
            base=as_weights(base),
            image_encoder=None if image_encoder is None else as_weights(image_encoder),
            lora=None if lora is None else as_weights(lora),
            lora_scale=lora_scale,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
            dtype=dtype or default_dtype(device),
        )
        return cls(spec, device=device, batch_size=batch_size, cpu_offload=cpu_offload)

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
        """Views of every context, one a seed.

        Args:
            contexts: (image, description) pairs or ``DescribedContext``s; "" as description leaves
                the image embedding alone. A description longer than the text encoders' window is
                shortened (``fit_description``) with a warning.
            seeds: one list of seeds a context, of any lengths.
            num_inference_steps: DDIM steps, 1 to 1000; ``None``: the spec's.
            guidance_scale: classifier-free guidance, 0 or more, off at 1 or less; ``None``: the
                spec's.
            output_type: "pil": RGB images; "latent": the VAE's latents, a (C, h, w) tensor a view,
                as the UNet leaves them.

        Returns:
            One list a context, one result a seed, in the order of the seeds. A view does not
            depend on the others of the call (beyond the rounding of batched arithmetic).

        Raises:
            UserError: a description is None, the lists do not match, or a setting is out of range.
        """
        return self._sampler.sample(
            contexts,
            seeds,
            self.encode,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            output_type=output_type,
        )

    def encode(self, contexts: list[DescribedContext], guided: bool) -> Conditions:
        """The stock pipeline's arguments for contexts, a row each; negatives where ``guided``.

        Every description must fit the text encoders' window, see ``fit_description``.
        """
        pipe = self.pipe
        prompt, negative_prompt, _, _ = pipe.encode_prompt(
            [context.description for context in contexts],
            device=self._sampler.device,
            do_classifier_free_guidance=guided,
        )
        images = [context.image.convert("RGB") for context in contexts]
        embeds, zeros = pipe.encode_image(images, self._sampler.device, 1)
        return conditions_of(prompt, negative_prompt, embeds, zeros if guided else None)
