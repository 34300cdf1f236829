"""A question on its way through the worker, and what becomes of it, told as it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hb_tta.serve.chat import Decoding
from hb_tta.serve.conversation import Conversation
from hb_tta.serve.refusal import Refused
from hb_tta.settings.augmented import AugmentSettings

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Stage:
    """What was done before the answer: plain JSON, with its name as ``stage``."""

    about: dict[str, Any]


@dataclass(frozen=True)
class Words:
    """The next words of the answer."""

    text: str


@dataclass(frozen=True)
class Answered:
    """The end.

    Attributes:
        text: the whole answer.
        about: the response's field ``hb_tta``.
        ended: ``STOP`` or ``LENGTH``.
        prompt_tokens, tokens: of the question without views, and of the answer.
    """

    text: str
    about: dict[str, Any]
    ended: str = STOP
    prompt_tokens: int = 0
    tokens: int = 0


Event = Stage | Words | Answered | Refused


@dataclass(eq=False)
class Job:
    """A question.

    Attributes:
        conversation, decoding: see there.
        settings: of its views; None: a plain answer.
        pictures, progress, stream: see ``hb_tta.serve.chat.Wish``.
        seconds: until nobody waits for the answer any more.
        tell: is given each event, from any thread; the last one is Answered or Refused.
        ended: whether it was.
        cancelled: set when the client has gone.
        begun: when it came.
    """

    conversation: Conversation
    decoding: Decoding
    settings: AugmentSettings | None
    tell: Callable[[Event], None]
    seconds: float
    pictures: bool = False
    progress: bool = False
    stream: bool = False
    ended: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled.is_set() or time.monotonic() - self.begun > self.seconds

    def end(self, event: Answered | Refused) -> None:
        """Tell what became of it; whatever is told later says nothing."""
        if not self.ended:
            self.ended = True
            self.tell(event)

    def stage(self, name: str, **about: Any) -> None:
        """Tell of something that was done, if that is asked for."""
        if self.progress:
            self.tell(Stage({"stage": name, **about}))
