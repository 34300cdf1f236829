"""The describer: a chat MLLM and a prompt template write what matters of an image, the paper's C.

Any model that transformers loads for image-text-to-text and whose processor has a chat template
will do (LLaVA, LLaVA-NeXT, Qwen-VL, InternVL's ``-hf`` checkpoints, …). Importing this module
imports no torch: ``DescriberSpec.load`` does.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from hb_tta.context import DescribedContext, evaluation_contexts
from hb_tta.describe.drafts import TEMPERATURE
from hb_tta.describe.templates import TEMPLATE_VERSION, evaluation_prompt, printable
from hb_tta.device import check_dtype, check_memory, default_device, default_dtype
from hb_tta.errors import UserError
from hb_tta.processors import complete
from hb_tta.progress import without_bars_of_libraries
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TIDY_VERSION = 1
"""Counts the changes of ``tidy_description`` and of what is shown to the model."""


@dataclass(frozen=True)
class DescriberSpec:
    """All that decides a description, in a frozen dataclass: its part of the store's key.

    Attributes:
        mllm: a folder or hub repository in transformers' layout.
        template_version: of the prompt templates that the descriptions are made with.
        max_new_tokens: longest description in the model's tokens, at least 1. The default is
            somewhat more than the 77 tokens that SDXL's text encoders take, whose tokenizer makes
            fewer of the same text; the released code allows 75 in training and up to 200 at
            evaluation, and lets the encoders cut the rest off.
        dtype: "float32", "bfloat16" or "float16".
    """

    mllm: Weights
    template_version: str = TEMPLATE_VERSION
    max_new_tokens: int = 120
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} is no text: use 1 or more")

    def to_json(self) -> dict[str, Any]:
        """Content fingerprints and every setting that changes a description; never a path."""
        return {
            "mllm": self.mllm.fingerprint(),
            "templates": self.template_version,
            "tidy": TIDY_VERSION,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
        }

    def load(self, device: str | None = None) -> Describer:
        """The describer with its weights on ``device`` (``None``: a GPU if there is one).

        Raises:
            UserError: the weights are missing, no image-text-to-text model, or without a chat
                template.
        """
        if self.template_version != TEMPLATE_VERSION:
            raise UserError(
                f"the describer's templates are {self.template_version!r}, this version of hb-tta "
                f"has {TEMPLATE_VERSION!r}: make the spec without template_version"
            )
        return Describer(self, device=device)


class Describer:
    """Writes descriptions; made by ``DescriberSpec.load``.

    Attributes:
        spec: what recreates it.
        device: where its weights are.
        model, processor: transformers' own objects.
    """

    def __init__(self, spec: DescriberSpec, *, device: str | None = None) -> None:
        self.spec = spec
        self.device = device or default_device()
        self.model, self.processor = load_mllm(spec.mllm, device=self.device, dtype=spec.dtype)

    def describe(
        self, contexts: Sequence[Any], seeds: Sequence[int | None] | None = None
    ) -> list[str]:
        """One description a context, all of them in one batch.

        Whatever a ground truth is, it has no way in: the contexts have no place for one. A
        description that says nothing but what is absent is asked for again with the generic
        template, which has no question to say no to.

        Args:
            contexts: ``MultimodalContext``s without a ground truth, ``DescribedContext``s or
                (image, description) pairs; a description in them is not looked at. RGB images.
            seeds: see ``describe_with``.

        Returns:
            Tidy texts in the order of the contexts; "" where the model wrote nothing of use.

        Raises:
            UserError: a context carries a ground truth or names an unknown task.
        """
        described = evaluation_contexts(contexts)
        texts = self.describe_with(
            [context.image for context in described],
            [evaluation_prompt(context.guidance, context.task) for context in described],
            seeds,
        )
        return self._ask_again(described, texts, seeds)

    def describe_with(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        seeds: Sequence[int | None] | None = None,
    ) -> list[str]:
        """One description an image for ready-made instructions; the trainer's way in.

        Args:
            images: RGB, of any sizes.
            prompts: one an image.
            seeds: of words drawn at random, one an image, where not ``None``; ``None``: of none.

        Returns:
            Greedily decoded texts of at most ``spec.max_new_tokens`` tokens, or drawn ones, tidied;
            they do not depend on what else is in the batch, up to rounding.
        """
        if not prompts:
            return []
        import torch

        inputs = self._inputs(images, prompts)
        with torch.inference_mode(), _plain_greedy(self.model):
            ids_BT = self.model.generate(
                **inputs,
                max_new_tokens=self.spec.max_new_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=_drawing(seeds),
            )
        new_ids_BT = ids_BT[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new_ids_BT, skip_special_tokens=True)
        return [tidy_description(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]

    def first_logits(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """What the model would begin its answers with.

        Args:
            images: RGB, of any sizes.
            prompts: one an image.

        Returns:
            Logits (B, K) over the vocabulary, before any sampling setting, in float32.
        """
        import torch

        inputs = self._inputs(images, prompts)
        with torch.inference_mode(), _plain_greedy(self.model):
            made = self.model.generate(
                **inputs,
                max_new_tokens=1,
                do_sample=False,
                num_beams=1,
                output_logits=True,
                return_dict_in_generate=True,
            )
        return made.logits[0].float()

    def unload(self) -> None:
        """Frees the device; the describer cannot be used any more."""
        import torch

        del self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _ask_again(
        self,
        contexts: Sequence[DescribedContext],
        texts: list[str],
        seeds: Sequence[int | None] | None,
    ) -> list[str]:
        empty = [index for index, text in enumerate(texts) if not text]
        again = self.describe_with(
            [contexts[index].image for index in empty],
            [evaluation_prompt("", "generic") for _ in empty],
            None if seeds is None else [seeds[index] for index in empty],
        )
        filled = list(texts)
        for index, text in zip(empty, again, strict=True):
            filled[index] = text
        return filled

    def _inputs(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
        conversations = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": image},
                        {"type": "text", "text": self._without_marks(prompt)},
                    ],
                }
            ]
            for image, prompt in zip(images, prompts, strict=True)
        ]
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        )
        return inputs.to(self.device, self.model.dtype)  # casts the floating-point ones alone

    def _without_marks(self, prompt: str) -> str:
        """The prompt without the model's own special tokens, which a question may quote."""
        tokenizer = self.processor.tokenizer
        for mark in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
            prompt = prompt.replace(mark, " ")
        return prompt


def load_mllm(
    source: str | PathLike[str] | Weights, *, device: str | None = None, dtype: str | None = None
) -> tuple[Any, Any]:
    """A chat MLLM and its processor, as ``hb_tta.answer`` takes them.

    Args:
        source: a folder or hub repository in transformers' layout, or a family's weights.
        device: where it works; ``None``: a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16"; ``None``: float32 on a CPU, bfloat16 on a GPU.

    Raises:
        UserError: the weights are missing, no image-text-to-text model, or without a chat
            template.
    """
    device = device or default_device()
    dtype = dtype or default_dtype(device)
    check_dtype(dtype)
    weights = as_weights(source)
    processor = _load_processor(weights)
    model = _load_model(weights, dtype).to(device).eval()
    complete(processor, model.config)
    return model, processor


def _load_processor(mllm: Weights) -> Any:
    from transformers import AutoProcessor

    with _reading(mllm):
        processor = AutoProcessor.from_pretrained(mllm.local_folder())
    if not getattr(processor, "chat_template", None):
        raise UserError(
            f"the describer {mllm.location!r} has no chat template, so it cannot be asked: name "
            "an instruction-tuned chat model, or put a chat_template.jinja into its folder"
        )
    processor.tokenizer.padding_side = "left"  # else generation would go on after the padding
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _load_model(mllm: Weights, dtype: str) -> Any:
    from transformers import AutoModelForImageTextToText

    import hb_tta.idefics2  # noqa: F401 - transformers then knows that model type, too

    with _reading(mllm), without_bars_of_libraries():
        return AutoModelForImageTextToText.from_pretrained(
            mllm.local_folder(), dtype=dtype, use_safetensors=True
        )


@contextmanager
def _reading(mllm: Weights) -> Iterator[None]:
    """Turns the library's many complaints about files into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, MemoryError, SafetensorError) as error:
        check_memory(error, f"the weights {mllm.location!r}")
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{mllm.location!r} cannot be loaded as a describer (an image-text-to-text model in "
            f"transformers' layout): {reason}"
        ) from error


def _drawing(seeds: Sequence[int | None] | None) -> list[Any]:
    """What draws words at random where a seed says so."""
    if seeds is None or all(seed is None for seed in seeds):
        return []
    from hb_tta.describe.sampling import SeededSampling

    return [SeededSampling(seeds, TEMPERATURE)]


@contextmanager
def _plain_greedy(model: Any) -> Iterator[None]:
    """Sets the checkpoint's sampling settings aside: greedy decoding reads none of them."""
    config = model.generation_config
    kept = {name: getattr(config, name) for name in ("temperature", "top_p", "top_k")}
    for name in kept:
        setattr(config, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(config, name, value)


_MARKUP = re.compile(r"[*`#]+")
_ROLE = re.compile(r"^(?:assistant|answer|description|caption|prompt)\s*:\s*", re.IGNORECASE)
_VERDICT = re.compile(r"^(?:yes|no)\s*[,.;:!–—-]+\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_TURN = re.compile(r"(?:[,;]\s*|\s)(?:but|instead|rather)\b[,\s]*", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")
_ABSENCE = re.compile(
    r"\b(?:not?|none|nobody|nothing|neither|nor|never|absent|absence|cannot|without any)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)


def tidy_description(text: str, prompt: str = "") -> str:
    """What a model wrote, as a prompt for an image generator.

    Takes off an echo of the instruction, a role's name, markup and a leading "Yes, " or "No, "
    (as the authors' code does), makes all whitespace single spaces, and leaves out what is said
    to be absent: a text encoder passes a negation on as the thing itself. (English; a model that
    answers in another language keeps its negations.)

    Args:
        text: the model's words.
        prompt: the instruction that it answered.

    Returns:
        One line; "" if nothing is said to be there.
    """
    text = " ".join(_MARKUP.sub("", printable(text)).split())
    text = text.removeprefix(" ".join(prompt.split())).lstrip()
    text = _VERDICT.sub("", _ROLE.sub("", text))
    present = (_what_is_there(sentence) for sentence in _SENTENCE_END.split(text))
    return " ".join(sentence for sentence in present if sentence)


def _what_is_there(sentence: str) -> str:
    """The sentence, or its part after a "but", without a negation; "" if there is none."""
    for part in (sentence, *_TURN.split(sentence, maxsplit=1)[1:]):
        if part and not _ABSENCE.search(_QUOTED.sub("", part)):
            return part[0].upper() + part[1:]
    return ""
