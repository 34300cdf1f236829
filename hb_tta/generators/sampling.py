"""Sampling many views at once with a stock diffusers pipeline.

The one code path of every generator on a pipeline. They differ in how contexts become
conditions; from there on all views, of whichever context, are rows of the same batches.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from diffusers import LCMScheduler
from diffusers.image_processor import VaeImageProcessor
from PIL.Image import Image, Resampling
from torch import Tensor

from hb_tta.context import DescribedContext
from hb_tta.device import default_device
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import (
    check_consistency_steps,
    check_guidance_scale,
    check_num_inference_steps,
    checked_seed,
    described_contexts,
)
from hb_tta.generators.description import count_tokens, fit_description, kept_tokens, tokenizers_of
from hb_tta.generators.protocol import Conditions, ContextLike

MEGAPIXEL = 1024 * 1024
SIDE = 1024  # pixels of a view, where neither a person nor the pipeline says
SLICED_DECODE_PIXELS = 512 * 512  # from here on one image fills the device in the VAE's decoder

TRUE_GUIDANCE = "true_cfg_scale"  # diffusers' name where guidance_scale is a distilled model's

T = TypeVar("T")

Encode: TypeAlias = Callable[[list[T], bool], dict[str, Any]]
"""(contexts, or what a generator has in their place; whether guidance is on) → their conditions."""


class Sampler:
    """A stock pipeline on its device, and the batching around it.

    Args:
        pipe: any diffusers pipeline that gives images, on the CPU.
        height, width: of the views; ``None``: the pipeline's own.
        constants: the pipeline's arguments that are the same for all views, by name.
        resized: whether the images that ``encode`` gives have the view's size, so that a pipeline
            need not take it.
        told: what the text encoders are told of a description.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size: views a batch; ``None``: what the device has room for. Sets speed and memory,
            no pixel.
        cpu_offload: keep each part of the pipeline on the GPU only while it works (needs CUDA).

    Raises:
        UserError: the pipeline has no such argument, or a setting is out of range.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        height: int | None = None,
        width: int | None = None,
        constants: Mapping[str, Any],
        resized: bool = False,
        told: Callable[[str], str] = lambda text: text,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> None:
        self.pipe = pipe
        self.device = checked_device(device)
        self._told = told
        sides = {name: side for name, side in (("height", height), ("width", width)) if side}
        if resized and not sides.keys() <= inspect.signature(pipe.__call__).parameters.keys():
            sides = {}
        self._constants = {**constants, **sides}
        _check_arguments(pipe, self._constants)
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: use 1 or more")
        self._place(cpu_offload)
        pixels = math.prod(view_size(pipe, height, width))
        vae = pipe.components.get("vae")
        if pixels >= SLICED_DECODE_PIXELS and hasattr(vae, "use_slicing"):
            vae.enable_slicing()
        # GLM-Image first writes tokens, for a whole batch by the generator of its first view.
        writes = "vision_language_encoder" in pipe.components
        self.batch_size = 1 if writes else batch_size or default_batch_size(self.device, pixels)

    def _place(self, cpu_offload: bool) -> None:
        if cpu_offload and self.device.type == "cuda":
            self.pipe.enable_model_cpu_offload(device=self.device)
            return
        if cpu_offload:
            warnings.warn(f"cpu_offload is ignored on {self.device}", HbTtaWarning, stacklevel=5)
        self.pipe.to(self.device)

    def sample(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        encode: Encode[DescribedContext],
        *,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        needs_description: bool = True,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """See ``PipelineGenerator.generate``; steps and guidance of None: the pipeline's own."""
        return self.draw(
            described_contexts(contexts, seeds, needs_description=needs_description),
            seeds,
            lambda some, guided: encode([self._fit(context) for context in some], guided),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            output_type=output_type,
        )

    @torch.no_grad()
    def draw(
        self,
        items: Sequence[T],
        seeds: Sequence[Sequence[int]],
        encode: Encode[T],
        *,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        output_type: str = "pil",
        stack: Callable[[list[Conditions]], Conditions] | None = None,
    ) -> list[list[Any]]:
        """Views of whatever can be encoded, one a seed.

        An item is encoded once, whatever its number of views; only conditions of the batch in
        work stay in memory.

        Args:
            items: one a list of seeds.
            num_inference_steps, guidance_scale: ``None``: the pipeline's own.
            stack: rows of conditions → a batch's; ``None``: they have one shape.

        Raises:
            UserError: a setting is out of range, or numbers overflow.
        """
        if output_type not in ("pil", "latent"):
            raise UserError(f"output_type={output_type!r} is not known: use 'pil' or 'latent'")
        asked: dict[str, Any] = {}
        if num_inference_steps is not None:
            check_num_inference_steps(num_inference_steps)
            scheduler = getattr(self.pipe, "scheduler", None)
            if isinstance(scheduler, LCMScheduler):
                most = scheduler.config["original_inference_steps"]
                check_consistency_steps(num_inference_steps, most)
            asked["num_inference_steps"] = num_inference_steps
        if guidance_scale is not None:
            check_guidance_scale(guidance_scale)
            asked[guidance_argument(self.pipe)] = guidance_scale
        _check_arguments(self.pipe, asked)
        guided = _is_guided(self.pipe, guidance_scale)
        assert len(items) == len(seeds)

        results: list[list[Any]] = [[] for _ in items]
        conditions: dict[int, Conditions] = {}
        for batch in _even_batches(_views(seeds), self.batch_size):
            conditions = _encode_missing(batch, conditions, items, encode, guided)
            images = self._denoise(
                (stack or _stacked)([conditions[context] for context, _ in batch]),
                [seed for _, seed in batch],
                {**asked, **_negatives(self.pipe, len(batch), guided)},
                output_type,
            )
            for (context, _), image in zip(batch, images, strict=True):
                results[context].append(image)
        return results

    def _fit(self, context: DescribedContext) -> DescribedContext:
        """The context with a description that the text encoders take whole."""
        tokenizers = tokenizers_of(self.pipe)
        if context.description is None or not tokenizers:
            return context
        window = kept_tokens(inspect.signature(self.pipe.__call__).parameters)
        description, was_shortened = fit_description(
            tokenizers, context.description, self._told, window
        )
        if was_shortened:
            warnings.warn(
                f"a description of {count_tokens(tokenizers, context.description)} tokens was "
                f"shortened to {count_tokens(tokenizers, description)}: "
                f"it begins {context.description[:40]!r}",
                HbTtaWarning,
                stacklevel=6,
            )
        return context._replace(description=description)

    def _denoise(
        self,
        conditions: Conditions,
        seeds: list[int],
        asked: Mapping[str, Any],
        output_type: str,
    ) -> list[Any]:
        """One call of the stock pipeline; each view draws its noise from a generator of its own."""
        images = self.pipe(
            **conditions,
            generator=[_seeded(seed) for seed in seeds],
            **asked,
            **self._constants,
            output_type="latent" if output_type == "latent" else "pt",
        ).images
        if not torch.isfinite(images).all():
            raise UserError(
                f"the views came out as NaN in {str(self.pipe.dtype).removeprefix('torch.')}: "
                "use dtype='bfloat16' or 'float32'"
            )
        return list(images) if output_type == "latent" else _to_pil(images)


def _encode_missing(
    batch: list[tuple[int, int]],
    known: dict[int, Conditions],
    items: Sequence[T],
    encode: Encode[T],
    guided: bool,
) -> dict[int, Conditions]:
    """The conditions of a batch's items: those of the batch before, and the new ones."""
    needed = sorted({item for item, _ in batch})
    new = [item for item in needed if item not in known]
    kept = {item: known[item] for item in needed if item in known}
    if new:
        encoded = encode([items[item] for item in new], guided)
        for row, item in enumerate(new):
            kept[item] = {name: part[row] for name, part in encoded.items()}
    return kept


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


def _check_arguments(pipe: Any, given: Mapping[str, Any]) -> None:
    taken = inspect.signature(pipe.__call__).parameters
    for name, value in given.items():
        if name not in taken:
            raise UserError(
                f"{name}={value!r} is no argument of {type(pipe).__name__}, which the base is: "
                "leave it out"
            )


def guidance_argument(pipe: Any) -> str:
    """The name under which a pipeline's call takes classifier-free guidance.

    To Qwen-Image ``guidance_scale`` is what a distilled denoiser is told, and nothing else; that of
    FLUX, which is distilled, has a default, and is what is meant by guidance there.
    """
    taken = inspect.signature(pipe.__call__).parameters
    told = taken.get("guidance_scale")
    denoiser = pipe.components.get("transformer")
    distilled = denoiser is not None and getattr(denoiser.config, "guidance_embeds", False)
    if "true_cfg_scale" in taken and not distilled and (told is None or told.default is None):
        return TRUE_GUIDANCE
    return "guidance_scale"


def _is_guided(pipe: Any, scale: float | None) -> bool:
    """Whether guidance is on at a scale (``None``: the pipeline's own)."""
    if scale is None and guidance_argument(pipe) == TRUE_GUIDANCE:
        scale = float(inspect.signature(pipe.__call__).parameters[TRUE_GUIDANCE].default)
    return scale is None or scale > 1


def _negatives(pipe: Any, rows: int, guided: bool) -> Conditions:
    """What turns a true guidance on: a negative prompt a row, blank as Qwen-Image's authors do."""
    if not guided or guidance_argument(pipe) != TRUE_GUIDANCE:
        return {}
    return {"negative_prompt": [" "] * rows}


def default_side(pipe: Any) -> int:
    """Of an image that the pipeline makes where no size is named, pixels; else ``SIDE``."""
    named = inspect.signature(pipe.__call__).parameters.get("height")
    if named is not None and isinstance(named.default, int):
        return named.default
    if isinstance(pipe.config.get("default_sample_size"), int):  # PRX's, the one in pixels
        return pipe.config["default_sample_size"]
    parts = pipe.components
    config = getattr(parts.get("unet") or parts.get("transformer"), "config", None)
    # A denoiser without a size of its own (FLUX) leaves it to the pipeline.
    size = getattr(config, "sample_size", None) or getattr(pipe, "default_sample_size", None)
    # One that denoises pixels (DeepFloyd IF) has neither a VAE nor a factor.
    factor = getattr(pipe, "vae_scale_factor", None if "vae" in parts else 1)
    if size is None or factor is None:
        return SIDE
    return max(size if isinstance(size, list | tuple) else [size]) * factor


def view_size(pipe: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of a view, pixels: what is named, else the pipeline's own."""
    if height and width:
        return height, width
    side = default_side(pipe)
    return height or side, width or side


def at_view_size(pipe: Any, image: Image, height: int | None, width: int | None) -> Image:
    """An image as a pipeline is to noise it: RGB, of the size of its views."""
    high, wide = view_size(pipe, height, width)
    return image.convert("RGB").resize((wide, high), Resampling.BICUBIC)


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
    return {name: _batch([row[name] for row in rows]) for name in rows[0]}


def _batch(rows: list[Any]) -> Any:
    return torch.stack(rows) if isinstance(rows[0], Tensor) else rows


def _seeded(seed: int) -> torch.Generator:
    """A generator on the CPU: the same noise whatever the device."""
    return torch.Generator("cpu").manual_seed(checked_seed(seed))


def _to_pil(images: Tensor) -> list[Image]:
    """(B, 3, H, W) in [0, 1] → RGB images, as the pipeline itself converts them."""
    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(images))
