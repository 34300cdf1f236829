"""Making what the store lacks: each entry once among all the processes of a host, none lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from hb_tta.store import Store


class Made(NamedTuple):
    """A new entry: its key, its payload, and plain JSON for people to read."""

    key: str
    payload: bytes
    meta: Mapping[str, Any]


class MemoryStore:
    """What a store does, for one process and as long as the object lives."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[bytes, dict[str, Any]]] = {}

    def get(self, namespace: str, key: str) -> bytes | None:
        """See ``Store.get``."""
        entry = self._entries.get((namespace, key))
        return None if entry is None else entry[0]

    def manifest(self, namespace: str, key: str) -> dict[str, Any] | None:
        """See ``Store.manifest``."""
        entry = self._entries.get((namespace, key))
        return None if entry is None else entry[1]

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """See ``Store.put``."""
        self._entries[namespace, key] = payload, dict(meta)

    @contextmanager
    def lock(self, namespace: str, key: str) -> Iterator[None]:
        """Nobody else has this store: there is nothing to wait for."""
        yield

    @contextmanager
    def try_lock(self, namespace: str, key: str) -> Iterator[bool]:
        """Nobody else has this store: the lock is always to be had."""
        yield True


def fill(
    store: Store | MemoryStore,
    namespace: str,
    keys: Iterable[str],
    make: Callable[[list[str]], Iterable[Made]],
    *,
    batch_size: int,
    on_progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Have every key in the store, making those that are missing.

    Processes that fill the same keys share the work: each claims a batch that nobody else has
    claimed, looks again (another may have made it meanwhile), and puts every entry into the store
    as it is made. What others have claimed is waited for at the end, and made here if they died.
    No lock is held while waiting, so two processes cannot wait for each other.

    Args:
        keys: those that were not in the store a moment ago, in the order to make them.
        make: keys of one batch → their entries; called while their locks are held.
        batch_size: most keys a call of ``make``.
        on_progress: told how many more keys are there now.
    """
    queue = deque(dict.fromkeys(keys))
    while queue:
        before, refused = len(queue), []
        while queue:
            with _claim(store, namespace, queue, batch_size) as (mine, theirs, found):
                refused += theirs
                on_progress(found)
                for entry in make(mine) if mine else ():
                    store.put(namespace, entry.key, entry.payload, entry.meta)
                    on_progress(1)
        if len(refused) == before:  # nothing left to do but wait
            with store.lock(namespace, refused[0]):
                pass
        queue = deque(refused)


@contextmanager
def _claim(
    store: Store | MemoryStore, namespace: str, queue: deque[str], most: int
) -> Iterator[tuple[list[str], list[str], int]]:
    """Take keys off the queue: (locked and missing, locked by others, number found made)."""
    mine: list[str] = []
    theirs: list[str] = []
    found = 0
    with ExitStack() as locks:
        while queue and len(mine) < most:
            key = queue.popleft()
            with ExitStack() as attempt:
                if not attempt.enter_context(store.try_lock(namespace, key)):
                    theirs.append(key)
                elif store.get(namespace, key) is not None:
                    found += 1
                else:
                    mine.append(key)
                    locks.enter_context(attempt.pop_all())
        yield mine, theirs, found


def missing_keys(
    store: Store | MemoryStore, namespace: str, keys: Sequence[str]
) -> dict[str, None]:
    """Those of the keys that have no sound entry, in order, each once."""
    return {key: None for key in dict.fromkeys(keys) if store.get(namespace, key) is None}
