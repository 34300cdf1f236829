"""Answers in OpenAI's form: whole, or in pieces as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from hb_tta.serve.job import Answered, Event, Stage, Words
from hb_tta.serve.refusal import Refused


class Reply:
    """The responses to one request.

    Args:
        model: its name.
    """

    def __init__(self, model: str) -> None:
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        self._head = {**about, "model": model}

    def whole(self, answered: Answered) -> dict[str, Any]:
        """The whole answer, with the field ``hb_tta``."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answered.text, "refusal": None},
            "logprobs": None,
            "finish_reason": answered.ended,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answered),
            "hb_tta": answered.about,
        }

    async def pieces(self, events: AsyncIterator[Event], usage: bool) -> AsyncIterator[bytes]:
        """A piece an event; the last one with words has the field ``hb_tta``.

        Args:
            usage: whether a piece behind it counts tokens.
        """
        told = ""
        yield self._piece({"role": "assistant", "content": ""})
        async for event in events:
            if isinstance(event, Stage):
                yield self._piece({}, hb_tta=event.about)
            elif isinstance(event, Words):
                told += event.text
                yield self._piece({"content": event.text})
            elif isinstance(event, Refused):
                yield _event(event.to_json())
            else:
                if len(told) < len(event.text):
                    yield self._piece({"content": event.text[len(told) :]})
                yield self._piece({}, event.ended, hb_tta=event.about)
                if usage:
                    yield self._piece(None, usage=_usage(event))
        yield b"data: [DONE]\n\n"

    def _piece(
        self, delta: dict[str, Any] | None, ended: str | None = None, **beside: Any
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
        choices = [] if delta is None else [choice]
        kind = {"object": "chat.completion.chunk", "choices": choices}
        return _event({**self._head, **kind, **beside})


def _usage(answered: Answered) -> dict[str, int]:
    return {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": answered.tokens,
        "total_tokens": answered.prompt_tokens + answered.tokens,
    }


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
