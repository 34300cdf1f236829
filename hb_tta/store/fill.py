"""Making what the store lacks: each entry once among all the processes of a host, none lost."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from hb_tta.store.any_store import AnyStore
from hb_tta.store.entries import NewEntry
from hb_tta.store.writer import Writer

MOST_BEHIND = 64  # entries that may wait to be written when the next batch begins

T = TypeVar("T")


def fill(
    store: AnyStore,
    namespace: str,
    keys: Iterable[str],
    make: Callable[[list[str]], Iterable[NewEntry]],
    *,
    batch_size: int,
    on_progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Have every key in the store, making those that are missing: ``filling`` to its end."""
    for _ in filling(
        store,
        namespace,
        keys,
        make,
        batch_size=batch_size,
        on_progress=on_progress,
        seconds=math.inf,
    ):
        pass


def filling(
    store: AnyStore,
    namespace: str,
    keys: Iterable[str],
    make: Callable[[list[str]], Iterable[NewEntry]],
    *,
    batch_size: int,
    on_progress: Callable[[int], object] = lambda _: None,
    seconds: float = 0.0,
) -> Generator[list[str]]:
    """Have every key in the store, making those that are missing, and tell which are there.

    Processes that fill the same keys share the work: each claims a batch that nobody else has
    claimed, looks again (another may have made it meanwhile), and hands every entry to a writer
    as it is made. What others have claimed is waited for at the end, and made here if they died.
    No lock is held while waiting (``Store.lock`` sees to those of whoever called), nor while the
    caller has the word, so two processes cannot wait for each other.

    Args:
        keys: those that were not in the store a moment ago, in the order to make them.
        make: keys of one batch → their entries; called while their locks are held.
        batch_size: most keys a call of ``make``.
        on_progress: told how many more keys are there now.
        seconds: least time between two lists; the first comes after the first batch.

    Yields:
        Keys that are in the store now, each once.
    """
    queue = deque(dict.fromkeys(keys))
    due, there = (time.monotonic() if math.isfinite(seconds) else math.inf), []
    with _Claims(store, namespace) as claims:
        while queue:
            before, refused = len(queue), []
            while queue:
                claims.let_go(most=MOST_BEHIND)
                mine, theirs, found = claims.take(queue, batch_size)
                refused += theirs
                there += found + mine
                on_progress(len(found))
                for entry in make(mine) if mine else ():
                    claims.writer.put(entry)
                    on_progress(1)
                if there and time.monotonic() >= due:
                    claims.let_go()
                    yield there
                    due, there = time.monotonic() + seconds, []
            if len(refused) == before:  # nothing left to do but wait
                claims.let_go()
                with store.lock(namespace, refused[0]):
                    pass
            queue = deque(refused)
    if there:
        yield there


def read_entries(
    store: AnyStore,
    namespace: str,
    keys: Iterable[str],
    read: Callable[[bytes], T | None],
    into: dict[str, T],
) -> list[str]:
    """Adds what the store has to ``into`` and gives the keys of the rest.

    Args:
        read: what a payload holds; None where it is not of our making, which is as if it lacked.
    """
    missing, keys = [], list(keys)
    store.fetch(namespace, keys)
    for key in keys:
        entry = store.read(namespace, key)
        found = None if entry is None else read(entry[0])
        if found is None:
            missing.append(key)
        else:
            into[key] = found
    return missing


def missing_keys(store: AnyStore, namespace: str, keys: Sequence[str]) -> dict[str, None]:
    """Those of the keys that have no entry, in order, each once; nothing is read."""
    return store.lacks(namespace, keys)


@dataclass(frozen=True)
class _Claim:
    keys: list[str]
    locks: ExitStack


class _Claims:
    """Batches that this process makes: each is locked until its last entry is on the disk."""

    def __init__(self, store: AnyStore, namespace: str) -> None:
        self.writer = Writer(store, namespace)
        self._store, self._namespace = store, namespace
        self._held: deque[_Claim] = deque()

    def take(self, queue: deque[str], most: int) -> tuple[list[str], list[str], list[str]]:
        """Take keys off the queue: (locked and missing, locked by others, found made)."""
        mine: list[str] = []
        theirs: list[str] = []
        found: list[str] = []
        locks = ExitStack()
        self._held.append(_Claim(mine, locks))
        while queue and len(mine) < most:
            key = queue.popleft()
            with ExitStack() as attempt:
                if not attempt.enter_context(self._store.try_lock(self._namespace, key)):
                    theirs.append(key)
                elif self._store.read(self._namespace, key) is not None:
                    found.append(key)
                else:
                    mine.append(key)
                    locks.enter_context(attempt.pop_all())
        return mine, theirs, found

    def let_go(self, most: int = 0) -> None:
        """Wait until at most so many entries are to be written, and unlock what is done."""
        self.writer.wait(most)
        while self._held and self.writer.wrote(self._held[0].keys):
            self._held.popleft().locks.close()

    def __enter__(self) -> _Claims:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.writer.__exit__(*error)  # type: ignore[arg-type]
        finally:
            for claim in self._held:
                claim.locks.close()
