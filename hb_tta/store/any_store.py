"""What all stores do: in a folder, in memory, at an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from hb_tta.store.entries import NewEntry


class AnyStore(Protocol):
    """A home of entries; each method as ``Store`` tells it."""

    def read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """The payload under a key and its ``meta``."""
        ...

    def has(self, namespace: str, key: str) -> bool:
        """Whether there is an entry."""
        ...

    def lacks(self, namespace: str, keys: Sequence[str]) -> dict[str, None]:
        """Those of the keys that have none."""
        ...

    def fetch(self, namespace: str, keys: Sequence[str]) -> None:
        """Have entries at hand that will be read."""
        ...

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Keep a payload."""
        ...

    def put_group(self, namespace: str, entries: Sequence[NewEntry]) -> None:
        """Keep several."""
        ...

    def known_weights(self) -> dict[str, str]:
        """Fingerprints by names of weights that need not be here."""
        ...

    def lock(self, namespace: str, key: str) -> AbstractContextManager[None]:
        """Hold the right to make an entry."""
        ...

    def try_lock(self, namespace: str, key: str) -> AbstractContextManager[bool]:
        """``lock`` without waiting."""
        ...
