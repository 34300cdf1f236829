"""The views of a harness's questions: made before the first answer, then read back one by one.

What is made stays in the store, so that a few questions at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from hb_tta.integrations.parking import Parking
from hb_tta.integrations.rows import Evidence
from hb_tta.settings.augmented import DESCRIBE, AugmentSettings

CHUNK = 512
"""Questions whose images are in memory at a time."""

T = TypeVar("T")


def chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def make(
    settings: AugmentSettings,
    contexts: Sequence[Any],
    parking: Parking,
    progress: bool | None = None,
) -> None:
    """Have the store hold all that contexts are shown with.

    Args:
        parking: of the model that answers; it makes room where a model is to work.
        progress: as of ``Augmenter.make``.
    """
    describes = settings.combining.combine == DESCRIBE
    if parking.has_something and (settings.n or describes) and _misses(settings, contexts):
        parking.park()
    if settings.n:
        settings.augmenter.make(contexts, **_number(settings), progress=progress)
    elif describes:
        settings.augmenter.descriptions(contexts, progress=progress)


def evidence(
    settings: AugmentSettings,
    questions: Iterable[Any],
    contexts: Sequence[Any],
    kind: type[Evidence] = Evidence,
) -> Iterator[Evidence]:
    """Questions, and what the store has for each image that they show, in order.

    Args:
        contexts: of all their images.
        kind: how rows are made of it.
    """
    made: Iterator[Any] = iter(())
    told: Iterator[Any] = iter(())
    if settings.n:
        made = settings.augmenter.iter_augment(contexts, **_number(settings), progress=False)
    if settings.combining.combine == DESCRIBE:
        told = iter(settings.augmenter.descriptions(contexts, progress=False))
    for question in questions:
        number = len(question.shown)
        yield kind(question, list(islice(made, number)), list(islice(told, number)))


def _number(settings: AugmentSettings) -> dict[str, Any]:
    return {"n": settings.views.n, "seed": settings.views.seed}


def _misses(settings: AugmentSettings, contexts: Sequence[Any]) -> bool:
    """Whether a description, or a view that is shown, is still to be made."""
    if settings.n:
        return settings.augmenter.lacks(contexts, **_number(settings))
    return None in settings.augmenter.view_keys(contexts, **_number(settings))
