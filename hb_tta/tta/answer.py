"""Test-time augmentation of an MLLM: one answer to a question from several views of its image.

    answer = hb_tta.answer(model, processor, image, question, views=augmenter(image, question))
    answer.text, answer.combined.yes - answer.combined.no

The views are decoded together (decoding.py) from their combined logits (combine.py). This works
for any transformers model and its processor, and for answers of any length.

    answer(model, processor, image, question, lambda: augmenter(image, question), gate=0.9)

asks about the image alone first, and makes views only where the model is not sure (gate.py).
``answer_many`` asks many questions at once, in batches of all their rows (together.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.processors import complete
from hb_tta.tta.combine import Combiner
from hb_tta.tta.gate import Gated, check_gate, gated, sureness
from hb_tta.tta.words import YesNo, yes_no, yes_no_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from hb_tta.tta.room import Room

Views = Sequence[Any] | Callable[[], Sequence[Any]]


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


@dataclass(frozen=True)
class Question:
    """What is asked, with the evidence for it: the attributes are arguments of ``answer``."""

    image: Any
    question: str
    views: Views = ()
    description: str | None = None
    rewordings: Sequence[str] = ()


def answer(
    model: Any,
    processor: Any,
    image: Any,
    question: str,
    views: Views = (),
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
    (found,) = answer_many(
        model,
        processor,
        [Question(image, question, views, description, rewordings)],
        gate=gate,
        combine=combine,
        real_weight=real_weight,
        mode=mode,
        **generate,
    )
    if isinstance(found, Exception):
        raise found
    return found


def answer_many(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    *,
    gate: float | None = None,
    combine: str | Combiner = "mean",
    real_weight: float = 1.0,
    mode: str = "auto",
    room: Room | None = None,
    **generate: Any,
) -> list[Answer | Exception]:
    """``answer`` for many questions at once; each gets what it would get by itself.

    Args:
        questions: any number of them, of any kinds.
        room: how many rows are decoded at a time (``hb_tta.tta.room``).
        model, processor, gate, combine, real_weight, mode, **generate: as of ``answer``.

    Returns:
        An answer each, or what ``answer`` would raise for it: no question fails for another's.

    Raises:
        UserError: the processor has no chat template, or a setting is wrong for all.
    """
    if not getattr(processor, "chat_template", None):
        raise UserError("the processor has no chat template: set processor.chat_template")
    check_gate(gate)
    complete(processor, model.config)
    combiner = combine if isinstance(combine, Combiner) else Combiner(combine, real_weight)
    settings = {"max_new_tokens": 128, **generate}
    asking = _Asking(model, processor, mode, room, settings)
    walks = [_Walk(one) for one in questions]
    for walk in walks:
        with walk.failing_alone():
            walk.look()
    if gate is not None:
        asking.decode(walks, lambda walk: [walk.plain], Combiner())
        for walk in walks:
            with walk.failing_alone():
                walk.gate(asking, gate)
    asking.decode(walks, _Walk.rows, combiner)
    for walk in walks:
        with walk.failing_alone():
            walk.outcome = walk.outcome or asking.answer(walk.decoded, walk.told)
    return [walk.outcome for walk in walks]


Row = tuple[Any, str]
"""A picture or None, and a prompt."""


def behind(description: str, prompt: str) -> str:
    """A prompt with a description of the image before it, in the image's place."""
    return f"{description.strip().rstrip('.')}.\n{prompt}"


@dataclass
class _Walk:
    """A question on its way to its answer.

    Attributes:
        outcome: what it came to, an answer or an error; None: it is on its way.
        real: the image.
        decoded: what its last rows said.
    """

    asked: Question
    outcome: Any = None
    real: Any = None
    told: Gated | None = None
    decoded: Any = None

    def look(self) -> None:
        views = self.asked.views
        if self.asked.image is not None:
            self.real = load_image(self.asked.image)
        elif callable(views) or len(views):
            told_of = "" if callable(views) else f"{len(views)} "
            raise UserError(f"{told_of}views of no image: give the image that they are views of")

    @property
    def plain(self) -> Row:
        return self.real, self.asked.question

    def rows(self) -> list[Row]:
        asked = self.asked
        shown = [
            self.real,
            *map(load_image, asked.views() if callable(asked.views) else asked.views),
        ]
        rows: list[Row] = [(e, text) for text in (asked.question, *asked.rewordings) for e in shown]
        if asked.description:
            rows.append((None, behind(asked.description, asked.question)))
        return rows

    def gate(self, asking: _Asking, gate: float) -> None:
        if self.outcome is None:
            self.told = gated(asking.sureness(self.decoded), gate)
            if not self.told.passed:
                self.outcome = asking.answer(self.decoded, self.told)

    @contextmanager
    def failing_alone(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.outcome = error


@dataclass
class _Asking:
    """A model, and how it is asked."""

    model: Any
    processor: Any
    mode: str
    room: Room | None
    settings: Mapping[str, Any]
    words: tuple[list[int], list[int]] | None = field(init=False)

    def __post_init__(self) -> None:
        self.words = yes_no_tokens(self.processor.tokenizer)

    def decode(
        self, walks: Sequence[_Walk], rows_of: Callable[[_Walk], list[Row]], combiner: Combiner
    ) -> None:
        """Ask the rows of those who have no answer yet."""
        import torch

        from hb_tta.tta.together import decode_together

        asked, going_on = [], []
        for walk in walks:
            if walk.outcome is None:
                with walk.failing_alone():
                    asked.append(self._asked(rows_of(walk), combiner))
                    going_on.append(walk)
        with torch.inference_mode():
            found = decode_together(asked, self.room, mode=self.mode)
        for walk, decoded in zip(going_on, found, strict=True):
            walk.outcome = decoded if isinstance(decoded, Exception) else None
            walk.decoded = decoded

    def _asked(self, rows: list[Row], combiner: Combiner) -> Any:
        from hb_tta.tta.together import Asked

        # Whatever the rule is to make of views, a single row has none.
        return Asked(
            [partial(self._say, *row) for row in rows], combiner if rows[1:] else Combiner()
        )

    def _say(self, image: Any, prompt: str) -> str:
        return spoken(self.model, self.processor, chat(image, prompt), self.settings).text

    def sureness(self, decoded: Any) -> float:
        first_K = decoded.first_combined_RK[0]
        return sureness(first_K, decoded.entropies, decoded.value, self.words)

    def answer(self, decoded: Any, told: Gated | None) -> Answer:
        if self.words is None:
            return Answer(decoded.value, [], None, told)
        return Answer(
            decoded.value,
            [yes_no(logits_K, self.words) for logits_K in decoded.first_logits_VRK[:, 0]],
            yes_no(decoded.first_combined_RK[0], self.words),
            told,
        )


Chat = list[dict[str, Any]]
"""Messages as transformers' chat templates take them, with Pillow images in them."""


def chat(image: Any, question: str) -> Chat:
    """One message: the picture, if there is one, and the prompt."""
    pictures = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": question}]}]


class Spoken(NamedTuple):
    """An answer.

    Attributes:
        text: without special tokens.
        tokens_T: its own, with them.
        prompt: tokens before it.
    """

    text: str
    tokens_T: Tensor
    prompt: int


def spoken(model: Any, processor: Any, messages: Chat, settings: Mapping[str, Any]) -> Spoken:
    """What a model answers to messages: a call for ``hb_tta.tta.decoding`` and ``together``."""
    inputs = _inputs(model, processor, messages)
    ids_RT = model.generate(**inputs, **settings)
    prompt = inputs["input_ids"].shape[1]
    new_RT = ids_RT if model.config.is_encoder_decoder else ids_RT[:, prompt:]
    return Spoken(processor.batch_decode(new_RT, skip_special_tokens=True)[0], new_RT[0], prompt)


def _inputs(model: Any, processor: Any, messages: Chat) -> Any:
    inputs = processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )
    return inputs.to(model.device, model.dtype)  # casts the floating-point ones alone
