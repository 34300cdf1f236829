"""From questions to answers: what the worker does with a batch.

the plain answer ──► sure enough? it stands
              └────► views of all the others, made together ──► one answer each, of all rows
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hb_tta.serve.about import about, about_candidates
from hb_tta.serve.asking import Backend, Question, Said
from hb_tta.serve.conversation import Row, rows_of
from hb_tta.serve.counts import Counts
from hb_tta.serve.job import Answered, Job, Words
from hb_tta.serve.views import Made, Views
from hb_tta.serve.worker import each_alone, refusal
from hb_tta.settings.augmented import Combining
from hb_tta.tta.gate import Gated, gated

THREADS = 8
"""Batches that wait for a model elsewhere at a time."""


class Answering:
    """Answers batches.

    Args:
        backend: who answers.
        views: who makes the views; None: there are none.
        counts: of what is done.
    """

    def __init__(self, backend: Backend, views: Views | None, counts: Counts) -> None:
        self._backend, self._views, self._counts = backend, views, counts
        self._pool = ThreadPoolExecutor(THREADS) if backend.elsewhere else None

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Answer a batch; each job is told what becomes of it."""
        self._counts.batch(len(jobs))
        gates: dict[Job, Gated] = {}
        plain = [job for job in jobs if not _augmented(job)]
        self._later(plain, partial(self._answer_plainly, gates={}))
        asked = [job for job in jobs if _augmented(job)]
        self._answer_plainly([job for job in asked if _gate(job) is not None], gates)
        rest = [job for job in asked if not job.ended and not job.over]
        for group in self._views.make(rest) if self._views is not None else ():
            self._show(group)
            self._later(
                [one.job for one in group if not one.job.ended],
                partial(self._answer_shown, made={one.job: one for one in group}, gates=gates),
            )

    def close(self) -> None:
        """Wait for what is under way elsewhere."""
        if self._pool is not None:
            self._pool.shutdown()

    def _later(self, jobs: Sequence[Job], work: partial[None]) -> None:
        """Now, or, where somebody else works, without waiting for it."""
        if self._pool is None:
            if jobs:
                work(jobs)
        elif jobs:
            self._pool.submit(each_alone, jobs, work)

    def _answer_plainly(self, jobs: Sequence[Job], gates: dict[Job, Gated]) -> None:
        """Ask about the images alone; ends those jobs that nothing is to be made for."""
        questions = [_question(job, [Row(None, job.conversation.images)]) for job in jobs]
        # Nothing is told of an answer that may not stand.
        questions = [
            one if _gate(job) is None else one._replace(words=None)
            for one, job in zip(questions, jobs, strict=True)
        ]
        for job, said in self._asked(jobs, questions):
            gate = _gate(job)
            if gate is not None:
                assert said.p is not None
                gates[job] = gated(said.p, gate)
                job.stage("plain", answer=said.text, **gates[job]._asdict())
                if gates[job].passed:
                    continue
                if job.stream:
                    job.tell(Words(said.text))
            self._end(job, said, None, gates.get(job))

    def _show(self, group: Sequence[Made]) -> None:
        for one in group:
            if one.failed is not None:
                one.job.end(refusal(one.failed))
                continue
            self._counts.made(sum(len(its.seeds) for its in one.augmentations))
            one.job.stage("views", views=about_candidates(one))

    def _answer_shown(
        self, jobs: Sequence[Job], made: dict[Job, Made], gates: dict[Job, Gated]
    ) -> None:
        questions, able = [], []
        for job in jobs:
            assert job.settings is not None
            try:
                rows = rows_of(job.conversation, made[job].augmentations, job.settings.combining)
            except Exception as error:
                job.end(refusal(error))
                continue
            able.append(job)
            questions.append(_question(job, rows))
        for job, said in self._asked(able, questions):
            self._end(job, said, made[job], gates.get(job))

    def _asked(self, jobs: Sequence[Job], questions: Sequence[Question]) -> list[tuple[Job, Said]]:
        """What was said of each question; jobs whose question failed are told so."""
        found = []
        for job, said in zip(jobs, self._backend.ask(questions), strict=True):
            if isinstance(said, Exception):
                job.end(refusal(said))
            else:
                found.append((job, said))
        return found

    def _end(self, job: Job, said: Said, made: Made | None, gate: Gated | None) -> None:
        self._counts.answered(made is not None)
        told = about(job, said, made, gate)
        job.end(Answered(said.text, told, said.ended, said.prompt_tokens, said.tokens))


def _augmented(job: Job) -> bool:
    """Whether anything may be shown beside a question: there is an image, or more words."""
    if job.settings is None:
        return False
    return bool(job.conversation.images)


def _gate(job: Job) -> float | None:
    return None if job.settings is None or not job.conversation.images else job.settings.views.gate


def _question(job: Job, rows: Sequence[Row]) -> Question:
    combining = Combining() if job.settings is None else job.settings.combining
    words = (lambda text: job.tell(Words(text))) if job.stream else None
    return Question(job.conversation, rows, combining, job.decoding, words, lambda: job.over)
