"""Locks between processes and threads, on files that stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout


@contextmanager
def held(path: Path, timeout: float) -> Iterator[bool]:
    """Hold a lock; yields whether it was to be had in so many seconds (-1: however long).

    The thread that took it has to let it go.

    Raises:
        OSError: the lock's file cannot be made.
    """
    lock = _file_lock(path, os.getpid())
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


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
