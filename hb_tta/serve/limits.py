"""What a client may ask for at most; and how much of all clients' is in memory at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from hb_tta import spelling
from hb_tta.errors import UserError, choose_from
from hb_tta.serve.refusal import Refused

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Sizes, counts and times. All are whole numbers of at least 1.

    Attributes:
        body_mb: of a request, in megabytes.
        image_mb: of an image file.
        megapixels: of an image.
        images: in a request.
        characters: of all texts of a request.
        tokens: of an answer.
        views, candidates: of an image, where a client asks for more than the server's own.
        paraphrases: where a client asks for more than the server's own.
        seconds: from a request's arrival to its answer.
        asking_seconds: for a client to send its request.
        fetching_seconds: for a remote image.
        waiting: questions that wait at a time.
        connections: at a time.
        batch: questions that are worked on together.
        memory_mb: of requests and their pixels, of all clients together.
        store_mb: of the store on disk, where there is one.
    """

    body_mb: int = 32
    image_mb: int = 20
    megapixels: int = 16
    images: int = 8
    characters: int = 32_000
    tokens: int = 4096
    views: int = 16
    candidates: int = 32
    paraphrases: int = 4
    seconds: int = 300
    asking_seconds: int = 30
    fetching_seconds: int = 10
    waiting: int = 256
    connections: int = 1024
    batch: int = 16
    memory_mb: int = 2000
    store_mb: int = 10_000

    @classmethod
    def parse(cls, given: str | Mapping[str, Any]) -> Limits:
        """From ``key=value,…``, or a mapping.

        Raises:
            UserError: a key is unknown or stands twice, or a value is no whole number above 0.
        """
        known, found = [one.name for one in fields(cls)], {}
        pairs = given.items() if isinstance(given, Mapping) else spelling.pairs(given)
        for name, value in pairs:
            if name not in known:
                raise UserError(f"--limits {name}= is not known{choose_from(name, known)}")
            if name in found:
                raise UserError(f"--limits {name}= stands twice: leave one out")
            try:
                found[name] = spelling.positive(value)
            except spelling.Unfit as error:
                raise UserError(f"--limits {name}={value} {error}") from None
        return cls(**found)


class Memory:
    """How much of the clients' requests is held at a time.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()

    @property
    def held(self) -> int:
        """Bytes."""
        return self._held

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's part of it, which is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.add(-share.held)

    def add(self, size: int) -> None:
        """Hold so many bytes more, or, below 0, fewer.

        Raises:
            Refused: there is no room for them.
        """
        with self._lock:
            if size > 0 and self._held + size > self._most:
                raise Refused(
                    503,
                    f"the server holds {self._held // MB} MB of requests and has no room for "
                    "this one: try again in a few seconds, or send smaller images",
                    wait=5,
                )
            self._held += size


class Share:
    """What one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self.held = memory, 0

    def add(self, size: int) -> None:
        """See ``Memory.add``."""
        self._memory.add(size)
        self.held += size
