"""The one thread that works: it takes all questions that wait, up to a batch, and begins again."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

from hb_tta.device import is_out_of_memory
from hb_tta.errors import UserError
from hb_tta.serve.job import Job
from hb_tta.serve.refusal import Refused

Work = Callable[[Sequence[Job]], None]


class Worker:
    """Works on questions in the order of their arrival.

    Args:
        work: answers a batch, telling each job what becomes of it.
        waiting: questions that may wait.
        batch: questions that are worked on together.
    """

    def __init__(self, work: Work, waiting: int, batch: int) -> None:
        self._work, self._batch = work, batch
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._most = waiting
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hb-tta worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that nobody works on yet."""
        return self._jobs.qsize()

    @property
    def alive(self) -> bool:
        """Whether questions are taken."""
        return self._thread.is_alive() and not self._stopping

    def take(self, job: Job) -> None:
        """Raises Refused where too many wait already, or the server stops."""
        if self._stopping:
            raise Refused(503, "the server stops: ask another one", wait=30)
        if self.waiting >= self._most:
            raise Refused(503, f"{self.waiting} questions wait already: try again later", wait=10)
        self._jobs.put(job)

    def stop(self, seconds: float) -> None:
        """Work on what waits, for so long at most, and end."""
        self._stopping = True
        self._jobs.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs = [job for job in (first, *self._others()) if not job.over]
            if jobs:
                each_alone(jobs, self._work)

    def _others(self) -> Iterator[Job]:
        for _ in range(self._batch - 1):
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job


def each_alone(jobs: Sequence[Job], work: Work) -> None:
    """Do something for several jobs; where it fails, for each by itself.

    A job that fails is told why, and takes no other one with it.
    """
    try:
        work(jobs)
    except Exception as error:
        if len(jobs) == 1:
            jobs[0].end(refusal(error))
            return
        for job in jobs:
            if not job.ended:
                each_alone([job], work)


def refusal(error: Exception) -> Refused:
    """What a client is told of an error: of a bug that there is one, and no more."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, UserError):
        return Refused(400, str(error))
    if is_out_of_memory(error):
        return Refused(503, "the server's memory does not suffice: send smaller images", wait=30)
    traceback.print_exception(error, file=sys.stderr)
    return Refused(500, "the server failed at this question: its log tells why")
