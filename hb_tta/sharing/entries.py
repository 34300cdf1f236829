"""What is in a shard: an entry of a store with its payload's digest, in any container."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hb_tta.views.proof import SHARED, fault_of

INDEX = "set.json"
"""Tells of a set: its format, and what its makers called the weights."""
FORMAT = 1
SHARD_BYTES = 500 * 10**6
LARGEST = 256 * 2**20  # bytes of a payload that is read; a view of 89 million pixels has less


class SharedEntry(NamedTuple):
    """An entry as it is handed on.

    Attributes:
        namespace, key: where it lies in a store.
        payload: the bytes that the store keeps.
        meta: what is told of it.
        sha256: of the payload, as its sender took it.
    """

    namespace: str
    key: str
    payload: bytes
    meta: Mapping[str, Any]
    sha256: str

    @classmethod
    def of(cls, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> SharedEntry:
        """An entry that is sent now."""
        return cls(namespace, key, payload, meta, hashlib.sha256(payload).hexdigest())

    def fault(self) -> str | None:
        """What is wrong with it; ``None``: nothing."""
        if self.namespace not in SHARED:
            return f"there is no namespace {self.namespace!r:.40}"
        if not isinstance(self.meta, Mapping):
            return "it tells nothing of how it was made"
        if hashlib.sha256(self.payload).hexdigest() != self.sha256:
            return "its bytes are not those that were sent"
        return fault_of(self.namespace, self.key, self.payload, self.meta)


@dataclass
class Exported:
    """What went into a set.

    Attributes:
        entries: by namespace.
        methods: views by method.
        models: plain JSON, as text, of every generator, describer and judge → its entries.
        damaged: entries of the store that could not be read whole, and stayed where they are.
        weights: what their makers call the weights → their fingerprints.
    """

    entries: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    weights: dict[str, str] = field(default_factory=dict)


class Damage(NamedTuple):
    """Something in a shard that cannot be used, and why."""

    where: str
    why: str


class Container(Protocol):
    """One way of packing entries."""

    suffix: str

    def write(self, path: Path, namespace: str, entries: Iterator[SharedEntry]) -> int:
        """Write a shard of at most ``SHARD_BYTES``; how many entries it took.

        Raises:
            OSError: it cannot be written; a part of it may lie at ``path``.
        """
        ...

    def read(self, path: Path) -> Iterator[SharedEntry | Damage]:
        """What is in a shard. Whatever is wrong with it is a ``Damage``."""
        ...
