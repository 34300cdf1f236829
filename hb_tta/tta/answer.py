"""Test-time augmentation of an MLLM: one answer to a question from several views of its image.

    answer = hb_tta.answer(model, processor, image, question, views=augmenter(image, question))
    answer.text, answer.combined.yes - answer.combined.no

The views are decoded together (decoding.py) from their combined logits (combine.py). This works
for any transformers model and its processor, and for answers of any length.

    answer(model, processor, image, question, lambda: augmenter(image, question), gate=0.9)

asks about the image alone first, and makes views only where the model is not sure (gate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.processors import complete
from hb_tta.tta.combine import Combiner
from hb_tta.tta.gate import Gated, check_gate, gated, sureness

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
        seen: the scores of each row that was asked (see ``answer``) before they were combined, the
            real image's first; empty where the tokenizer has no first token of its own for "yes"
            and "no".
        combined: the scores of the combined logits.
        gate: what a gate made of the question; None: there was none.
    """

    text: str
    seen: list[YesNo]
    combined: YesNo | None
    gate: Gated | None = None


def answer(
    model: Any,
    processor: Any,
    image: Any,
    question: str,
    views: Sequence[Any] | Callable[[], Sequence[Any]] = (),
    *,
    gate: float | None = None,
    description: str | None = None,
    rewordings: Sequence[str] = (),
    combine: str | Combiner = "mean",
    real_weight: float = 1.0,
    mode: str = "auto",
    **generate: Any,
) -> Answer:
    """Ask a transformers MLLM about an image, with generated views of it as further evidence.

    The rows that are asked together: the image and each view with the question, then with each
    rewording of it, then the question behind the description, without a picture.

    Args:
        model: of ``AutoModelForImageTextToText``, on any device.
        processor: its ``AutoProcessor``, with a chat template. What it leaves to the model is put
            into it: see ``hb_tta.processors``.
        image: a Pillow image, a path or the bytes of an image file; None asks the question alone,
            without a picture, and then there can be no views.
        question: the whole prompt, with an instruction on how to answer if there is to be one.
        views: images in the same forms, as an ``Augmenter`` gives them, or a function that makes
            them; none is a plain answer.
        gate: between 0 and 1: what is beside the real image and the question is made and shown
            only where the model's plain answer has a lower probability (``hb_tta.tta.gate``); 0:
            nowhere; None: everywhere.
        description: what was said of the image.
        rewordings: further wordings of the prompt, see ``hb_tta.describe.reworded``.
        combine: the name of a rule of words (``hb_tta.tta.combine``), or a ``Combiner``.
        real_weight: the first row's weight beside 1 of each other, where ``combine`` is a name.
        mode: "auto", "batched" or "lock-step", see ``hb_tta.tta.decoding.decode_jointly``.
        **generate: settings of ``model.generate``: ``max_new_tokens`` (128 by default), …

    Raises:
        UserError: an image cannot be read, the processor has no chat template, a setting cannot
            be used with several views, or there are views of no image.
    """
    if not getattr(processor, "chat_template", None):
        raise UserError("the processor has no chat template: set processor.chat_template")
    check_gate(gate)
    combiner = combine if isinstance(combine, Combiner) else Combiner(combine, real_weight)
    settings = {"max_new_tokens": 128, **generate}
    if image is None and (callable(views) or len(views)):
        told_of = "" if callable(views) else f"{len(views)} "
        raise UserError(f"{told_of}views of no image: give the image that they are views of")
    real = None if image is None else load_image(image)
    told: Gated | None = None
    if gate is not None:
        text, decoded = _decoded(model, processor, [(real, question)], Combiner(), mode, settings)
        words = yes_no_tokens(processor.tokenizer)
        p = sureness(decoded.first_combined_RK[0], decoded.entropies, text, words)
        told = gated(p, gate)
        if not told.passed:
            return _answer(processor, text, decoded, told)
    made = views() if callable(views) else views
    shown = [real, *map(load_image, made)]
    rows: list[Row] = [(each, text) for text in (question, *rewordings) for each in shown]
    if description:
        rows.append((None, behind(description, question)))
    if len(rows) == 1:
        combiner = Combiner()  # whatever the rule is to make of views, there are none
    text, decoded = _decoded(model, processor, rows, combiner, mode, settings)
    return _answer(processor, text, decoded, told)


Row = tuple[Any, str]
"""A picture or None, and a prompt."""


def behind(description: str, prompt: str) -> str:
    """A prompt with a description of the image before it, in the image's place."""
    return f"{description.strip().rstrip('.')}.\n{prompt}"


def _decoded(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    combiner: Combiner,
    mode: str,
    settings: dict[str, Any],
) -> tuple[str, Any]:
    """The shared answer's text, and ``Decoded``."""
    import torch

    from hb_tta.tta.decoding import decode_jointly

    asked = calls(model, processor, [chat(*row) for row in rows], settings)
    with torch.inference_mode():
        decoded = decode_jointly(asked, combiner, mode=mode)
    return new_words(model, processor, asked, decoded.value)[0], decoded


Chat = list[dict[str, Any]]
"""Messages as transformers' chat templates take them, with Pillow images in them."""


def chat(image: Any, question: str) -> Chat:
    """One message: the picture, if there is one, and the prompt."""
    pictures = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": question}]}]


def calls(
    model: Any, processor: Any, chats: Sequence[Chat], settings: Mapping[str, Any]
) -> list[partial[Any]]:
    """Each row of a question as a call of ``model.generate``, for ``hb_tta.tta.decoding``."""
    complete(processor, model.config)
    inputs = [_inputs(model, processor, one) for one in chats]
    return [partial(model.generate, **own, **settings) for own in inputs]


def new_words(
    model: Any, processor: Any, asked: Sequence[partial[Any]], ids_RT: Tensor
) -> tuple[str, Tensor]:
    """What was decoded of the first row: its text without special tokens, and its new tokens.

    Args:
        asked: of ``calls``.
        ids_RT: what the first of them gave.
    """
    prompt = 0 if model.config.is_encoder_decoder else asked[0].keywords["input_ids"].shape[1]
    new_RT = ids_RT[:, prompt:]
    return processor.batch_decode(new_RT, skip_special_tokens=True)[0], new_RT[0]


def _answer(processor: Any, text: str, decoded: Any, told: Gated | None) -> Answer:
    words = yes_no_tokens(processor.tokenizer)
    if words is None:
        return Answer(text, [], None, told)
    return Answer(
        text,
        [yes_no(logits_K, words) for logits_K in decoded.first_logits_VRK[:, 0]],
        yes_no(decoded.first_combined_RK[0], words),
        told,
    )


def _inputs(model: Any, processor: Any, messages: Chat) -> Any:
    inputs = processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )
    return inputs.to(model.device, model.dtype)  # casts the floating-point ones alone


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
