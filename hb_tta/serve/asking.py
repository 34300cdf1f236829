"""What a backend is asked, and what it says: the line between the server and whoever answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from hb_tta.serve.chat import Decoding
from hb_tta.serve.conversation import Conversation, Row
from hb_tta.serve.job import STOP
from hb_tta.settings.augmented import Combining


class Question(NamedTuple):
    """Rows that are answered together.

    Attributes:
        conversation: what the rows are of.
        rows: the real images and the question's own words first.
        combining: how one answer is made of them.
        decoding: of the answer.
        words: is told the answer as it grows; None: nobody listens.
        over: whether nobody waits for the answer any more.
    """

    conversation: Conversation
    rows: Sequence[Row]
    combining: Combining
    decoding: Decoding
    words: Callable[[str], None] | None
    over: Callable[[], bool]


class Said(NamedTuple):
    """An answer.

    Attributes:
        text: its words.
        answers: what each row says, plain JSON.
        combined: what they say together, plain JSON; None: no more than the text.
        p: how sure the model is, where it is known.
        ended: ``STOP`` or ``LENGTH``.
        prompt_tokens, tokens: of the first row, and of the answer.
    """

    text: str
    answers: Sequence[dict[str, Any]]
    combined: dict[str, Any] | None = None
    p: float | None = None
    ended: str = STOP
    prompt_tokens: int = 0
    tokens: int = 0


class Backend(Protocol):
    """Whoever answers.

    Attributes:
        names: that clients may call it by; the first is told.
        combines: how it can combine views, the usual way first.
        elsewhere: whether it works on another machine, so that others can be asked meanwhile.
    """

    names: tuple[str, ...]
    combines: tuple[str, ...]
    elsewhere: bool

    def ask(self, questions: Sequence[Question]) -> Sequence[Said | Exception]:
        """What each question came to: one that fails takes no other with it."""
        ...
