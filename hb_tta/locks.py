"""Locks between processes and threads, on files that stay."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import read_text

_LOOK_SECONDS = 2.0  # other parts of a run may be looking at the same moment
_LOCK, _OWNER = ".hb-tta{}.lock", ".hb-tta{}.owner"


@contextmanager
def held(path: Path, timeout: float) -> Iterator[bool]:
    """Hold a lock; yields whether it was to be had in so many seconds (-1: however long).

    The thread that took it has to let it go.

    Raises:
        OSError: the lock's file cannot be made.
    """
    its = _Turn(_file_lock(path, os.getpid()))
    try:
        yield its.take(timeout)
    finally:
        its.give()


@contextmanager
def held_giving_way(path: Path, timeout: float) -> Iterator[bool]:
    """``held``; while its thread waits for another such lock, it gives those away that it has.

    Nobody who waits holds any, so no two threads or processes can wait for each other, however
    their locks are nested. Locks that were given away are taken back if nobody has them then: they
    spare work, and what must not be done twice at the same time needs another one.

    Raises:
        OSError: the lock's file cannot be made.
    """
    its, earlier = _Turn(_file_lock(path, os.getpid())), _turns()
    got = its.take(0)
    if not got and timeout != 0:
        for one in earlier:
            one.give()
        try:
            got = its.take(timeout)
        finally:
            for one in earlier:
                with suppress(OSError):
                    one.take(0)
    if got:
        earlier.append(its)
    try:
        yield got
    finally:
        if got:
            earlier.remove(its)
        its.give()


class _Turn:
    """A lock as one holder has it: taken, or not, or given away."""

    def __init__(self, lock: BaseFileLock) -> None:
        self._lock, self._mine = lock, False

    def take(self, timeout: float) -> bool:
        try:
            self._lock.acquire(timeout=timeout)
        except Timeout:
            return False
        self._mine = True
        return True

    def give(self) -> None:
        if self._mine:
            self._mine = False
            self._lock.release()


_HERE = threading.local()


def _turns() -> list[_Turn]:
    """What this thread has taken; a forked child has none of its parent's."""
    if getattr(_HERE, "process", None) != os.getpid():
        _HERE.process, _HERE.turns = os.getpid(), []
    return _HERE.turns


@contextmanager
def owned(folder: Path, part: str = "") -> Iterator[None]:
    """Hold a folder that a person named for a run's results, as long as the run lasts.

    Two runs in one folder would write over each other's files. The folder is made as needed; the
    lock's hidden file stays in it.

    Args:
        part: of the run, where several do it in one folder; each has files of its own. "" is the
            whole run, which goes together with none of them.

    Raises:
        UserError: another run has it, or it cannot be written in.
    """
    with _taken(folder, part):
        # Its own first: of two that come at once each sees the other, and never does neither.
        for other in _others(folder, part):
            with _taken(folder, other, _LOOK_SECONDS):
                pass
        yield


def _others(folder: Path, part: str) -> list[str]:
    """Which parts must not be at work."""
    if part:
        return [""]
    before, after = _LOCK.split("{}")
    names = (path.name for path in folder.glob(_LOCK.format("-*")))
    return [name.removeprefix(before).removesuffix(after) for name in names]


@contextmanager
def _taken(folder: Path, part: str, timeout: float = 0) -> Iterator[None]:
    lock = _file_lock(folder.absolute() / _LOCK.format(part), os.getpid())
    owner = folder / _OWNER.format(part)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise UserError(
            f"{str(folder)!r} is in use by {_told_owner(owner)}: wait for it, or name another "
            "folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be written in ({error.strerror or error}): mend that or name "
            "another folder"
        ) from error
    try:
        with suppress(OSError):  # it only tells who it is
            write_aside(owner, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        lock.release()


def _told_owner(owner: Path) -> str:
    with suppress(OSError, ValueError):
        return f"another run ({read_text(owner)})"
    return "another run"


class _Lock(FileLock):
    """A class of our own: lmms-eval has every ``FileLock`` of a path be one object, which a forked
    child then shares with its parent (``lmms_eval.evaluator._enable_reentrant_filelocks``).
    """


@cache
def _file_lock(path: Path, process: int) -> BaseFileLock:
    """One instance a file, so that a thread may hold two keys of one lock.

    And one a process: a forked child does not hold what its parent holds.
    """
    return _Lock(path)
