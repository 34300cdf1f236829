"""A store in memory, for who keeps nothing after the call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hb_tta.store.entries import NewEntry


class MemoryStore:
    """What a store does, for one process and as long as the object lives."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[bytes, dict[str, Any]]] = {}

    def read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """See ``Store.read``."""
        return self._entries.get((namespace, key))

    def has(self, namespace: str, key: str) -> bool:
        """See ``Store.has``."""
        return (namespace, key) in self._entries

    def lacks(self, namespace: str, keys: Sequence[str]) -> dict[str, None]:
        """See ``Store.lacks``."""
        return {key: None for key in dict.fromkeys(keys) if not self.has(namespace, key)}

    def fetch(self, namespace: str, keys: Sequence[str]) -> None:
        """See ``Store.fetch``."""

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """See ``Store.put``."""
        self._entries[namespace, key] = payload, dict(meta)

    def put_group(self, namespace: str, entries: Sequence[NewEntry]) -> None:
        """See ``Store.put_group``."""
        for entry in entries:
            self.put(namespace, entry.key, entry.payload, entry.meta)

    def known_weights(self) -> dict[str, str]:
        """Nobody tells it of weights."""
        return {}

    @contextmanager
    def lock(self, namespace: str, key: str) -> Iterator[None]:
        """Nobody else has this store: there is nothing to wait for."""
        yield

    @contextmanager
    def try_lock(self, namespace: str, key: str) -> Iterator[bool]:
        """Nobody else has this store: the lock is always to be had."""
        yield True
