"""Prompts in, images out: the encoder runs once and leaves the device before the UNet begins.

Shape suffixes: B prompts, L tokens, D the VLM's width, C the UNet's ``cross_attention_dim``, P
pooled width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.generators.arguments import check_guidance_scale, described_contexts
from hb_tta.generators.mumu.folder import load_parts
from hb_tta.generators.mumu.masking import MASK
from hb_tta.generators.mumu.prompt import Prompt, with_crops
from hb_tta.generators.protocol import Conditions, ContextLike
from hb_tta.generators.sampling import Sampler, checked_device

AT_ONCE = 4  # prompts in the encoder, of up to 5,200 image tokens each


class PromptGenerator:
    """Images of prompts.

    Args:
        spec: a ``PromptSpec``: what decides the pixels.
        device, batch_size, cpu_offload: see ``GeneratorSpec.load``; they decide none.
        encoder_stays: keep encoder and UNet on the device together (22 GB at full size, in 16
            bits); else each leaves while the other works.

    Raises:
        UserError: weights are missing, damaged or do not fit each other.
    """

    def __init__(
        self,
        spec: Any,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        encoder_stays: bool = False,
    ) -> None:
        self._device = checked_device(device)  # before the weights are read
        self.spec = spec
        index, self.encoder, self.connector = load_parts(spec.mumu, dtype=spec.dtype, vlm=spec.vlm)
        self._tokens = spec.tokens or index.tokens
        self.encoder.side(self._tokens)
        pipe = spec.load_pipeline()
        _check_fit(self.connector.config.out_features, pipe.unet, spec)
        self._sampler = Sampler(
            pipe,
            height=spec.height,
            width=spec.width,
            constants={},
            device=device,
            batch_size=batch_size,
            cpu_offload=cpu_offload,
        )
        self._pipe_stays = cpu_offload or encoder_stays  # offloaded parts come and go themselves
        self._encoder_stays = encoder_stays

    @property
    def pipe(self) -> Any:
        """The stock pipeline, whose UNet takes a mask (mumu/masking.py)."""
        return self._sampler.pipe

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self._sampler.batch_size

    def generate(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[Sequence[int]],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """Images of every prompt, one a seed.

        Args:
            prompts: with any numbers of images.
            seeds: one list a prompt, of any lengths.
            num_inference_steps, guidance_scale, output_type: see ``PipelineGenerator.generate``.

        Returns:
            One list a prompt, one RGB image a seed. An image does not depend on the others of the
            call (beyond the rounding of batched arithmetic).
        """
        if len(prompts) != len(seeds):
            raise UserError(
                f"{len(prompts)} prompts came with {len(seeds)} lists of seeds: give one a prompt"
            )
        steps, guidance = num_inference_steps, guidance_scale
        guidance = self.spec.guidance_scale if guidance is None else guidance
        check_guidance_scale(guidance)
        wanted = [prompt for prompt, its in zip(prompts, seeds, strict=True) if its]
        known = iter(self.encode(wanted))
        return self._sampler.draw(
            [next(known) if its else None for its in seeds],
            seeds,
            self._conditions,
            num_inference_steps=self.spec.num_inference_steps if steps is None else steps,
            guidance_scale=guidance,
            output_type=output_type,
            stack=stacked,
        )

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """What the UNet attends to of every prompt: (L, C) each, on the CPU, without padding."""
        found: list[Tensor] = []
        self._let_in()
        try:
            for start in range(0, len(prompts), AT_ONCE):
                found += self._encode(prompts[start : start + AT_ONCE])
        finally:
            self._let_out()
        return found

    def _encode(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        states_BLD, inputs = self.encoder.encode(prompts, self._tokens)
        mask_BL = inputs["attention_mask"].bool()
        context_BLC = self.connector(states_BLD, mask_BL)
        scales_BL1 = torch.where(inputs["is_image"], self.spec.image_scale, 1.0)[..., None]
        context_BLC = context_BLC * scales_BL1.to(context_BLC.dtype)
        return [row[kept].cpu() for row, kept in zip(context_BLC, mask_BL, strict=True)]

    def _let_in(self) -> None:
        if not self._pipe_stays:
            _move(self.pipe.components, "cpu")
        for part in (self.encoder, self.connector):
            part.to(self._device)

    def _let_out(self) -> None:
        if not self._encoder_stays:
            for part in (self.encoder, self.connector):
                part.to("cpu")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if not self._pipe_stays:
            _move(self.pipe.components, self._device)

    def _conditions(self, contexts: list[Tensor], guided: bool) -> Conditions:
        """The pipeline's arguments, a row a prompt; pooled zeros, zeros as negatives."""
        rows = [context.to(self._device) for context in contexts]
        pooled = [pooled_zeros(self.pipe.unet, row) for row in rows]
        told: Conditions = {"prompt_embeds": rows, "pooled_prompt_embeds": pooled}
        if guided:
            told |= {
                "negative_prompt_embeds": [torch.zeros_like(row) for row in rows],
                "negative_pooled_prompt_embeds": pooled,
            }
        return told


class MumuGenerator:
    """The method's generator: crops go before the words that a detector found, then as prompts.

    Args:
        spec: a ``MumuSpec``.
        placement: device, batch_size and cpu_offload, see ``PromptGenerator``.
    """

    def __init__(self, spec: Any, **placement: Any) -> None:
        self.spec = spec
        self.model = PromptGenerator(spec, **placement)

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """See ``Generator.generate``. Boxes of ``None`` are refused: ``()`` says there are none."""
        described = described_contexts(contexts, seeds, needs_description=True)
        prompts = [prompt_of(context, number) for number, context in enumerate(described)]
        return self.model.generate(prompts, seeds, output_type=output_type)


def prompt_of(context: DescribedContext, number: int = 0) -> Prompt:
    """A context's description with crops of its image; the words alone where nothing was found.

    Without a word it is the image alone.

    Raises:
        UserError: nobody has looked for the words.
    """
    if context.boxes is None:
        raise UserError(
            f"context {number} has no boxes, which this generator needs: find them first "
            "(spec.finder()), or give () on purpose"
        )
    text, image = context.description or "", context.image.convert("RGB")
    return with_crops(text, image, context.boxes) if text.strip() else Prompt((image,))


def stacked(rows: list[Conditions]) -> Conditions:
    """Conditions of prompts of different lengths: padded, with a mask that hides the padding."""
    lengths_B1 = torch.tensor([[len(row["prompt_embeds"])] for row in rows])
    told = {name: pad_sequence([row[name] for row in rows], batch_first=True) for name in rows[0]}
    context_BLC = told["prompt_embeds"]
    mask_BL = torch.arange(context_BLC.shape[1])[None] < lengths_B1
    return {**told, "cross_attention_kwargs": {MASK: mask_BL.to(context_BLC.device)}}


def pooled_zeros(unet: nn.Module, like: Tensor) -> Tensor:
    """(P): what stands for the pooled text embedding, as where SDXL's own text was dropped.

    Args:
        unet: of Stable Diffusion XL.
        like: whose dtype and device it gets.
    """
    config: Any = unet.config
    return like.new_zeros(
        config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    )


def _move(components: dict[str, Any], device: torch.device | str) -> None:
    """Parts of a pipeline; its own ``to`` warns of what a CPU can do in 16 bits."""
    for part in components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, device)


def _check_fit(width: int, unet: Any, spec: Any) -> None:
    if unet.config.cross_attention_dim != width:
        raise UserError(
            f"the connector of {spec.mumu.location!r} gives {width} numbers a token, the UNet of "
            f"{spec.base.location!r} attends to {unet.config.cross_attention_dim}: give a base of "
            "the kind that it was trained on"
        )
