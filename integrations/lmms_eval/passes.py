"""The passes over a call's requests: a plain one where there is a gate, then one with views.

The views of all requests are generated before the first answer; then the requests are answered a
batch at a time, each from its real images and their views together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from loguru import logger

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.no_pictures import no_pictures
from hb_tta.integrations.lmms_eval.quiet import quiet
from hb_tta.integrations.lmms_eval.recording import Records
from hb_tta.integrations.lmms_eval.requests import Question, with_documents
from hb_tta.integrations.lmms_eval.way import Said, Way
from hb_tta.integrations.making import chunks, evidence, make
from hb_tta.integrations.parking import Parking
from hb_tta.integrations.rows import Evidence
from hb_tta.progress import progress
from hb_tta.settings.augmented import CONCAT, AugmentSettings
from hb_tta.shards import Shard
from hb_tta.tta.gate import Gated, decide, sureness_of_choice


@dataclass
class Asked:
    """A request on its way.

    Attributes:
        place: among the call's requests.
        evidence: the question and what was made for it.
        rows: what is asked, see rows.py.
    """

    place: int
    evidence: Evidence
    rows: list[Any]

    @property
    def question(self) -> Question:
        return self.evidence.question


class Passes:
    """One call's.

    Args:
        backend: an ``AugmentedBackend``.
        way: how a question's rows are answered.
        own: the backend's own method, for requests as they are.
        kinds: how a request is read, and how rows are made of what was generated for it.
        shard: the part of all questions that these are of; None: they are all.
    """

    def __init__(
        self,
        backend: Any,
        way: Way,
        own: Callable[[list[Any]], list[Any]],
        kinds: tuple[type[Question], type[Evidence]] = (Question, Evidence),
        shard: Shard | None = None,
    ) -> None:
        self._backend, self._way, self._own = backend, way, own
        self._settings: AugmentSettings = backend.hb_settings
        self._reading, self._rows = kinds
        self._shard = shard
        self._records = Records(backend.hb_sidecar)
        self._is_first = backend.rank == 0

    def answers(self, requests: list[Any]) -> list[Any]:
        """What lmms-eval is given for each.

        Raises:
            UserError: what is asked for cannot be done.
            Exception: what a request failed with, after its neighbours were answered.
        """
        answers: list[Any] = [None] * len(requests)
        self._records.begin(requests)
        try:
            with quiet(type(self._backend)):
                told = self._gate(requests, answers)
                rest = [place for place, its in enumerate(told) if its is None or its.passed]
                self._augmented(requests, rest, told, answers)
        finally:
            self._records.write()
        self._tell(len(rest), len(requests))
        return answers

    # ── The pass with views ──────────────────────────────────────────────────────────────────────

    def _augmented(
        self, requests: list[Any], rest: list[int], told: list[Gated | None], answers: list[Any]
    ) -> None:
        given = self._evidence([requests[place] for place in rest])
        asked = (
            Asked(place, its, self._way.rows(its)) for place, its in zip(rest, given, strict=True)
        )
        for one, said in self._said(f"Answering from 1 + {self._settings.n} views", rest, asked):
            if not one.question.shown:
                answers[one.place] = said
                continue
            record = {**said.record, "images": one.evidence.about()}
            if self._settings.combining.combine == CONCAT and one.evidence.made:
                record["views"] = []  # nobody was asked about one picture
            elif not one.evidence.starts_with_real and one.evidence.made:
                record["views"] = [{}, *record["views"]]  # the records' first is the real image
                if "failed" in record:
                    record["failed"] = [1 + place for place in record["failed"]]
            gate = told[one.place]
            if gate is not None:
                record["gate"] = gate._asdict()
            self._records.show(one.question, record)
            answers[one.place] = self._records.keep(one.question.request, said.value, record)

    def _evidence(self, requests: list[Any]) -> Iterator[Evidence]:
        """The questions with their views. All views are made before this returns.

        What is made stays in the store, so that a few questions at a time are in memory.
        """
        parts = chunks(requests)
        with Parking(self._backend) as parking:
            plain = sum(self._make(chunk, parking) for chunk in parts)
            self._settings.augmenter.unload()
        if plain:
            logger.warning(f"hb-tta: {plain} requests show no image and are answered as they are")
        return chain.from_iterable(map(self._views, parts))

    def _make(self, requests: Sequence[Any], parking: Parking) -> int:
        """Have the store hold all views of questions; how many of those show no image."""
        questions, contexts = self._questions(requests)
        make(self._settings, contexts, parking, None if self._is_first else False)
        return sum(not question.shown for question in questions)

    def _views(self, requests: Sequence[Any]) -> Iterator[Evidence]:
        return evidence(self._settings, *self._questions(requests), self._rows)

    def _questions(self, requests: Sequence[Any]) -> tuple[list[Question], list[Any]]:
        backend = self._backend
        questions = [self._reading.read(r, backend.is_simple, backend.task_dict) for r in requests]
        return questions, [context for question in questions for context in question.contexts]

    # ── The plain pass ───────────────────────────────────────────────────────────────────────────

    def _gate(self, requests: list[Any], answers: list[Any]) -> list[Gated | None]:
        """What the gate makes of each request; puts the plain answers of those it stops in place.

        None where there is no gate, or no image for it to be about.
        """
        views = self._settings.views
        if views.gate is None and views.gate_share is None:
            return [None] * len(requests)
        said: dict[int, Said] = {}
        keys: dict[int, tuple[str, Any]] = {}
        asked = self._plain(requests)
        for one, its in self._said("Asking plainly", range(len(requests)), asked):
            its.record["images"] = one.evidence.about()
            self._records.show(one.question, its.record)
            said[one.place], keys[one.place] = its, one.question.key
        told = decide(_sure(said, keys), views.gate, views.gate_share)
        for place, its in told.items():
            if not its.passed:
                record = {**said[place].record, "gate": its._asdict()}
                answers[place] = self._records.keep(requests[place], said[place].value, record)
        return [told.get(place) for place in range(len(requests))]

    def _plain(self, requests: list[Any]) -> Iterator[Asked]:
        """Those that show an image, a few of them in memory at a time."""
        place = 0
        for chunk in chunks(requests):
            for question in self._questions(chunk)[0]:
                if question.shown:
                    yield Asked(place, Evidence(question), [question.copy()])
                place += 1

    # ── Asking a batch ───────────────────────────────────────────────────────────────────────────

    def _said(self, name: str, places: Sequence[int], asked: Iterable[Asked]) -> Iterator:
        """Each with what was said of it, telling how far it is."""
        shown = self._is_first and len(places) > 0
        with progress(name, "question", len(places), shown=shown) as told:
            for batch in self._way.batches(asked, lambda one: len(one.rows)):
                yield from self._say(batch)
                told.update(len(batch))

    def _say(self, batch: list[Asked]) -> Iterator[tuple[Asked, Any]]:
        """Ask the rows of a batch; of those without a picture the backend's own answers."""
        with self._documents([one.question for one in batch]):
            pictured = [one for one in batch if one.question.shown]
            plain = [one for one in batch if not one.question.shown]
            found = self._way.say([one.rows for one in pictured], self._own) if pictured else []
            own = self._own([one.question.copy() for one in plain]) if plain else []
        yield from zip(plain, own, strict=True)
        failed: list[Exception] = []
        for one, said in zip(pictured, found, strict=True):
            if isinstance(said, Exception):
                failed.append(said)
            else:
                yield one, said
        if failed:
            raise failed[0]

    @contextmanager
    def _documents(self, questions: list[Question]) -> Iterator[None]:
        """The backend finds these questions' documents decoded, and may ask without a picture."""
        backend = self._backend
        whole, backend.task_dict = backend.task_dict, with_documents(backend.task_dict, questions)
        try:
            with no_pictures():
                yield
        finally:
            backend.task_dict = whole

    def _tell(self, augmented: int, count: int) -> None:
        if not self._is_first:
            return
        views, combining = self._settings.views, self._settings.combining
        logger.info(
            f"hb-tta: {augmented} of {count} questions were answered from views of "
            f"{views.method} too (at most {self._settings.n} each, preset={views.preset}, "
            f"combine={combining.combine}); the others were sure without, or have no image"
        )
        if self._shard is not None:
            logger.warning(
                f"hb-tta: the scores are of part {self._shard} of the questions: run again "
                "without --shard when all parts are done, which finds all views in the store"
            )
        if self._way.failed:
            logger.warning(
                f"hb-tta: {self._way.failed} requests failed at the backend; they had no say, and "
                "questions whose requests all failed have the backend's own text as their answer"
            )


def _sure(said: Mapping[int, Said], keys: Mapping[int, Any]) -> dict[int, float]:
    """How sure the model is of each request's question, by the request's place.

    Raises:
        UserError: only the likelihood of the right answer is asked for.
    """
    found = {place: its.p for place, its in said.items() if its.p is not None}
    choices: dict[Any, list[int]] = {}
    for place in said.keys() - found.keys():
        choices.setdefault(keys[place], []).append(place)
    for (task, _), places in choices.items():
        if len(places) < 2:
            raise UserError(
                f"the task {task} asks for the likelihood of the right answer alone, which no gate "
                "may see: use gate=none"
            )
        sure = sureness_of_choice([said[place].record["answer"] for place in places])
        found |= dict.fromkeys(places, sure)
    return found
