"""The ways to answer: from the rows of many questions to what is said of each.

What a backend gives decides which of them there are (``check``): logits, where transformers
generates in this process; log-probabilities of prompts, where an engine says them (scoring.py); or
texts alone. None takes another's place: what cannot be done is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from lmms_eval.api.instance import GenerationResult, unwrap_generation_output

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.rows import Evidence
from hb_tta.integrations.lmms_eval.scoring import batches_itself, is_hosted, scorer_of
from hb_tta.integrations.lmms_eval.view_counts import ViewCounts
from hb_tta.integrations.settings import CONCAT, DESCRIBE, RESCORE, VOTE, AugmentSettings
from hb_tta.tta.combine import Combiner
from hb_tta.tta.gate import sureness
from hb_tta.tta.rescore import Dispute, Rescored, proposals, rescore
from hb_tta.tta.room import Room, by_rows
from hb_tta.tta.vote import vote

TEXTS_AT_ONCE = 128
"""Questions whose requests are in flight together: hundreds of rows keep any engine busy."""
_FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
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


def way_for(backend: Any, settings: AugmentSettings) -> Way:
    """The way to generate answers that the settings ask for."""
    ways: dict[str, Callable[[Any, AugmentSettings], Way]] = {VOTE: Votes, RESCORE: Rescores}
    if settings.combining.combine == CONCAT and not holds_model(backend):
        return Texts(backend, settings)
    return ways.get(settings.combining.combine, Joint)(backend, settings)


def way_of_likelihoods(settings: AugmentSettings) -> Way:
    """The way to compare choices.

    Raises:
        UserError: the settings' rule has no meaning for likelihoods.
    """
    if settings.combining.combine not in ("mean", DESCRIBE, CONCAT):
        raise UserError(
            f"combine={settings.combining.combine} has no meaning for multiple-choice tasks that "
            "compare likelihoods: use combine=mean"
        )
    return Likelihoods(settings)


class _Asking:
    """What the ways have in common."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.failed = 0
        self._settings = settings

    def check(self, backend: Any) -> None:
        pass

    def rows(self, evidence: Evidence) -> Rows:
        combining = self._settings.combining
        if combining.combine == CONCAT:
            return evidence.together()
        return evidence.requests(combining)

    def _combiner(self, rows: Rows) -> Combiner:
        """Of the real image alone nothing is to be combined, whatever the rule."""
        return self._settings.combining.combiner if len(rows) > 1 else Combiner()

    def _record(self, text: Any, mode: str, **more: Any) -> dict[str, Any]:
        combine = self._settings.combining.combine
        return {"answer": text, "mode": mode, "combine": combine, **more}


class Joint(_Asking):
    """All rows are decoded together from their combined logits, many questions in a batch."""

    def __init__(self, backend: Any, settings: AugmentSettings) -> None:
        super().__init__(settings)
        self._tokenizer = tokenizer_of(backend)
        self._words: Any = None
        if self._tokenizer is not None:
            from hb_tta.tta.words import yes_no_tokens

            self._words = yes_no_tokens(self._tokenizer)
        self._room = Room()

    def check(self, backend: Any) -> None:
        if is_hosted(backend):
            other = "combine=rescore, vote or concat" if scorer_of(backend) else "combine=vote"
            raise UserError(
                f"combine={self._settings.combining.combine} needs a model's logits, and "
                f"{type(backend).__mro__[2].__name__} gives none: use {other}"
            )

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        at_once = self._settings.at_once
        return by_rows(items, rows, self._room.rows) if at_once is None else _few(items, at_once)

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        from hb_tta.tta.together import Asked, decode_together

        asked = [
            Asked([lambda row=row: own([row])[0] for row in rows], self._combiner(rows))
            for rows in questions
        ]
        if self._settings.at_once is not None:  # it is the person who says what fits
            self._room.rows = max(self._room.rows, sum(map(len, questions)))
        found = decode_together(asked, self._room)
        return [its if isinstance(its, Exception) else self._said(its) for its in found]

    def _said(self, decoded: Any) -> Said:
        from hb_tta.tta.words import first_token, yes_no

        text, counts = unwrap_generation_output(decoded.value)
        record = self._record(text, decoded.mode, views=[])
        if self._words is not None:
            *views, combined = [
                {
                    **yes_no(logits_K, self._words)._asdict(),
                    **first_token(logits_K, self._tokenizer),
                }
                for logits_K in [*decoded.first_logits_VRK[:, 0], decoded.first_combined_RK[0]]
            ]
            record |= {"views": views, "combined": combined}
        p = sureness(decoded.first_combined_RK[0], decoded.entropies, str(text), self._words)
        return Said(lambda record: _with_record(text, counts, record), record, p)


class Texts(_Asking):
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
        return _few(items, self._settings.at_once or TEXTS_AT_ONCE)

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
        views = [{} if is_failure(text) else {"answer": text} for text in texts]
        record = self._record(texts[place], mode, views=views, **more)
        missing = [number for number, text in enumerate(texts) if is_failure(text)]
        if missing:
            record["failed"] = missing
        return Said(lambda record: _with_record(texts[place], counts[place], record), record)


class Votes(Texts):
    """Each row answers, and the answers vote; rows whose request failed have no vote."""

    def _one(self, texts: list[str], counts: list[Any]) -> Said:
        heard = _heard(texts)
        weight = self._settings.combining.real_weight if heard[0] == 0 else 1.0
        place = heard[vote([texts[place] for place in heard], weight)]
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
            heard = _heard(texts)
            proposed = proposals([texts[row] for row in heard])
            if len(proposed) > 1:
                weights = [1.0 if row else self._settings.combining.real_weight for row in heard]
                disputes[place] = Dispute([rows[row] for row in heard], weights, proposed)
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
        heard = _heard(texts)
        if isinstance(found, Exception):
            return found
        if dispute is None or found is None:
            return self._chosen(heard[0], texts, counts, RESCORE)
        answer = dispute.proposals[found.best].strip()
        place = next(place for place in heard if texts[place].strip() == answer)
        more = {"proposals": dispute.proposals, "scores": found.combined}
        said = self._chosen(place, texts, counts, RESCORE, **more)
        for place, its in zip(heard, found.of_views, strict=True):
            said.record["views"][place]["scores"] = its
        return said


class Likelihoods(_Asking):
    """The mean of the rows' values for a choice."""

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        return _few(items, self._settings.at_once or 1)

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        return [self._one(rows, own) for rows in questions]

    def _one(self, rows: Rows, own: Own) -> Said | Exception:
        import torch

        try:
            values, greedy = zip(*own(rows), strict=True)
        except Exception as error:
            return error
        combined = self._combiner(rows)(torch.tensor(values, dtype=torch.float64)[:, None])
        about = {"choice": str(rows[0].args[1]), "views": list(values)}
        record = self._record(combined.item(), "loglikelihood", **about)
        return Said((combined.item(), all(greedy)), record)


def is_failure(text: Any) -> bool:
    """Whether a text is no answer: lmms-eval's own mark for a request that it gave up on."""
    return isinstance(text, str) and text.startswith(_FAILED)


def holds_model(backend: Any) -> bool:
    """Whether a backend has a model in this process, whose logits can be had."""
    from torch.nn import Module

    return any(isinstance(value, Module) for value in vars(backend).values())


def _heard(texts: Sequence[str]) -> list[int]:
    """The rows that have a say: of requests that all failed the first, for its text."""
    return [place for place, text in enumerate(texts) if not is_failure(text)] or [0]


def tokenizer_of(backend: Any) -> Any:
    """A backend's tokenizer, wherever it keeps it; None for one that has none."""
    for name in ("tokenizer", "_tokenizer", "processor", "_processor", "_image_processor"):
        try:
            found = getattr(backend, name, None)
        except (NotImplementedError, AssertionError):
            continue
        found = getattr(found, "tokenizer", found)
        if callable(getattr(found, "encode", None)) and callable(getattr(found, "decode", None)):
            return found
    return None


def _few(items: Iterable[T], most: int) -> Iterator[list[T]]:
    return by_rows(items, lambda _: 1, most)


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


def _with_record(text: Any, counts: Any, record: dict[str, Any]) -> GenerationResult:
    return GenerationResult(text, ViewCounts.of(counts, record))
