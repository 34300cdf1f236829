"""From the rows of questions to their answers, by what a model gives.

None takes another's place: what a model cannot do is refused, before anything is generated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from hb_tta.errors import UserError
from hb_tta.integrations.asking import Asking, Jointly, elected, few, heard, views_of_texts
from hb_tta.integrations.rows import Evidence
from hb_tta.integrations.scores import holds_model
from hb_tta.integrations.vlmevalkit.questions import Message
from hb_tta.settings.augmented import CONCAT, VOTE, AugmentSettings

Own = Callable[[Message], Any]
T = TypeVar("T")


class Said(NamedTuple):
    """What a question's rows said: its answer, plain JSON of it, and how sure the model is."""

    text: str
    record: dict[str, Any]
    p: float | None = None


class Way(Protocol):
    """A way to answer.

    Attributes:
        failed: requests that a model gave up on, so far.
    """

    failed: int

    def check(self) -> None:
        """Raises UserError where the model is known not to give what is needed."""
        ...

    def rows(self, evidence: Evidence) -> list[Message]:
        """What is asked of a question, the real image first."""
        ...

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        """Questions that are asked at once; ``rows`` says how many one has."""
        ...

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        """Ask them; one that fails, fails alone."""
        ...


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


class Joint(Jointly):
    """See ``Jointly``."""

    def __init__(self, model: Any, own: Own, settings: AugmentSettings) -> None:
        super().__init__(model, settings)
        self._model, self._own = model, own

    def check(self) -> None:
        if not holds_model(self._model):
            raise UserError(
                f"combine={self._settings.combining.combine} needs a model's logits, and "
                f"{_name(self._model)} gives none: use combine=vote or concat"
            )

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        found = self.decoded(
            [partial(self._own, copy.deepcopy(row)) for row in rows] for rows in questions
        )
        return [its if isinstance(its, Exception) else self._said(its) for its in found]

    def _said(self, decoded: Any) -> Said:
        text = str(decoded.value)
        record = self.record(text, decoded.mode, **self.scores.record(decoded))
        return Said(text, record, self.scores.sure(decoded, text))


class Texts(Asking):
    """Each row answers, and the answers vote; or one row shows all pictures.

    Rows of an API are asked at the same time. One that it gave up on has no vote.
    """

    def __init__(self, model: Any, own: Own, settings: AugmentSettings) -> None:
        super().__init__(settings)
        self._model, self._own = model, own

    def check(self) -> None:
        views = self._settings.views
        if views.gate is not None or views.gate_share is not None:
            raise UserError(
                f"a gate needs probabilities, and {_name(self._model)} gives texts alone: use "
                "gate=none"
            )

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        return few(items, self._settings.at_once or 1)

    def say(self, questions: Sequence[list[Message]]) -> list[Said | Exception]:
        return [self._one(rows) for rows in questions]

    def _one(self, rows: list[Message]) -> Said | Exception:
        try:
            texts = self._asked([copy.deepcopy(row) for row in rows])
        except Exception as error:
            return error
        self.failed += sum(map(self._is_failure, texts))
        combining = self._settings.combining
        chosen = elected(texts, heard(texts, self._is_failure), combining.real_weight)
        views = views_of_texts(texts, self._is_failure)
        return Said(texts[chosen], self.record(texts[chosen], combining.combine, **views))

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
