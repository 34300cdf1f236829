"""Loading a diffusers pipeline from a folder or the hub, and checking that it is whole.

Which class it is stands in the folder's own model_index.json, never in the family's name. What
only Stable Diffusion XL has is asked for here, by the methods that work on no other base.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.utils import logging as transformers_logging

from hb_tta.errors import UserError
from hb_tta.generators.description import check_vocabulary, tokenizers_of
from hb_tta.generators.reading import is_sdxl, located, read_index, reading
from hb_tta.generators.solvers import DDIM, solver_for
from hb_tta.progress import without_bars_of_libraries
from hb_tta.weights import Weights

SDXL = "a Stable Diffusion XL pipeline"


def load_sdxl(
    base: Weights,
    *,
    dtype: str,
    image_encoder: Weights | None,
    embeds_images: bool,
    reads_text: bool = True,
    unet_dtype: str | None = None,
    solver: str = DDIM,
) -> StableDiffusionXLPipeline:
    """The stock pipeline, on the CPU.

    Args:
        base: in diffusers' layout.
        dtype: of all weights: "float32", "bfloat16" or "float16".
        image_encoder: the CLIP vision tower that embeds the reference; ``None``: the base's own.
        embeds_images: whether a tower is needed at all.
        reads_text: whether its own text encoders are to be loaded.
        unet_dtype: of the UNet alone; ``None``: as the others.
        solver: see ``solver_for``.

    Raises:
        UserError: the weights are missing, damaged, no SDXL, or of widths that do not match.
    """
    _check_index_is_sdxl(base)
    parts: dict[str, Any] = {}
    if not reads_text:
        parts |= dict.fromkeys(_TEXT)
    if not embeds_images:
        parts |= {"image_encoder": None, "feature_extractor": None}
    with without_bars_of_libraries():
        if embeds_images and image_encoder is not None:
            parts |= _load_image_encoder(image_encoder, getattr(torch, dtype))
        pipe = _load(base, StableDiffusionXLPipeline, dtype, parts, solver, unet_dtype=unet_dtype)
    if pipe.unet.config.addition_embed_type != "text_time":
        raise UserError(
            f"{base.location!r} is no Stable Diffusion XL: its UNet takes no pooled embedding"
        )
    if embeds_images:
        _check_image_encoder(pipe, image_encoder or base)
    return pipe


def load_text_to_image(base: Weights, *, dtype: str, solver: str = DDIM) -> Any:
    """The text-to-image pipeline of the class that the base's index names, on the CPU.

    Raises:
        UserError: the weights are missing or damaged, or nothing there makes images from text.
    """
    if is_sdxl(base):
        return load_sdxl(base, dtype=dtype, image_encoder=None, embeds_images=False, solver=solver)
    from diffusers import AutoPipelineForText2Image  # which imports every pipeline there is

    return load_pipeline(base, AutoPipelineForText2Image, dtype=dtype, solver=solver)


def load_image_to_image(base: Weights, *, dtype: str, solver: str = DDIM, **parts: Any) -> Any:
    """The image-to-image pipeline of the base's kind, on the CPU.

    Args:
        base, dtype, solver, parts: see ``load_pipeline``.

    Raises:
        UserError: the weights are missing or damaged, or no pipeline of their kind noises images.
    """
    from diffusers import AutoPipelineForImage2Image  # which imports every pipeline there is

    pipe = load_pipeline(base, AutoPipelineForImage2Image, dtype=dtype, solver=solver, **parts)
    if not {"image", "prompt", "strength"} <= arguments_of(pipe).keys():
        raise UserError(
            f"{base.location!r} is a {type(pipe).__name__}, which takes no image with a strength: "
            "name another base"
        )
    return pipe


def arguments_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a pipeline's call, by name."""
    return inspect.signature(pipe.__call__).parameters


def load_pipeline(
    base: Weights,
    loader: Any = DiffusionPipeline,
    *,
    dtype: str,
    solver: str = DDIM,
    unet_dtype: str | None = None,
    **parts: Any,
) -> Any:
    """A stock pipeline, on the CPU.

    Args:
        base: in diffusers' layout.
        loader: whose ``from_pretrained`` loads it: ``DiffusionPipeline`` the class that the base's
            index names, an ``AutoPipelineFor…`` its sibling for another task, or one class.
        dtype: of all weights: "float32", "bfloat16" or "float16".
        solver: see ``solver_for``.
        unet_dtype: of the UNet alone; ``None``: as the others.
        **parts: put in place of the base's own; ``None`` leaves one out.

    Raises:
        UserError: the weights are missing or damaged, or no such pipeline.
    """
    with without_bars_of_libraries():
        return _load(base, loader, dtype, parts, solver, unet_dtype=unet_dtype)


def _load(
    base: Weights,
    loader: Any,
    dtype: str,
    parts: Mapping[str, Any],
    solver: str,
    *,
    unet_dtype: str | None = None,
) -> Any:
    given = getattr(torch, dtype)
    by_part = {"unet": getattr(torch, unet_dtype or dtype), "default": given}
    what = SDXL if loader is StableDiffusionXLPipeline else "a diffusers pipeline"
    if "safety_checker" in read_index(base, what):  # which would turn views black, and say nothing
        parts = {"safety_checker": None, "requires_safety_checker": False, **parts}
    if is_sdxl(base):  # which would mark views where a package for that is installed
        parts = {"add_watermarker": False, **parts}
    with reading(base, what):
        source, options = located(base)
        pipe = loader.from_pretrained(
            source,
            **options,
            **parts,
            dtype=given if by_part["unet"] == given else by_part,
            use_safetensors=True,
        )
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    # diffusers before 0.40 does not know the name
    assert {model.dtype for model in models} <= set(by_part.values())
    check_vocabulary(tokenizers_of(pipe), base)
    pipe.scheduler = solver_for(pipe.scheduler, solver, base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_image_encoder(weights: Weights, dtype: str) -> dict[str, Any]:
    """A CLIP vision tower by itself, on the CPU: "image_encoder" and its "feature_extractor".

    Raises:
        UserError: the weights are missing or damaged, or no such tower.
    """
    with without_bars_of_libraries():
        return _load_image_encoder(weights, getattr(torch, dtype))


def _load_image_encoder(weights: Weights, dtype: torch.dtype) -> dict[str, Any]:
    """The tower and its preprocessor; in a pipeline's layout the latter is a folder of its own."""
    head, tail = os.path.split(weights.subfolder or "")
    beside = replace(weights, subfolder=os.path.join(head, "feature_extractor"))
    with reading(weights, "a CLIP vision tower"), no_load_report():
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
def no_load_report() -> Iterator[None]:
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


_TEXT = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


def _check_index_is_sdxl(base: Weights) -> None:
    index = read_index(base, SDXL)
    for part in _TEXT:
        if index.get(part, [None, None])[1] is None:
            raise UserError(f"{base.location!r} is no Stable Diffusion XL: it has no {part}")


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
