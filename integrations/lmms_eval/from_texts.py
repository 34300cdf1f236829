"""The ways to answer where a backend gives texts, and perhaps scores of prompts.

A request that the backend gave up on has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lmms_eval.api.instance import unwrap_generation_output

from hb_tta.errors import UserError
from hb_tta.integrations.asking import Asking, T, elected, few, heard, views_of_texts
from hb_tta.integrations.lmms_eval.scoring import batches_itself, is_hosted, scorer_of
from hb_tta.integrations.lmms_eval.way import Own, Rows, Said, with_record
from hb_tta.settings.augmented import RESCORE, VOTE, AugmentSettings
from hb_tta.tta.rescore import Dispute, Rescored, proposals, rescore

TEXTS_AT_ONCE = 128
"""Questions whose requests are in flight together: hundreds of rows keep any engine busy."""
_FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")


class Texts(Asking):
    """One row a question, and its text: the pictures are all in one prompt."""

    def __init__(self, backend: Any, settings: AugmentSettings) -> None:
        super().__init__(settings)
        self._backend = backend

    def check(self, backend: Any) -> None:
        views = self._settings.views
        if views.gate is not None or views.gate_share is not None:
            raise UserError(
                f"a gate needs probabilities, and {type(backend).__mro__[2].__name__} gives texts "
                "alone: use gate=none"
            )

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        return few(items, self._settings.at_once or TEXTS_AT_ONCE)

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        return [self._one(texts, counts) for texts, counts in self._texts(questions, own)]

    def _texts(self, questions: Sequence[Rows], own: Own) -> Iterator[tuple[list[str], list[Any]]]:
        """What each question's rows say: the requests of all are the backend's at once."""
        flat = [row for rows in questions for row in rows]
        with _in_flight(self._backend, len(flat)):
            found = iter([unwrap_generation_output(one) for one in own(flat)])
        for rows in questions:
            said = [next(found) for _ in rows]
            self.failed += sum(is_failure(text) for text, _ in said)
            yield [text for text, _ in said], [counts for _, counts in said]

    def _one(self, texts: list[str], counts: list[Any]) -> Said:
        return self._chosen(0, texts, counts, self._settings.combining.combine)

    def _chosen(
        self, place: int, texts: list[str], counts: list[Any], mode: str, **more: Any
    ) -> Said:
        views = views_of_texts(texts, is_failure)
        record = self.record(texts[place], mode, **views, **more)
        return Said(lambda record: with_record(texts[place], counts[place], record), record)


class Votes(Texts):
    """Each row answers, and the answers vote; rows whose request failed have no vote."""

    def _one(self, texts: list[str], counts: list[Any]) -> Said:
        places = heard(texts, is_failure)
        place = elected(texts, places, self._settings.combining.real_weight)
        return self._chosen(place, texts, counts, VOTE)


class Rescores(Texts):
    """Each row proposes an answer, and all rows score what was proposed."""

    def check(self, backend: Any) -> None:
        if scorer_of(backend) is None:
            other = (
                "vote or concat" if is_hosted(backend) else "mean, which is the same from logits"
            )
            raise UserError(
                "combine=rescore needs log-probabilities of prompts, which "
                f"{type(backend).__mro__[2].__name__} does not give: use combine={other}"
            )

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        score = scorer_of(self._backend)
        assert score is not None, "it was checked"
        said = list(self._texts(questions, own))
        disputes: dict[int, Dispute] = {}
        for place, (rows, (texts, _)) in enumerate(zip(questions, said, strict=True)):
            places = heard(texts, is_failure)
            proposed = proposals([texts[row] for row in places])
            if len(proposed) > 1:
                weights = [1.0 if row else self._settings.combining.real_weight for row in places]
                disputes[place] = Dispute([rows[row] for row in places], weights, proposed)
        rescored = dict(zip(disputes, rescore(list(disputes.values()), score), strict=True))
        return [
            self._scored(texts, counts, disputes.get(place), rescored.get(place))
            for place, (texts, counts) in enumerate(said)
        ]

    def _scored(
        self,
        texts: list[str],
        counts: list[Any],
        dispute: Dispute | None,
        found: Rescored | Exception | None,
    ) -> Said | Exception:
        places = heard(texts, is_failure)
        if isinstance(found, Exception):
            return found
        if dispute is None or found is None:
            return self._chosen(places[0], texts, counts, RESCORE)
        answer = dispute.proposals[found.best].strip()
        place = next(place for place in places if texts[place].strip() == answer)
        more = {"proposals": dispute.proposals, "scores": found.combined}
        said = self._chosen(place, texts, counts, RESCORE, **more)
        for place, its in zip(places, found.of_views, strict=True):
            said.record["views"][place]["scores"] = its
        return said


def is_failure(text: Any) -> bool:
    """Whether a text is no answer: lmms-eval's own mark for a request that it gave up on."""
    return isinstance(text, str) and text.startswith(_FAILED)


@contextmanager
def _in_flight(backend: Any, rows: int) -> Iterator[None]:
    """An engine that takes ``batch_size`` requests at a time gets all: it batches them itself."""
    if not batches_itself(backend):
        yield
        return
    own = backend.batch_size_per_gpu
    backend.batch_size_per_gpu = max(own, rows)
    try:
        yield
    finally:
        backend.batch_size_per_gpu = own
