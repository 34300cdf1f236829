"""Getting between whoever calls ``generate`` and transformers' own.

Everything that generates text with transformers ends in ``GenerationMixin.generate``, whatever
prepared its inputs. While a thread is in a ``Session``, its calls of ``generate`` go to a handler;
without one ``generate`` is what it was.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from transformers import GenerationMixin

from hb_tta.errors import UserError

Handler = Callable[[Any, Any, dict[str, Any]], Any]
"""The model, transformers' ``generate`` and a call's arguments by name → what the call gives."""


class NeverGenerated(UserError):
    """A call that was to be decoded jointly never came to ``GenerationMixin.generate``."""

    def __init__(self) -> None:
        super().__init__(
            "the model never called transformers' generate, so its views cannot be decoded "
            "together: combine the answers instead (combine=vote, or concat)"
        )


class GeneratedTwice(UserError):
    """A call came to ``GenerationMixin.generate`` again."""

    def __init__(self) -> None:
        super().__init__(
            "the model calls generate more than once for one answer, which joint decoding cannot "
            "follow: combine the answers instead (combine=vote)"
        )


class Unwind(BaseException):
    """Leaves a caller that may swallow every ``Exception``."""


_local = threading.local()


class Session:
    """While it is entered, ``generate`` of this thread goes to a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        assert getattr(_local, "handler", None) is None, "joint decoding inside joint decoding"
        _local.handler = self._handler

    def __exit__(self, *_: object) -> None:
        _local.handler = None


def record(call: Callable[[], Any]) -> dict[str, Any]:
    """The arguments that a call comes to ``generate`` with; nothing after that runs.

    Raises:
        NeverGenerated: it does not come there.
    """
    found: list[dict[str, Any]] = []

    def keep(model: Any, original: Any, arguments: dict[str, Any]) -> Any:
        found.append(arguments)
        raise Unwind

    try:
        with Session(keep):
            call()
    except Unwind:
        pass
    if not found:
        raise NeverGenerated
    return found[0]


def _install() -> None:
    """Put the switch into ``GenerationMixin.generate``.

    It happens when this module is imported, so that a method bound after that has it.
    """
    original = GenerationMixin.generate

    @functools.wraps(original)
    def generate(self, *args, **kwargs):
        handler = getattr(_local, "handler", None)
        if handler is None:
            return original(self, *args, **kwargs)
        _local.handler = None  # what generate calls in turn is its own affair
        try:
            return handler(self, original, _arguments(original, self, args, kwargs))
        finally:
            _local.handler = handler

    GenerationMixin.generate = generate


_install()


def _arguments(original: Any, model: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call by name. None is kept: it may take a setting back."""
    bound = inspect.signature(original).bind(model, *args, **kwargs).arguments
    bound.pop("self")
    named = {**bound.pop("kwargs", {}), **bound}
    for name in ("inputs", "custom_generate"):
        if named.get(name) is None:
            named.pop(name, None)
    if "inputs" in named and named["inputs"].ndim == 2:
        named["input_ids"] = named.pop("inputs")
    return named
