"""Puts entries into a store behind the back of whoever makes them, in groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from hb_tta.store.any_store import AnyStore
from hb_tta.store.entries import NewEntry


class Writer:
    """A thread that writes while the model goes on; what piles up meanwhile is flushed together.

    A kill loses what it has not written yet, and never leaves half an entry. Leaving its block
    waits for the last of them.

    Args:
        store: where the entries go.
        namespace: of all of them.
    """

    def __init__(self, store: AnyStore, namespace: str) -> None:
        self._store, self._namespace = store, namespace
        self._pending: dict[str, NewEntry] = {}
        self._flushes: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, "hb-tta-store")

    def put(self, entry: NewEntry) -> None:
        """Take an entry, to be written soon.

        Raises:
            UserError: an earlier one could not be written.
        """
        self._pending[entry.key] = entry
        self._flushes.append(self._thread.submit(self._flush))
        self.wait(most=None)

    def wait(self, most: int | None = 0) -> None:
        """Wait until at most so many entries are still to be written; None: look for errors alone.

        Raises:
            UserError: one could not be written.
        """
        while self._flushes:
            full = most is not None and len(self._pending) > most
            if not full and not self._flushes[0].done():
                return
            self._flushes.popleft().result()

    def wrote(self, keys: Iterable[str]) -> bool:
        """Whether nothing of these is still to be written."""
        return self._pending.keys().isdisjoint(keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:  # else that one is told
            self.wait()

    def _flush(self) -> None:
        group = list(self._pending.values())
        if group:
            self._store.put_group(self._namespace, group)
        for entry in group:
            del self._pending[entry.key]
