"""Loading a Stable Diffusion XL pipeline from a folder or the hub, and checking that it is one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import constants
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.utils import logging as transformers_logging

from hb_tta.errors import UserError
from hb_tta.generators.description import check_vocabulary
from hb_tta.weights import Weights


def load_pipeline(
    base: Weights, *, dtype: torch.dtype, image_encoder: Weights | None, embeds_images: bool
) -> StableDiffusionXLPipeline:
    """The stock pipeline with a DDIM scheduler, on the CPU.

    Args:
        base: in diffusers' layout.
        dtype: of all weights.
        image_encoder: the CLIP vision tower that embeds the reference; ``None``: the base's own.
        embeds_images: whether a tower is needed at all.

    Raises:
        UserError: the weights are missing, damaged, no SDXL, or of widths that do not match.
    """
    with _no_progress_bars():
        pipe = _read_pipeline(base, dtype, image_encoder, embeds_images)
    assert pipe.unet.dtype == dtype  # diffusers before 0.40 does not know the name
    _check_is_sdxl(pipe, base)
    check_vocabulary([pipe.tokenizer, pipe.tokenizer_2], base)
    if embeds_images:
        _check_image_encoder(pipe, image_encoder or base)
    pipe.scheduler = ddim_like(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ddim_like(config: Mapping[str, Any]) -> DDIMScheduler:
    """A DDIM scheduler for latents on the noise schedule of another scheduler's configuration.

    What the file itself says counts. Where it is silent, as files of Euler's or DPM-Solver++'s
    are, DDIM's own defaults for pixels would cut latents off at 1 and end the schedule at an alpha
    of 1; SDXL's own file switches both off.
    """
    unwritten = config.get("_use_default_values", ())
    written = {name: value for name, value in config.items() if name not in unwritten}
    return DDIMScheduler.from_config(
        config,
        clip_sample=written.get("clip_sample", False),
        set_alpha_to_one=written.get("set_alpha_to_one", False),
    )


def _read_pipeline(
    base: Weights, dtype: torch.dtype, image_encoder: Weights | None, embeds_images: bool
) -> StableDiffusionXLPipeline:
    parts: dict[str, Any] = {}
    if not embeds_images:
        parts = {"image_encoder": None, "feature_extractor": None}
    elif image_encoder is not None:
        parts = _load_image_encoder(image_encoder, dtype)
    with reading(base, "a Stable Diffusion XL pipeline"):
        source, options = located(base)
        return StableDiffusionXLPipeline.from_pretrained(
            source,
            **options,
            **parts,
            dtype=dtype,
            use_safetensors=True,
            add_watermarker=False,
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading takes seconds; the libraries' bars would drown our caller's own."""
    shown = [
        library
        for library in (diffusers_logging, transformers_logging)
        if library.is_progress_bar_enabled()
    ]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def located(weights: Weights) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds the weights: its first argument and its options.

    A hub id is passed on as it is, at the fingerprint's commit: of a repository with several
    variants (SDXL Base 1.0 has 70 GB of them) only the files in use are fetched.
    """
    if weights.subfolder or weights.is_folder():
        return weights.local_folder(), {}
    return weights.location, {
        "revision": weights.commit(),
        "local_files_only": constants.HF_HUB_OFFLINE,  # else diffusers asks first and complains
    }


@contextmanager
def reading(weights: Weights, what: str) -> Iterator[None]:
    """Turns the libraries' many complaints about files into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{weights.location!r} cannot be loaded as {what}: {reason[:300]}"
        ) from error


def _load_image_encoder(weights: Weights, dtype: torch.dtype) -> dict[str, Any]:
    """The tower and its preprocessor; in a pipeline's layout the latter is a folder of its own."""
    head, tail = os.path.split(weights.subfolder or "")
    beside = replace(weights, subfolder=os.path.join(head, "feature_extractor"))
    with reading(weights, "a CLIP vision tower"), _no_load_report():
        source, options = located(weights)
        tower, info = CLIPVisionModelWithProjection.from_pretrained(
            source,
            **options,
            config=_vision_config(source, options),
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        source, options = located(beside if tail == "image_encoder" else weights)
        preprocessor = CLIPImageProcessor.from_pretrained(source, **options)
    if info["missing_keys"]:  # the library fills them with random numbers
        raise UserError(
            f"{weights.location!r} is no whole CLIP vision tower: it lacks "
            f"{min(info['missing_keys'])!r} ({len(info['missing_keys'])} weights in all)"
        )
    return {"image_encoder": tower, "feature_extractor": preprocessor}


@contextmanager
def _no_load_report() -> Iterator[None]:
    """A tower out of a whole CLIP leaves the text half over, at which the library prints a page."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _vision_config(source: str, options: dict[str, Any]) -> CLIPVisionConfig:
    """Of a tower, or of a whole CLIP, whose width of the embedding stands outside the tower's."""
    config = AutoConfig.from_pretrained(source, **options)
    if not isinstance(config, CLIPConfig):
        return config
    config.vision_config.projection_dim = config.projection_dim
    return config.vision_config


def _check_is_sdxl(pipe: StableDiffusionXLPipeline, base: Weights) -> None:
    for part in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"):
        if getattr(pipe, part) is None:
            raise UserError(f"{base.location!r} is no Stable Diffusion XL: it has no {part}")
    if pipe.unet.config.addition_embed_type != "text_time":
        raise UserError(
            f"{base.location!r} is no Stable Diffusion XL: its UNet takes no pooled embedding"
        )


def _check_image_encoder(pipe: StableDiffusionXLPipeline, weights: Weights) -> None:
    """The image embedding takes the place of the pooled text embedding: same width."""
    if pipe.image_encoder is None or pipe.feature_extractor is None:
        raise UserError(
            f"{weights.location!r} has no image encoder: name one, such as "
            "image_encoder='laion/CLIP-ViT-bigG-14-laion2B-39B-b160k' for SDXL"
        )
    config = pipe.unet.config
    wanted = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    given = pipe.image_encoder.config.projection_dim
    if given != wanted:
        raise UserError(
            f"the image encoder of {weights.location!r} gives embeddings of {given} numbers, "
            f"the UNet takes {wanted}: use the tower that matches the base"
        )
