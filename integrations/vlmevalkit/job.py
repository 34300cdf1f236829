"""A model's work on a data set: views for all questions, then the answers, a batch at a time.

VLMEvalKit asks for one answer after the other, and keeps them; a batch is answered when the first
of its questions is asked.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from hb_tta.errors import HbTtaWarning
from hb_tta.integrations.failure import AugmentationFailed, stopping
from hb_tta.integrations.making import chunks, evidence, make
from hb_tta.integrations.parking import Parking
from hb_tta.integrations.rows import Evidence
from hb_tta.integrations.sidecar import Sidecar
from hb_tta.integrations.vlmevalkit.questions import Message, Question, files, key_of
from hb_tta.integrations.vlmevalkit.ways import Said, Way
from hb_tta.progress import progress
from hb_tta.settings.augmented import CONCAT, AugmentSettings
from hb_tta.tta.gate import Gated, decide

IDENTITY = ("index",)
"""Tells one question of a data set from another, in the sidecar's lines."""

Own = Callable[[Message], Any]


@dataclass(eq=False)
class _Asked:
    question: Question
    evidence: Evidence
    rows: list[Message] = field(default_factory=list)


class Job:
    """One model's work on one data set.

    Args:
        model, own: the model, and its own ``generate``.
        way: how a question's rows are answered.
        settings: of the augmentation.
        listed: gives all (index, message) that the model will be asked about, in order.
        task: the data set's name.
        sidecar: where records go.
    """

    def __init__(
        self,
        model: Any,
        own: Own,
        way: Way,
        settings: AugmentSettings,
        listed: Callable[[], Sequence[tuple[Any, Message]]],
        task: str,
        sidecar: Sidecar,
    ) -> None:
        self._model, self._own, self._way, self._settings = model, own, way, settings
        self._listed, self._task, self._sidecar = listed, task, sidecar
        self._lock = threading.RLock()
        self._known: dict[str, Question] | None = None
        self._batches: Iterator[list[_Asked]] = iter(())
        self._gates: dict[Question, Gated] = {}
        self._failed: AugmentationFailed | None = None
        sidecar.begin(task)

    def answer(self, message: Message) -> str:
        """What the model says to a message, over all views.

        Raises:
            AugmentationFailed: it, or an earlier one, cannot be answered.
        """
        if self._failed is not None:  # VLMEvalKit's other threads go on asking
            raise self._failed
        try:
            with stopping():
                question = self._question(message)
                if not question.has_images:
                    return self._own(message)
                if getattr(self._model, "is_api", False):
                    return self._answered_by_api(question)
                with self._lock, files() as place:
                    while question.answer is None:
                        self._answer(next(self._batches), place)
                return self._of(question)
        except AugmentationFailed as error:
            self._failed = self._failed or error
            raise

    def close(self) -> None:
        """Write the records; a disk that is full now must not cost the answers."""
        if failed := self._sidecar.tried():
            _warn(failed)
        if self._way.failed:
            _warn(
                f"{self._way.failed} requests failed at the model; they had no say, and questions "
                "whose requests all failed have the model's own text as their answer"
            )

    # ── Which question it is ─────────────────────────────────────────────────────────────────────

    def _question(self, message: Message) -> Question:
        with self._lock:
            if self._known is None:
                self._known = {}
                for index, its in self._listed():
                    self._known.setdefault(key_of(its), Question(its, index))
                self._prepare(list(self._known.values()))
            key = key_of(message)
            if key not in self._known:  # a prompt that is drawn anew each time
                digest = hashlib.sha256(key.encode()).hexdigest()[:16]
                self._known[key] = Question(message, f"unlisted {digest}")
                self._prepare([self._known[key]])
            return self._known[key]

    def _of(self, question: Question) -> str:
        assert question.answer is not None
        return question.answer

    # ── Before the first answer ──────────────────────────────────────────────────────────────────

    def _prepare(self, questions: list[Question]) -> None:
        """Let the gate decide, have the views made, and put the others' batches in line."""
        pictured = [question for question in questions if question.has_images]
        if len(pictured) < len(questions):
            _warn(
                f"{len(questions) - len(pictured)} questions of {self._task} show no image and "
                "are answered as they are"
            )
        rest = self._gated(pictured)
        with Parking(self._model) as parking:
            for some in chunks(rest):
                make(self._settings, _contexts(some), parking)
                _forget(some)
            self._settings.augmenter.unload()
        asked = chain.from_iterable(map(self._evidence, chunks(rest)))
        new = self._way.batches((_Asked(its.question, its) for its in asked), self._row_count)
        self._batches = chain(self._batches, new)

    def _evidence(self, questions: Sequence[Question]) -> Iterator[Evidence]:
        return evidence(self._settings, questions, _contexts(questions))

    def _row_count(self, asked: _Asked) -> int:
        views = max((len(its.views) for its in asked.evidence.made), default=0)
        return (1 + views) * (1 + self._settings.combining.paraphrases) + 1

    def _gated(self, questions: list[Question]) -> list[Question]:
        """Those that go on to views; the others have their plain answer."""
        views = self._settings.views
        if views.gate is None and views.gate_share is None:
            return questions
        said: list[Said] = []
        plain = (_Asked(one, Evidence(one)) for one in questions)
        with progress("Asking plainly", "question", len(questions)) as told, files() as place:
            for batch in self._way.batches(plain, lambda _: 1):
                said += self._said(batch, place)
                told.update(len(batch))
                _forget([one.question for one in batch])
        sure = {number: its.p for number, its in enumerate(said) if its.p is not None}
        found = decide(sure, views.gate, views.gate_share)
        rest = []
        for number, (question, its) in enumerate(zip(questions, said, strict=True)):
            self._gates[question] = found[number]
            if found[number].passed:
                rest.append(question)
            else:
                self._keep(question, its, Evidence(question))
        return rest

    # ── Answers ──────────────────────────────────────────────────────────────────────────────────

    def _answer(self, batch: list[_Asked], place: Any) -> None:
        for one, its in zip(batch, self._said(batch, place), strict=True):
            self._keep(one.question, its, one.evidence)

    def _answered_by_api(self, question: Question) -> str:
        """Other threads ask about other questions meanwhile."""
        with files() as place:
            with self._lock:
                if question.answer is not None:
                    return question.answer
                (given,) = self._evidence([question])
                question.files = place
                rows = self._way.rows(given)
            (said,) = self._way.say([rows])
            if isinstance(said, Exception):
                raise said
        with self._lock:
            self._keep(question, said, given)
        return said.text

    def _said(self, batch: list[_Asked], place: Any) -> list[Said]:
        for one in batch:
            one.question.files = place
            one.rows = self._way.rows(one.evidence)
        found = []
        for its in self._way.say([one.rows for one in batch]):
            if isinstance(its, Exception):
                raise its
            found.append(its)
        return found

    def _keep(self, question: Question, said: Said, given: Evidence) -> None:
        about = given.about()
        record = {**said.record, "images": about}
        if self._settings.combining.combine == CONCAT and given.made:
            record["views"] = []  # nobody was asked about one picture
        if question in self._gates:
            record["gate"] = self._gates[question]._asdict()
        line = {"index": _plain(question.index), "prompt": question.guidance, **record}
        digests = (its["pixels"] for its in about)
        self._sidecar.add(self._task, line, dict(zip(digests, question.shown, strict=True)))
        question.answer = said.text
        question.forget()


def _contexts(questions: Sequence[Question]) -> list[Any]:
    return [context for question in questions for context in question.contexts]


def _forget(questions: Sequence[Question]) -> None:
    for question in questions:
        question.forget()


def _plain(index: Any) -> int | str:
    """A row's index, which may be one of numpy's numbers, for JSON."""
    return int(index) if hasattr(index, "__index__") else str(index)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, HbTtaWarning, stacklevel=3)
