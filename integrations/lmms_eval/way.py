"""What a way to answer is: from the rows of many questions to what is said of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from lmms_eval.api.instance import GenerationResult

from hb_tta.integrations.lmms_eval.view_counts import ViewCounts
from hb_tta.integrations.rows import Evidence

Own = Callable[[list[Any]], list[Any]]
Rows = list[Any]
T = TypeVar("T")


class Said(NamedTuple):
    """What a question's rows said.

    Attributes:
        value: what lmms-eval is given, or a function of the record that gives it.
        record: plain JSON.
        p: how sure the model is of it; None: not known, or not before other requests are answered.
    """

    value: Any
    record: dict[str, Any]
    p: float | None = None


class Way(Protocol):
    """A way to answer.

    Attributes:
        failed: requests that the backend gave up on, so far.
    """

    failed: int

    def check(self, backend: Any) -> None:
        """Raises UserError where the backend is known not to give what it needs."""
        ...

    def rows(self, evidence: Evidence) -> Rows:
        """What is asked of a question, the real image first."""
        ...

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        """Questions that are asked at once; ``rows`` says how many one has."""
        ...

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        """Ask them; one that fails, fails alone."""
        ...


def with_record(text: Any, counts: Any, record: dict[str, Any]) -> GenerationResult:
    return GenerationResult(text, ViewCounts.of(counts, record))
