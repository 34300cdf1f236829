"""How far a long job is: a bar in a terminal, elsewhere a plain line every half minute.

A log, a notebook or a cluster's output shows that work goes on, and how long it will take; a bar
would fill it with carriage returns. Imports no torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

SECONDS = 30.0
"""Between two lines where there is no terminal; a job that takes less prints none."""


class Progress(Protocol):
    """What is told of a job; a context manager that ends with it."""

    def update(self, n: int = 1) -> object:
        """So many more are done."""
        ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> object:
        """What else there is to say: it replaces what was said before."""
        ...

    def close(self) -> object:
        """The job is over."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> object: ...


def progress(
    name: str,
    unit: str,
    total: int | None,
    *,
    shown: bool = True,
    done: int = 0,
    leave: bool | None = True,
    smoothing: float = 0.3,
    unit_scale: bool = False,
) -> Progress:
    """The progress of a job, on stderr.

    Args:
        name: of the job, such as "generating".
        unit: what is counted, in the singular.
        total: how many there are; ``None``: nobody knows.
        shown: whether anything is told at all.
        done: of an earlier run.
        leave: whether a bar stays when it is full; ``None``: unless another is above it.
        smoothing: of a bar's speed, from 0 (the mean) to 1 (the last step's).
        unit_scale: whether the unit is too small to be told in ones: bytes, told in GB.
    """
    if shown and not _is_terminal():
        return Lines(name, "GB" if unit_scale else unit, total, done, 1e9 if unit_scale else 1)
    return tqdm(
        total=total,
        desc=name,
        unit=unit,
        initial=done,
        leave=leave,
        smoothing=smoothing,
        unit_scale=unit_scale,
        disable=not shown,
    )


class Lines:
    """A line every ``SECONDS`` while a job is at work, also while no step of it ends."""

    def __init__(
        self, name: str, unit: str, total: int | None, done: int = 0, size: float = 1
    ) -> None:
        self._size = size
        self._name, self._unit, self._total = name, unit, total
        self._done = self._before = done
        self._also, self._started = "", time.monotonic()
        self._over = Event()
        Thread(target=self._tell, name="hb-tta progress", daemon=True).start()

    def update(self, n: int = 1) -> None:
        """See ``Progress``."""
        self._done += n

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """See ``Progress``."""
        self._also = s

    def close(self) -> None:
        """See ``Progress``."""
        self._over.set()

    def line(self, seconds: float) -> str:
        """What is told after so many seconds."""
        counted = self._done if self._total is None else self._total
        many = self._size == 1 and counted != 1
        of = "" if self._total is None else f" of {self._number(self._total)}"
        what = f"{self._number(self._done)}{of} {self._unit}{'s' if many else ''}"
        parts = [f"{self._name}: {what} in {spoken(seconds)}"]
        new = self._done - self._before
        if new and self._total is not None and self._done < self._total:
            left = seconds / new * (self._total - self._done)
            parts.append(f"about {spoken(left)} left")
        return "; ".join([*parts, *filter(None, [self._also])])

    def _number(self, value: int) -> str:
        return str(value) if self._size == 1 else f"{value / self._size:.2f}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tell(self) -> None:
        while not self._over.wait(SECONDS):
            with suppress(OSError, ValueError, AttributeError):  # nobody listens any more
                line = f"hb-tta: {self.line(time.monotonic() - self._started)}\n"
                sys.stderr.write(line)  # at once: other threads' lines do not come between
                sys.stderr.flush()


def spoken(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3.5 h", "4.2 days", "9 years"."""
    for size, unit, limit in ((1, "s", 100), (60, "min", 100), (3600, "h", 48)):
        if seconds / size < limit:
            return f"{seconds / size:.0f} {unit}" if size < 3600 else f"{seconds / size:.1f} h"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 1000 else f"{days / 365.25:,.0f} years"


@contextmanager
def without_bars_of_libraries() -> Iterator[None]:
    """While weights are loaded, which takes seconds: the libraries' bars would drown our own."""
    from transformers.utils import logging

    # Only what is imported already can show any.
    diffusers = sys.modules.get("diffusers.utils.logging")
    shown = [one for one in (logging, diffusers) if one and one.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False
