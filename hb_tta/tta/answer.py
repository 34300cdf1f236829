"""Test-time augmentation of an MLLM: one answer to a question from several views of its image.

    answer = hb_tta.answer(model, processor, image, question, views=augmenter(image, question))
    answer.text, answer.combined.yes - answer.combined.no

The views are decoded together (decoding.py) from their combined logits (combine.py). This works
for any transformers model and its processor, and for answers of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.tta.combine import Combiner

if TYPE_CHECKING:
    from torch import Tensor

_WORDS = {
    "yes": ("yes", "Yes", "YES", " yes", " Yes"),
    "no": ("no", "No", "NO", " no", " No"),
}


class YesNo(NamedTuple):
    """How much a view says yes and no: the logarithm of the probability that the answer begins so.

    Over the ways to write it ("yes", "Yes", with a space before, …), and of its first token.
    """

    yes: float
    no: float


@dataclass(frozen=True)
class Answer:
    """What several views of an image say together.

    Attributes:
        text: the decoded answer, without special tokens.
        seen: each image's scores before they were combined, the real one's first; empty where
            the tokenizer has no first token of its own for "yes" and "no".
        combined: the scores of the combined logits.
    """

    text: str
    seen: list[YesNo]
    combined: YesNo | None


def answer(
    model: Any,
    processor: Any,
    image: Any,
    question: str,
    views: Sequence[Any] = (),
    *,
    combine: str | Combiner = "mean",
    real_weight: float = 1.0,
    mode: str = "auto",
    **generate: Any,
) -> Answer:
    """Ask a transformers MLLM about an image, with generated views of it as further evidence.

    Args:
        model: of ``AutoModelForImageTextToText``, on any device.
        processor: its ``AutoProcessor``, with a chat template.
        image: a Pillow image, a path or the bytes of an image file.
        question: the whole prompt, with an instruction on how to answer if there is to be one.
        views: images in the same forms, as an ``Augmenter`` gives them; none is a plain answer.
        combine: the name of a rule of words (``hb_tta.tta.combine``), or a ``Combiner``.
        real_weight: the real image's weight beside 1 of each view, where ``combine`` is a name.
        mode: "auto", "batched" or "lock-step", see ``hb_tta.tta.decoding.decode_jointly``.
        **generate: settings of ``model.generate``: ``max_new_tokens`` (128 by default), …

    Raises:
        UserError: an image cannot be read, the processor has no chat template, or a setting
            cannot be used with several views.
    """
    import torch

    from hb_tta.tta.decoding import decode_jointly

    if not getattr(processor, "chat_template", None):
        raise UserError("the processor has no chat template: set processor.chat_template")
    combiner = combine if isinstance(combine, Combiner) else Combiner(combine, real_weight)
    inputs = [_inputs(model, processor, load_image(view), question) for view in (image, *views)]
    settings = {"max_new_tokens": 128, **generate}
    with torch.inference_mode():
        decoded = decode_jointly(
            [partial(model.generate, **own, **settings) for own in inputs],
            combiner,
            mode=mode,
        )
    prompt = 0 if model.config.is_encoder_decoder else inputs[0]["input_ids"].shape[1]
    text = processor.batch_decode(decoded.value[:, prompt:], skip_special_tokens=True)[0]
    words = yes_no_tokens(processor.tokenizer)
    if words is None:
        return Answer(text, [], None)
    return Answer(
        text,
        [yes_no(logits_K, words) for logits_K in decoded.first_logits_VRK[:, 0]],
        yes_no(decoded.first_combined_RK[0], words),
    )


def _inputs(model: Any, processor: Any, image: Any, question: str) -> Any:
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )
    return inputs.to(model.device, model.dtype)


def yes_no_tokens(tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """The tokens that a yes and a no begin with, or None where they cannot be told apart."""
    yes, no = ({t for w in _WORDS[a] for t in _first(tokenizer, w)} for a in ("yes", "no"))
    own_yes, own_no = yes - no, no - yes
    return (sorted(own_yes), sorted(own_no)) if own_yes and own_no else None


def _first(tokenizer: Any, word: str) -> list[int]:
    """The first token of a word that is not a space alone, if the tokenizer knows it."""
    for token in tokenizer.encode(word, add_special_tokens=False):
        if tokenizer.decode([token]).strip():
            return [] if token == tokenizer.unk_token_id else [token]
    return []


def yes_no(logits_K: Tensor, words: tuple[list[int], list[int]]) -> YesNo:
    """The scores of a view's first step, or of the combined one."""
    logprobs_K = logits_K.float().log_softmax(-1)
    return YesNo(*(round(logprobs_K[ids].logsumexp(0).item(), 6) for ids in words))


def first_token(logits_K: Tensor, tokenizer: Any) -> dict[str, Any]:
    """``first``: the text of the likeliest token; ``share``: its probability."""
    share, token = logits_K.float().softmax(-1).max(-1)
    return {"first": tokenizer.decode([int(token)]), "share": round(share.item(), 6)}
