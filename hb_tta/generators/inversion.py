"""Learning one word for one image, for many images at once, and telling it to the pipeline.

A word is a vector for each text encoder, in the place of ``STAR``'s own in the prompt. All images
of a batch take the same steps, each with noises and times of its own, which its pixels decide: a
word does not depend on what it was learned beside (beyond the rounding of batched arithmetic).

Shape suffixes: B images, L text positions, D text width, C, h, w of a latent.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from hb_tta.context import DescribedContext
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import described_contexts
from hb_tta.generators.protocol import Conditions, ContextLike, Keep, Tensors
from hb_tta.generators.sampling import (
    SLICED_DECODE_PIXELS,
    Sampler,
    at_view_size,
    checked_device,
    view_size,
)
from hb_tta.generators.sdxl import conditions_of
from hb_tta.images import load_image, pixel_digest
from hb_tta.progress import progress

STAR = "*"  # a token of its own in every CLIP vocabulary
PROMPT = f"a photo of {STAR}"  # appendix N
_ENCODER = re.compile(r"text_encoder(_\d+)?")

Spec: TypeAlias = Any
"""A ``TextualInversionSpec``, whose module imports this one."""

Words: TypeAlias = "dict[str, Tensor]"
"""Text encoder → what is said in the place of the star, a row an image: (B, D)."""


class TextualInversionGenerator:
    """Views "of" a learned word.

    Args:
        spec, device, batch_size: see ``PipelineGenerator``.
        cpu_offload: ignored with a warning: the way back needs all that the way there went through,
            and an offloaded text encoder has left the GPU by then.
        keep: where words are looked up and kept; ``None``: in memory.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep: Keep | None = None,
    ) -> None:
        checked_device(device)  # before the weights are read
        if cpu_offload:
            warnings.warn(f"{spec.method} ignores cpu_offload=True", HbTtaWarning, stacklevel=3)
        self.spec = spec
        self._sampler = Sampler(
            spec.load_pipeline(),
            height=spec.height,
            width=spec.width,
            constants={},
            device=device,
            batch_size=batch_size,
        )
        check_can_learn(self._sampler.pipe, spec)
        self._keep = _in_memory() if keep is None else keep

    @property
    def pipe(self) -> Any:
        """The stock pipeline."""
        return self._sampler.pipe

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """See ``PipelineGenerator.generate``: first every image's word, then the views."""
        described = described_contexts(contexts, seeds, needs_description=False)
        images = [c.image for c, its_seeds in zip(described, seeds, strict=True) if its_seeds]
        words = self.words(images)

        def encode(batch: Sequence[DescribedContext], guided: bool) -> Conditions:
            rows = [words[pixel_digest(load_image(context.image))] for context in batch]
            stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
            return told_conditions(self.pipe, stacked, guided=guided, device=self._sampler.device)

        return self._sampler.draw(
            described,
            seeds,
            encode,
            num_inference_steps=self.spec.num_inference_steps,
            guidance_scale=self.spec.guidance_scale,
            output_type=output_type,
        )

    def words(self, images: Sequence[Image]) -> dict[str, Tensors]:
        """Each image's word by its ``pixel_digest``, from where they are kept or learned now."""
        known = {pixel_digest(whole): whole for whole in map(load_image, images)}
        digests = list(known)
        requests = [{**self.spec.learning_json(), "pixels": digest} for digest in digests]

        def make(numbers: Sequence[int]) -> Iterator[Tensors]:
            batch = [known[digests[number]] for number in numbers]
            learned = learn(self.pipe, batch, self.spec, self._sampler.device)
            for row in range(len(batch)):
                yield {name: vectors_BD[row] for name, vectors_BD in learned.items()}

        found = self._keep(requests, make, self._at_once())
        return dict(zip(digests, found, strict=True))

    def _at_once(self) -> int:
        """Words learned together: the way back through large pictures takes much memory."""
        views = self._sampler.batch_size
        pixels = math.prod(view_size(self.pipe, self.spec.height, self.spec.width))
        return max(1, views // 4) if pixels >= SLICED_DECODE_PIXELS else views


def check_can_learn(pipe: Any, spec: Spec) -> None:
    """Raises UserError unless its text encoders are CLIPs and it predicts a noise."""
    tokenizers = [pipe.components[_tokenizer(name)] for name in _encoders(pipe)]
    if "unet" not in pipe.components or not tokenizers:
        raise UserError(
            f"base={spec.base.location!r} is a {type(pipe).__name__}, in which no word can be "
            "learned: name a Stable Diffusion or an SDXL"
        )
    scheduler = pipe.scheduler
    if getattr(scheduler, "alphas_cumprod", None) is None:  # flow matching, EDM
        raise UserError(
            f"base={spec.base.location!r} is sampled by {type(scheduler).__name__}, for which no "
            "word can be learned: name a base that predicts a noise"
        )
    for tokenizer in tokenizers:
        if _star(tokenizer) in (tokenizer.unk_token_id, tokenizer.eos_token_id):
            raise UserError(f"a tokenizer of base={spec.base.location!r} does not know {STAR!r}")


@torch.enable_grad()
def learn(pipe: Any, images: Sequence[Image], spec: Spec, device: torch.device) -> Words:
    """A word for each image, (B, D) a text encoder, in float32 on the CPU.

    Args:
        pipe: Stable Diffusion or SDXL on ``device``; nothing of it is changed.
        images: of any size.
        spec: the number of steps, their rate, and the size of the pictures.

    Raises:
        UserError: what is learned is no number (float16 is too narrow for the gradient).
    """
    latents_BChw = _latents(pipe, images, spec, device)
    digests = [pixel_digest(load_image(image)) for image in images]
    draws = [torch.Generator().manual_seed(int(digest[:15], 16)) for digest in digests]
    words = {name: nn.Parameter(_start(pipe, name, len(images))) for name in _encoders(pipe)}
    optimizer = torch.optim.Adam(words.values(), lr=spec.learning_rate)
    with _only_words_learn(pipe, latents_BChw), _progress(spec, len(images)) as shown:
        for _ in range(spec.learning_steps):
            loss = _loss(pipe, latents_BChw, words, draws, device)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shown.update()
    learned = {name: word.detach().cpu() for name, word in words.items()}
    if not all(torch.isfinite(vectors_BD).all() for vectors_BD in learned.values()):
        raise UserError(f"the learned words are NaN in {spec.dtype}: use dtype=bfloat16 or float32")
    return learned


@torch.no_grad()
def told_conditions(pipe: Any, words: Words, *, guided: bool, device: torch.device) -> Conditions:
    """What the pipeline is given of ``PROMPT`` with each row's word in the star's place."""
    return _encoded(pipe, {n: word.to(device) for n, word in words.items()}, guided, device)


# ── The loss ─────────────────────────────────────────────────────────────────────────────────────


def _loss(
    pipe: Any,
    latents_BChw: Tensor,
    words: Mapping[str, Tensor],
    draws: Sequence[torch.Generator],
    device: torch.device,
) -> Tensor:
    """Equation 2 of Gal et al.: the error of the denoiser, summed over images."""
    alphas = pipe.scheduler.alphas_cumprod
    times = [torch.randint(len(alphas), (1,), generator=draw) for draw in draws]
    shape = latents_BChw.shape[1:]
    noise_BChw = torch.stack([torch.randn(shape, generator=draw) for draw in draws]).to(device)
    time_B = torch.cat(times)
    alpha_B111 = alphas.cpu()[time_B].view(-1, 1, 1, 1).to(device)
    kept, noised = alpha_B111.sqrt(), (1 - alpha_B111).sqrt()
    noisy_BChw = kept * latents_BChw + noised * noise_BChw
    conditions = _encoded(pipe, words, False, device)
    predicted_BChw = pipe.unet(
        noisy_BChw.to(pipe.unet.dtype),
        time_B.to(device),
        encoder_hidden_states=conditions["prompt_embeds"],
        added_cond_kwargs=_added(pipe, conditions, latents_BChw),
    ).sample.float()
    target_BChw = {
        "epsilon": noise_BChw,
        "sample": latents_BChw,
        "v_prediction": kept * noise_BChw - noised * latents_BChw,
    }[pipe.scheduler.config.prediction_type]
    return F.mse_loss(predicted_BChw, target_BChw, reduction="none").mean((1, 2, 3)).sum()


def _added(pipe: Any, conditions: Conditions, latents_BChw: Tensor) -> dict[str, Tensor] | None:
    """What SDXL is told besides: the pooled embedding, and that nothing is cut off."""
    pooled_BP = conditions.get("pooled_prompt_embeds")
    if pooled_BP is None:
        return None
    high, wide = (side * pipe.vae_scale_factor for side in latents_BChw.shape[-2:])
    size = torch.tensor([[high, wide, 0, 0, high, wide]], dtype=pooled_BP.dtype)
    return {
        "text_embeds": pooled_BP,
        "time_ids": size.expand(len(pooled_BP), -1).to(pooled_BP.device),
    }


@torch.no_grad()
def _latents(pipe: Any, images: Sequence[Image], spec: Spec, device: torch.device) -> Tensor:
    """The mean latents of images, as the denoiser knows them."""
    fitted = [at_view_size(pipe, image, spec.height, spec.width) for image in images]
    pixels = pipe.image_processor.preprocess(fitted).to(device)
    vae, config = pipe.vae, pipe.vae.config
    dtype = torch.float32 if vae.dtype == torch.float16 and config.force_upcast else vae.dtype
    nn.Module.to(vae, dtype)  # SDXL's own overflows in float16; diffusers' own warns of nothing
    rows = [vae.encode(row[None].to(dtype)).latent_dist.mode() for row in pixels]
    nn.Module.to(vae, pipe.unet.dtype)
    return (torch.cat(rows).float() - (config.shift_factor or 0)) * config.scaling_factor


# ── The word in the prompt ───────────────────────────────────────────────────────────────────────


def _encoded(
    pipe: Any, words: Mapping[str, Tensor], guided: bool, device: torch.device
) -> Conditions:
    from diffusers import StableDiffusionXLPipeline

    prompts = [PROMPT] * len(next(iter(words.values())))
    with ExitStack() as hooks:
        for name, vectors_BD in words.items():
            hooks.enter_context(_said(pipe, name, vectors_BD))
        if isinstance(pipe, StableDiffusionXLPipeline):
            return conditions_of(
                *pipe.encode_prompt(prompts, device=device, do_classifier_free_guidance=guided)
            )
        told, negative = pipe.encode_prompt(prompts, device, 1, guided)
    conditions = {"prompt_embeds": told, "negative_prompt_embeds": negative}
    return {name: part for name, part in conditions.items() if part is not None}


@contextmanager
def _said(pipe: Any, name: str, vectors_BD: Tensor) -> Iterator[None]:
    """Within, a text encoder hears each row's vector where the star stands."""
    star = _star(pipe.components[_tokenizer(name)])

    def hook(_: nn.Module, given: tuple[Any, ...], embedded_BLD: Tensor) -> Tensor:
        here_BL1 = (given[0] == star).unsqueeze(-1)
        return torch.where(here_BL1, vectors_BD[:, None].to(embedded_BLD), embedded_BLD)

    handle = pipe.components[name].get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _start(pipe: Any, name: str, images: int) -> Tensor:
    """The star's own vector, for every image."""
    embeddings = pipe.components[name].get_input_embeddings().weight
    star = _star(pipe.components[_tokenizer(name)])
    return embeddings[star].detach().float().repeat(images, 1)


def _star(tokenizer: Any) -> int:
    return tokenizer(STAR, add_special_tokens=False).input_ids[0]


def _encoders(pipe: Any) -> list[str]:
    return sorted(n for n, part in pipe.components.items() if part and _ENCODER.fullmatch(n))


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


# ── Around it ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _only_words_learn(pipe: Any, latents_BChw: Tensor) -> Iterator[None]:
    """Within, nothing of the pipeline has a gradient; of large pictures less is held at once."""
    models = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    for model in models:
        model.requires_grad_(False)
    height, width = (side * pipe.vae_scale_factor for side in latents_BChw.shape[-2:])
    large = height * width >= SLICED_DECODE_PIXELS
    if large:
        pipe.unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if large:
            pipe.unet.disable_gradient_checkpointing()


def _progress(spec: Spec, images: int) -> Any:
    return progress(f"learning {images} words", "step", spec.learning_steps, leave=None)


def _in_memory() -> Keep:
    kept: dict[str, Mapping[str, Tensor]] = {}

    def keep(requests: Any, make: Any, batch_size: int) -> list[Any]:
        keys = [json.dumps(request, sort_keys=True) for request in requests]
        missing = [number for number, key in enumerate(keys) if key not in kept]
        for first in range(0, len(missing), batch_size):
            batch = missing[first : first + batch_size]
            for number, tensors in zip(batch, make(batch), strict=True):
                kept[keys[number]] = tensors
        return [kept[key] for key in keys]

    return keep
