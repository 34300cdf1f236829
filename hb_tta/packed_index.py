"""Digests of very many things in one file, looked up where they lie: no more than needed is read.

Records of one size, sorted by key, so that a search finds one and a merge adds many. A record
proves itself, and what is damaged counts as missing: it only costs a second look.
"""

from __future__ import annotations

import hashlib
import heapq
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hb_tta.disk import write_aside
from hb_tta.reading import open_regular

_KEY, _DIGEST, _CHECK = 16, 32, 8
_RECORD = _KEY + _DIGEST + _CHECK
_HEAD = b"hb-tta packed index 1".ljust(_RECORD, b"\n")
MOST = 4_000_000  # records: 224 MB; beyond it those of earlier runs go
ADDED = 100_000  # that are kept in memory before they are merged in, about 25 MB


class PackedIndex:
    """Digests, 64 hex digits each, by texts.

    Args:
        path: of the file; ``None``: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._added: dict[bytes, bytes] = {}
        self._records: mmap.mmap | None = None
        self._opened = False

    def get(self, text: str) -> str | None:
        """The digest of a text; ``None``: it is not known."""
        key = _key(text)
        record = self._added.get(key) or self._found(key)
        return None if record is None else record[_KEY:-_CHECK].hex()

    def put(self, text: str, digest: str) -> None:
        """Know it from now on; the file does at the latest after ``save``."""
        key = _key(text)
        self._added[key] = _record(key, bytes.fromhex(digest))
        if len(self._added) >= ADDED:
            self.save()

    def save(self) -> None:
        """Add what is new to what the file holds by now."""
        if self._path is None and len(self._added) >= ADDED:
            self._added.clear()  # no memory grows
        if self._path is None or not self._added:
            return
        self._open()  # other processes may have added theirs
        earlier = self._sound() if len(self) + len(self._added) <= MOST else iter(())
        merged = bytearray(_HEAD)
        last = b""
        for record in heapq.merge(sorted(self._added.values()), earlier):
            if record[:_KEY] != last:
                merged += record
            last = record[:_KEY]
        with suppress(OSError):
            write_aside(self._path, bytes(merged))
        self._added.clear()
        self._open()

    def __len__(self) -> int:
        """How many the file holds."""
        return 0 if self._records is None else len(self._records) // _RECORD - 1

    def _found(self, key: bytes) -> bytes | None:
        if not self._opened:
            self._open()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._at(middle)[:_KEY] < key:
                low = middle + 1
            else:
                high = middle
        record = self._at(low) if low < len(self) else b""
        return record if record[:_KEY] == key and _is_sound(record) else None

    def _at(self, number: int) -> bytes:
        assert self._records is not None
        return self._records[(number + 1) * _RECORD : (number + 2) * _RECORD]

    def _sound(self) -> Iterator[bytes]:
        records = (self._at(number) for number in range(len(self)))
        return (record for record in records if _is_sound(record))

    def _open(self) -> None:
        self._opened, self._records = True, None
        if self._path is None:
            return
        with suppress(OSError, ValueError), open_regular(self._path) as file:
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if found[:_RECORD] == _HEAD:
                self._records = found


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()


def _record(key: bytes, digest: bytes) -> bytes:
    return key + digest + hashlib.blake2b(key + digest, digest_size=_CHECK).digest()


def _is_sound(record: bytes) -> bool:
    return record == _record(record[:_KEY], record[_KEY:-_CHECK])
