"""Prompts as hidden states: Idefics2 with every patch a token (section 3).

transformers' own classes with the perceiver taken out. The vision tower takes pictures of any
multiple of its patch, so one checkpoint serves 64, 324 and 1,296 tokens an image.

Shape suffixes: B prompts, L tokens, N images of all prompts, S side in pixels, T tokens an image,
D the language model's width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Idefics2Config, Idefics2Model, PreTrainedConfig

from hb_tta.errors import UserError, shown
from hb_tta.generators.loading import no_load_report
from hb_tta.generators.mumu.pictures import squared
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.generators.reading import located, reading
from hb_tta.progress import without_bars_of_libraries
from hb_tta.weights import Weights


class AsTheyAre(nn.Module):
    """Stands where the perceiver stood."""

    def forward(self, context: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return context


class PatchesModel(Idefics2Model):
    """Idefics2 whose language model reads every patch; its checkpoints load as they are."""

    def __init__(self, config: Idefics2Config) -> None:
        super().__init__(config)
        self.connector.perceiver_resampler = AsTheyAre()


class Encoder(nn.Module):
    """A VLM and its processor: prompts in, the states of their tokens out.

    Args:
        vlm: in place; PEFT may add a LoRA to it.
        processor: Idefics2's, with its tokenizer.
        registers: end-of-text tokens behind every prompt: room for what the whole of it says.

    Raises:
        UserError: the tokenizer is another model's.
    """

    def __init__(self, vlm: PatchesModel, processor: Any, registers: int = 0) -> None:
        super().__init__()
        self.vlm, self.processor, self.registers = vlm, processor, registers
        self._tokenizer = processor.tokenizer
        self._image, self._border = processor.image_token, processor.fake_image_token
        self._image_id = self._tokenizer.convert_tokens_to_ids(self._image)
        _check_tokenizer(self._tokenizer, self._image_id, vlm, registers)
        marks = [mark for mark in self._tokenizer.all_special_tokens if len(mark) > 1]
        self._marks = sorted({*marks, self._image, self._border}, key=len, reverse=True)

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return self.vlm.config.vision_config.patch_size

    @property
    def width(self) -> int:
        """D."""
        return self.vlm.config.text_config.hidden_size

    def side(self, tokens: int) -> int:
        """S of a square picture of so many tokens.

        Raises:
            UserError: no square has so many, or the tower was made for smaller pictures.
        """
        grid = math.isqrt(max(0, tokens))
        most = self.vlm.config.vision_config.image_size // self.patch
        if grid < 1 or grid * grid != tokens or grid > most:
            raise UserError(
                f"tokens={tokens} an image is not to be had: use a square number up to {most**2}, "
                "such as " + ", ".join(map(str, _usual(most)))
            )
        return grid * self.patch

    def expanded(self, prompt: Prompt, tokens: int) -> str:
        """The very text that is tokenised: every image a run of its tokens between two borders.

        What a person writes of the tokenizer's own marks is made words of.
        """
        parts = tuple(self._plain(p) if isinstance(p, str) else p for p in prompt.parts)
        return Prompt(parts).written(f"{self._border}{self._image * tokens}{self._border}")

    def tokenised(self, prompt: Prompt, tokens: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a prompt, and where each stands in ``expanded``; (0, 0) of those around it.

        Raises:
            UserError: they are more than the language model reads.
        """
        found = self._tokenizer(
            self.expanded(prompt, tokens), return_offsets_mapping=True, verbose=False
        )
        ids, places = list(found.input_ids), [tuple(place) for place in found.offset_mapping]
        first, last = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if first is not None and ids[:1] != [first]:
            ids, places = [first, *ids], [(0, 0), *places]
        ids, places = ids + [last] * self.registers, places + [(0, 0)] * self.registers
        most = self.vlm.config.text_config.max_position_embeddings
        if len(ids) > most:
            raise UserError(
                f"the prompt has {len(ids)} tokens and the encoder reads {most}: use fewer words, "
                "images or tokens an image"
            )
        return ids, places

    def inputs(self, prompts: Sequence[Prompt], tokens: int) -> dict[str, Tensor]:
        """What ``forward`` takes, on the CPU; padded at the right.

        Args:
            prompts: with any numbers of images.
            tokens: an image.

        Returns:
            ``input_ids`` (B, L), ``attention_mask`` (B, L), ``is_image`` (B, L) and, where there is
            an image, ``pixel_values`` (N, 3, S, S) of all prompts' images in order.
        """
        rows = [self.tokenised(prompt, tokens)[0] for prompt in prompts]
        length = max(map(len, rows))
        padding = self._tokenizer.pad_token_id or 0
        ids_BL = torch.tensor([row + [padding] * (length - len(row)) for row in rows])
        ends_B1 = torch.tensor([[len(row)] for row in rows])
        mask_BL = torch.arange(length)[None] < ends_B1
        images = [image for prompt in prompts for image in prompt.images]
        pixels = {"pixel_values": self._pixels(images, tokens)} if images else {}
        is_image_BL = (ids_BL == self._image_id) & mask_BL
        return {
            "input_ids": ids_BL,
            "attention_mask": mask_BL.long(),
            "is_image": is_image_BL,
            **pixels,
        }

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        is_image: Tensor,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """The language model's last states, behind its norm: (B, L, D)."""
        embeds_BLD = self.vlm.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            patches_NTD = self.vlm.connector(
                self.vlm.vision_model(pixel_values.to(self.vlm.dtype)).last_hidden_state, None
            )
            rows = patches_NTD.flatten(0, 1).to(embeds_BLD.dtype)
            embeds_BLD = embeds_BLD.masked_scatter(is_image[..., None], rows)
        found = self.vlm.text_model(
            inputs_embeds=embeds_BLD, attention_mask=attention_mask, use_cache=False
        )
        return found.last_hidden_state

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt], tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
        """States (B, L, D) of prompts, words and images in one call, and the inputs they are of."""
        inputs = {name: it.to(self.vlm.device) for name, it in self.inputs(prompts, tokens).items()}
        return self(**inputs), inputs

    def _pixels(self, images: Sequence[Any], tokens: int) -> Tensor:
        side = self.side(tokens)
        found = self.processor.image_processor(
            [[squared(image)] for image in images],
            do_resize=True,
            size={"height": side, "width": side},
            do_image_splitting=False,
            return_tensors="pt",
        )
        return found.pixel_values.flatten(0, 1)

    def _plain(self, text: str) -> str:
        for mark in self._marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text


def load_vlm(weights: Weights, dtype: torch.dtype) -> PatchesModel:
    """Idefics2 without its perceiver and its head, on the CPU, frozen, in eval mode.

    Args:
        weights: of Idefics2 as the hub has it, or of a model saved without a perceiver.

    Raises:
        UserError: they are missing, damaged, incomplete, or no Idefics2's.
    """
    with without_bars_of_libraries(), reading(weights, "an Idefics2"), no_load_report():
        source, options = located(weights)
        written, _ = PreTrainedConfig.get_config_dict(source, **options)
        if not str(written.get("model_type", "")).startswith("idefics2"):
            raise ValueError(f"it is of model_type {shown(written.get('model_type'))}")
        model, info = PatchesModel.from_pretrained(
            source,
            **options,
            config=Idefics2Config.from_dict({**written, "model_type": "idefics2"}),
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        lost = {*info["missing_keys"], *(info.get("mismatched_keys") or ())}
        if lost:  # the library fills them with random numbers
            raise ValueError(f"it lacks {shown(min(map(str, lost)))} ({len(lost)} weights in all)")
    return model.eval().requires_grad_(False)


def load_processor(weights: Weights) -> Any:
    """Idefics2's processor.

    Raises:
        UserError: it is missing or another's.
    """
    from transformers import Idefics2Processor

    with reading(weights, "the processor of an Idefics2"):
        source, options = located(weights)
        return Idefics2Processor.from_pretrained(source, **options)


def _check_tokenizer(tokenizer: Any, image_id: int, vlm: PatchesModel, registers: int) -> None:
    rows = vlm.get_input_embeddings().num_embeddings
    if image_id != vlm.config.image_token_id or len(tokenizer) > rows:
        raise UserError(
            f"the processor has {len(tokenizer)} tokens with images at {image_id}, the VLM {rows} "
            f"with images at {vlm.config.image_token_id}: give the processor that it was made with"
        )
    if registers and tokenizer.eos_token_id is None:
        raise UserError(f"registers={registers} need a tokenizer with an end-of-text token")


def _usual(most: int) -> list[int]:
    return [n * n for n in (2, 4, 8, 18, 36) if n <= most] or [1]
