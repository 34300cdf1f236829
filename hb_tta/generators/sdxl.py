"""Sampling many views at once with the stock Stable Diffusion XL pipeline.

The one code path of every generator on an SDXL base. They differ in how contexts become
conditions; from there on all views, of whichever context, are rows of the same batches.

Shape suffixes: B contexts or views, L text positions, D text width, P pooled width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL.Image import Image
from torch import Tensor

from hb_tta.context import DescribedContext
from hb_tta.device import default_device
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import (
    check_guidance_scale,
    check_num_inference_steps,
    checked_seed,
    described_contexts,
)
from hb_tta.generators.description import count_tokens, fit_description
from hb_tta.generators.protocol import ContextLike
from hb_tta.generators.specs import SDXLSettings

MEGAPIXEL = 1024 * 1024
SLICED_DECODE_PIXELS = 512 * 512  # from here on one image fills the device in the VAE's decoder


Conditions = dict[str, Tensor]
"""The pipeline's own arguments, a row a context; without guidance there are no negatives.

prompt_embeds and negative_prompt_embeds are BLD, pooled_prompt_embeds and
negative_pooled_prompt_embeds are BP.
"""

Encode = Callable[[list[DescribedContext], bool], Conditions]
"""(contexts, whether guidance is on) → their conditions."""


def conditions_of(
    prompt_embeds_BLD: Tensor,
    negative_prompt_embeds_BLD: Tensor | None,
    pooled_prompt_embeds_BP: Tensor,
    negative_pooled_prompt_embeds_BP: Tensor | None,
) -> Conditions:
    """Conditions from what ``encode_prompt`` returns, in its order."""
    parts = {
        "prompt_embeds": prompt_embeds_BLD,
        "negative_prompt_embeds": negative_prompt_embeds_BLD,
        "pooled_prompt_embeds": pooled_prompt_embeds_BP,
        "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds_BP,
    }
    return {name: part for name, part in parts.items() if part is not None}


class SDXLSampler:
    """A stock pipeline on its device, and the batching around it.

    Args:
        pipe: as ``load_pipeline`` gives it.
        settings: the defaults of ``sample`` and the size of the views.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size: views a batch; ``None``: what the device has room for. Sets speed and memory,
            no pixel.
        cpu_offload: keep each part of the pipeline on the GPU only while it works (needs CUDA).
    """

    def __init__(
        self,
        pipe: StableDiffusionXLPipeline,
        settings: SDXLSettings,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> None:
        self.pipe = pipe
        self.settings = settings
        self.device = checked_device(device)
        self._place(cpu_offload)
        size = pipe.default_sample_size * pipe.vae_scale_factor
        pixels = (settings.height or size) * (settings.width or size)
        if pixels >= SLICED_DECODE_PIXELS:
            pipe.vae.enable_slicing()
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: use 1 or more")
        self.batch_size = batch_size or default_batch_size(self.device, pixels)

    def _place(self, cpu_offload: bool) -> None:
        if cpu_offload and self.device.type == "cuda":
            self.pipe.enable_model_cpu_offload(device=self.device)
            return
        if cpu_offload:
            warnings.warn(f"cpu_offload is ignored on {self.device}", HbTtaWarning, stacklevel=4)
        self.pipe.to(self.device)

    @torch.no_grad()
    def sample(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        encode: Encode,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """``generate`` of the generators; ``None`` settings are the spec's.

        A context is encoded once, whatever its number of views; only contexts of the batch in
        work stay in memory.
        """
        if output_type not in ("pil", "latent"):
            raise UserError(f"output_type={output_type!r} is not known: use 'pil' or 'latent'")
        spec = self.settings
        steps = spec.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance = spec.guidance_scale if guidance_scale is None else guidance_scale
        check_num_inference_steps(steps)
        check_guidance_scale(guidance)
        described = described_contexts(contexts, seeds, needs_description=True)

        results: list[list[Any]] = [[] for _ in described]
        conditions: dict[int, Conditions] = {}
        for batch in _even_batches(_views(seeds), self.batch_size):
            conditions = self._encode_missing(batch, conditions, described, encode, guidance > 1)
            images = self._denoise(
                _stacked([conditions[context] for context, _ in batch]),
                [seed for _, seed in batch],
                steps,
                guidance,
                output_type,
            )
            for (context, _), image in zip(batch, images, strict=True):
                results[context].append(image)
        return results

    def _encode_missing(
        self,
        batch: list[tuple[int, int]],
        known: dict[int, Conditions],
        contexts: list[DescribedContext],
        encode: Encode,
        guided: bool,
    ) -> dict[int, Conditions]:
        """The conditions of a batch's contexts: those of the batch before, and the new ones."""
        needed = sorted({context for context, _ in batch})
        new = [context for context in needed if context not in known]
        kept = {context: known[context] for context in needed if context in known}
        if new:
            encoded = encode([self._fit(contexts[context]) for context in new], guided)
            for row, context in enumerate(new):
                kept[context] = {name: part[row] for name, part in encoded.items()}
        return kept

    def _fit(self, context: DescribedContext) -> DescribedContext:
        """The context with a description that the text encoders take whole."""
        tokenizers = [self.pipe.tokenizer, self.pipe.tokenizer_2]
        assert context.description is not None
        description, was_shortened = fit_description(tokenizers, context.description)
        if was_shortened:
            warnings.warn(
                f"a description of {count_tokens(tokenizers, context.description)} tokens was "
                f"shortened to {count_tokens(tokenizers, description)}: "
                f"it begins {context.description[:40]!r}",
                HbTtaWarning,
                stacklevel=5,
            )
        return context._replace(description=description)

    def _denoise(
        self,
        conditions: Conditions,
        seeds: list[int],
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str,
    ) -> list[Any]:
        """One call of the stock pipeline; each view draws its noise from a generator of its own."""
        images = self.pipe(
            **conditions,
            generator=[_seeded(seed) for seed in seeds],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            height=self.settings.height,
            width=self.settings.width,
            output_type="latent" if output_type == "latent" else "pt",
        ).images
        if not torch.isfinite(images).all():
            raise UserError(
                f"the views came out as NaN in {self.settings.dtype}: "
                "use dtype='bfloat16' or 'float32'"
            )
        return list(images) if output_type == "latent" else _to_pil(images)


def checked_device(device: str | None) -> torch.device:
    """The device, if torch can use it.

    Raises:
        UserError: its name is wrong or there is none.
    """
    name = device or default_device()
    try:
        checked = torch.device(name)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing GPU
        raise UserError(f"torch cannot use device {name!r}: try 'cpu'") from error
    return checked


def default_batch_size(device: torch.device, pixels: int) -> int:
    """Views of so many pixels that fit a device with the models on it.

    At 1024² in bf16 a guided view takes about 2 GiB, and the VAE's decoder 6 GiB once; more than
    16 such views a batch gain nothing.
    """
    if device.type == "cuda":
        free_gib = torch.cuda.mem_get_info(device)[0] / 2**30
        megapixels = min(16.0, (free_gib - 6) / 2)
        return max(1, min(128, int(megapixels * MEGAPIXEL / pixels)))
    return max(1, min(16, MEGAPIXEL // pixels))


def _views(seeds: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Every view of a call as (index of its context, seed)."""
    return [(context, seed) for context, its_seeds in enumerate(seeds) for seed in its_seeds]


def _even_batches(views: list[tuple[int, int]], batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """As few batches as can be, of sizes that differ by one at most."""
    count = math.ceil(len(views) / batch_size)
    for index in range(count):
        start, end = (len(views) * edge // count for edge in (index, index + 1))
        yield views[start:end]


def _stacked(rows: list[Conditions]) -> Conditions:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _seeded(seed: int) -> torch.Generator:
    """A generator on the CPU: the same noise whatever the device."""
    return torch.Generator("cpu").manual_seed(checked_seed(seed))


def _to_pil(images: Tensor) -> list[Image]:
    """(B, 3, H, W) in [0, 1] → RGB images, as the pipeline itself converts them."""
    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(images))
