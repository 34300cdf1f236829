"""From the rows of questions to their answers, by what a model gives.

None takes another's place: what a model cannot do is refused, before anything is generated.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from hb_tta.errors import UserError
from hb_tta.integrations.rows import Evidence
from hb_tta.integrations.scores import Scores, holds_model
from hb_tta.integrations.vlmevalkit.questions import Message
from hb_tta.settings.augmented import CONCAT, VOTE, AugmentSettings
from hb_tta.tta.combine import Combiner
from hb_tta.tta.room import Room, by_rows
from hb_tta.tta.vote import vote

Own = Callable[[Message], Any]
T = TypeVar("T")


class Said(NamedTuple):
    """What a question's rows said: its answer, plain JSON of it, and how sure the model is."""

    text: str
    record: dict[str, Any]
    p: float | None = None


class Way:
    """What the ways have in common.

    Attributes:
        failed: requests that a model gave up on, so far.
    """

    def __init__(self, model: Any, own: Own, settings: AugmentSettings) -> None:
        self.failed = 0
        self._model, self._own, self._settings = model, own, settings

    def check(self) -> None:
        """Raises UserError where the model is known not to give what is needed."""

    def rows(self, evidence: Evidence) -> list[Message]:
        """What is asked of a question, the real image first."""
        combining = self._settings.combining
        if combining.combine == CONCAT:
            return evidence.together()
        return evidence.requests(combining)

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        """Questions that are asked at once; ``rows`` says how many one has."""
        return by_rows(items, lambda _: 1, self._settings.at_once or 1)

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        """Ask them; one that fails, fails alone."""
        raise NotImplementedError

    def record(self, text: str, mode: str, **more: Any) -> dict[str, Any]:
        combine = self._settings.combining.combine
        return {"answer": text, "mode": mode, "combine": combine, **more}


def way_for(model: Any, own: Own, settings: AugmentSettings) -> Way:
    """The way that the settings ask for, checked.

    Raises:
        UserError: the model cannot go it.
    """
    combine = settings.combining.combine
    texts = combine == VOTE or (combine == CONCAT and not holds_model(model))
    way: Way = (Texts if texts else Joint)(model, own, settings)
    way.check()
    if combine == CONCAT and not getattr(model, "INTERLEAVE", False):
        raise UserError(
            f"combine=concat needs a model of several pictures, and {_name(model)} looks at the "
            "first alone: use another combine"
        )
    return way


def _name(model: Any) -> str:
    return type(model).__name__


class Joint(Way):
    """All rows are decoded together from their combined logits, many questions in a batch."""

    def __init__(self, model: Any, own: Own, settings: AugmentSettings) -> None:
        super().__init__(model, own, settings)
        self._scores = Scores(model)
        # Where the person says how many, it is they who say what fits.
        self._room = Room() if settings.at_once is None else Room(sys.maxsize)

    def check(self) -> None:
        if not holds_model(self._model):
            raise UserError(
                f"combine={self._settings.combining.combine} needs a model's logits, and "
                f"{_name(self._model)} gives none: use combine=vote or concat"
            )

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        if self._settings.at_once is None:
            return by_rows(items, rows, self._room.rows)
        return super().batches(items, rows)

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        from hb_tta.tta.together import Asked, decode_together

        asked = []
        for rows in questions:
            combiner = self._settings.combining.combiner if len(rows) > 1 else Combiner()
            calls = [partial(self._own, copy.deepcopy(row)) for row in rows]
            asked.append(Asked(calls, combiner))
        found = decode_together(asked, self._room)
        return [its if isinstance(its, Exception) else self._said(its) for its in found]

    def _said(self, decoded: Any) -> Said:
        text = str(decoded.value)
        record = self.record(text, decoded.mode, **self._scores.record(decoded))
        return Said(text, record, self._scores.sure(decoded, text))


class Texts(Way):
    """Each row answers, and the answers vote; or one row shows all pictures.

    Rows of an API are asked at the same time. One that it gave up on has no vote.
    """

    def check(self) -> None:
        views = self._settings.views
        if views.gate is not None or views.gate_share is not None:
            raise UserError(
                f"a gate needs probabilities, and {_name(self._model)} gives texts alone: use "
                "gate=none"
            )

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        return [self._one(rows) for rows in questions]

    def _one(self, rows: list[Message]) -> Said | Exception:
        try:
            texts = self._asked([copy.deepcopy(row) for row in rows])
        except Exception as error:
            return error
        failed = [place for place, text in enumerate(texts) if self._is_failure(text)]
        self.failed += len(failed)
        heard = [place for place in range(len(texts)) if place not in failed] or [0]
        weight = self._settings.combining.real_weight if heard[0] == 0 else 1.0
        chosen = heard[vote([texts[place] for place in heard], weight)]
        views = [{} if place in failed else {"answer": text} for place, text in enumerate(texts)]
        more = {"failed": failed} if failed else {}
        combine = self._settings.combining.combine
        return Said(texts[chosen], self.record(texts[chosen], combine, views=views, **more))

    def _asked(self, rows: list[Message]) -> list[str]:
        if getattr(self._model, "is_api", False):
            with ThreadPoolExecutor(len(rows)) as pool:
                return [_text(said) for said in pool.map(self._own, rows)]
        return [_text(self._own(row)) for row in rows]

    def _is_failure(self, text: str) -> bool:
        """Whether a text is VLMEvalKit's mark for a request that it gave up on."""
        mark = getattr(self._model, "fail_msg", None)
        return bool(mark) and str(mark) in text


def _text(said: Any) -> str:
    """An answer's text; some APIs give more with it."""
    return str(said["prediction"] if isinstance(said, dict) else said)
