"""One odd image takes no others with it: what a model will not take together is asked for alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from hb_tta.context import DescribedContext, MultimodalContext
from hb_tta.errors import UserError

FAULTS = (ValueError, RuntimeError, IndexError, ZeroDivisionError)
"""What the libraries raise at an image that they refuse; memory's end is a sentence before that."""

T = TypeVar("T")
R = TypeVar("R")


def apart(
    items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[R]], who: str
) -> list[R | UserError]:
    """The answers to all items, asked together; where that fails, one after the other.

    Where none is taken, an ordinary image in the first one's place tells an odd image from a bug.

    Args:
        items: images, or contexts or tuples that hold one.
        ask: gives an answer an item.
        who: is asked, as in "the describer".

    Returns:
        For an item that is refused alone, too, the sentence that says so.

    Raises:
        Exception: of ``ask``, where it takes no image at all.
    """
    if not items:
        return []
    try:
        return list(ask(items))
    except FAULTS:
        answers = [_alone(item, ask) for item in items]
    faults = [answer for answer in answers if isinstance(answer, _Fault)]
    if len(faults) == len(answers):
        _check_that_it_works(items[0], ask, faults[0].error)
    return [_refusal(one.error, who) if isinstance(one, _Fault) else one for one in answers]


class _Fault(NamedTuple):
    error: Exception


def _alone(item: T, ask: Callable[[Sequence[T]], Sequence[R]]) -> R | _Fault:
    try:
        return ask([item])[0]
    except FAULTS as error:
        return _Fault(error)


def _check_that_it_works(
    item: T, ask: Callable[[Sequence[T]], Sequence[R]], error: Exception
) -> None:
    try:
        ask([_ordinary(item)])
    except FAULTS:
        raise error from None


def _ordinary(item: Any) -> Any:
    """The same with a plain square in place of every image."""
    if isinstance(item, Image.Image):
        return Image.new("RGB", (224, 224), "gray")
    if isinstance(item, DescribedContext):
        return item._replace(image=_ordinary(item.image))
    if isinstance(item, MultimodalContext):
        return replace(item, image=_ordinary(item.image))
    return tuple(map(_ordinary, item)) if isinstance(item, tuple) else item


def _refusal(error: Exception, who: str) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{who} refuses the image ({type(error).__name__}: {reason})")


def tried(items: Sequence[T], read: Callable[[T], R]) -> list[R | UserError]:
    """What is read of each item, or the sentence that says why it cannot be."""
    found: list[R | UserError] = []
    for item in items:
        try:
            found.append(read(item))
        except UserError as error:
            found.append(error)
    return found
