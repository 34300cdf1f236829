"""From the rows of questions to answers: what the ways of every harness have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hb_tta.integrations.rows import Evidence
from hb_tta.integrations.scores import Scores
from hb_tta.settings.augmented import CONCAT, AugmentSettings
from hb_tta.tta.combine import Combiner
from hb_tta.tta.room import Room, by_rows
from hb_tta.tta.vote import vote

if TYPE_CHECKING:
    from hb_tta.tta.decoding import Decoded

T = TypeVar("T")


class Asking:
    """What is asked of a question, and how its record begins.

    Attributes:
        failed: requests that the model gave up on, so far.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        self.failed = 0
        self._settings = settings

    def rows(self, evidence: Evidence) -> list[Any]:
        """A harness's requests, the real image first."""
        combining = self._settings.combining
        if combining.combine == CONCAT:
            return evidence.together()
        return evidence.requests(combining)

    def combiner(self, rows: Sequence[Any]) -> Combiner:
        """Of the real image alone nothing is to be combined, whatever the rule."""
        return self._settings.combining.combiner if len(rows) > 1 else Combiner()

    def record(self, text: Any, mode: str, **more: Any) -> dict[str, Any]:
        """What was answered, and how, as plain JSON."""
        combine = self._settings.combining.combine
        return {"answer": text, "mode": mode, "combine": combine, **more}


class Jointly(Asking):
    """All rows are decoded together from their combined logits, many questions in a batch.

    Args:
        holder: a harness's wrapper of a model, see scores.py.
        settings: of the augmentation.
    """

    def __init__(self, holder: Any, settings: AugmentSettings) -> None:
        super().__init__(settings)
        self.scores = Scores(holder)
        # Where the person says how many, it is they who say what fits.
        self._room = Room() if settings.at_once is None else Room(sys.maxsize)

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        """Questions that are asked at once; ``rows`` says how many one has."""
        at_once = self._settings.at_once
        return by_rows(items, rows, self._room.rows) if at_once is None else few(items, at_once)

    def decoded(
        self, questions: Iterable[Sequence[Callable[[], Any]]]
    ) -> list[Decoded | Exception]:
        """What each question's calls, one a row, come to; one that fails, fails alone."""
        from hb_tta.tta.together import Asked, decode_together

        asked = [Asked(calls, self.combiner(calls)) for calls in questions]
        return decode_together(asked, self._room)


def few(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """The items in order, ``most`` at a time."""
    return by_rows(items, lambda _: 1, most)


def heard(texts: Sequence[str], is_failure: Callable[[str], bool]) -> list[int]:
    """The rows that have a say: of requests that all failed the first, for its text."""
    return [place for place, text in enumerate(texts) if not is_failure(text)] or [0]


def elected(texts: Sequence[str], places: Sequence[int], real_weight: float) -> int:
    """The row whose answer those of ``places`` vote for."""
    weight = real_weight if places[0] == 0 else 1.0
    return places[vote([texts[place] for place in places], weight)]


def views_of_texts(texts: Sequence[str], is_failure: Callable[[str], bool]) -> dict[str, Any]:
    """What a record says of rows that are known by their texts alone, and which of them failed."""
    failed = [place for place, text in enumerate(texts) if is_failure(text)]
    views = [{} if place in failed else {"answer": text} for place, text in enumerate(texts)]
    return {"views": views, "failed": failed} if failed else {"views": views}
