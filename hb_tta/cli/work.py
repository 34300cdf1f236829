"""The lines of a command, read as a model asks for what they name."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from hb_tta.cli.requests import C_co, Failure, Line
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests


class Work(Generic[C_co]):
    """The contexts, or prompts, of the lines, read as the model asks for them.

    Attributes:
        requests: of the contexts that were read and are not done, by their numbers among those.
        failures: the lines that cannot be used.
        digests: of the images, each looked at once.

    Args:
        lines: in their order.
        tell: is told of the failures.
        skip: go on after a line that cannot be used.
    """

    def __init__(
        self,
        lines: Iterable[Line[C_co] | Failure],
        tell: Callable[[Failure], object],
        *,
        skip: bool,
    ) -> None:
        self.requests: dict[int, Line[C_co]] = {}
        self.failures: list[Failure] = []
        self.digests = PixelDigests()
        self._lines, self._tell, self._skip = lines, tell, skip

    def __iter__(self) -> Iterator[C_co]:
        number = 0
        for line in self._lines:
            try:
                if isinstance(line, Failure):
                    raise UserError(line.reason)
                context = line.context(self.digests)
            except UserError as error:
                if not self._skip:
                    raise
                self._fail(line, error)
            else:
                self.requests[number] = line
                number += 1
                yield context

    def refuse(self, number: int, error: UserError) -> None:
        """A context that was read, and that a model will not take."""
        self._fail(self.requests.pop(number), error)

    def next_done(self) -> Line[C_co]:
        """The first that is not done, now that it is."""
        return self.requests.pop(next(iter(self.requests)))

    def _fail(self, line: Line[C_co] | Failure, error: UserError) -> None:
        failure = Failure(line.index, str(error), line.called)
        insort(self.failures, failure, key=lambda it: it.index)
        self._tell(failure)
