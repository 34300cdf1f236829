"""One odd image takes no others with it: what a model will not take together is asked for alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hb_tta.errors import UserError

FAULTS = (ValueError, RuntimeError, IndexError, ZeroDivisionError)
"""What the libraries raise at an image that they refuse; memory's end is a sentence before that."""

T = TypeVar("T")
R = TypeVar("R")


def apart(
    items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[R]], who: str
) -> list[R | UserError]:
    """The answers to all items, asked together; where that fails, one after the other.

    Args:
        items: none of them is looked at here.
        ask: gives an answer an item.
        who: is asked, as in "the describer".

    Returns:
        For an item that is refused alone, too, the sentence that says so.
    """
    if not items:
        return []
    try:
        return list(ask(items))
    except FAULTS as error:
        if len(items) == 1:
            reason = " ".join(str(error).split())[:200]
            return [UserError(f"{who} refuses the image ({type(error).__name__}: {reason})")]
    return [answer for item in items for answer in apart([item], ask, who)]


def tried(items: Sequence[T], read: Callable[[T], R]) -> list[R | UserError]:
    """What is read of each item, or the sentence that says why it cannot be."""
    found: list[R | UserError] = []
    for item in items:
        try:
            found.append(read(item))
        except UserError as error:
            found.append(error)
    return found
