"""What was read of files before, so that those that did not change are not read again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from hb_tta.disk import write_aside

_SHA256 = re.compile(r"[0-9a-f]{64}")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileIndex:
    """Digests of files that were hashed before, by path, size and times.

    It only saves time: one that is missing, damaged or cannot be written costs a second hashing.

    Args:
        path: of the index.
        digest_of: what is kept of a file; by default the SHA-256 of its bytes.
    """

    # A file changed again within the file system's clock tick keeps its times; one hashed as fresh
    # as this is not trusted to stay (git's "racy" files).
    _FRESH_NS = 2_000_000_000

    def __init__(self, path: Path, digest_of: Callable[[Path], str] = file_digest) -> None:
        self._path, self._digest_of = path, digest_of
        self._added: dict[str, list[object]] = {}

    @cached_property
    def _known(self) -> dict[str, object]:
        return self._load()

    def digest(self, path: Path) -> str:
        """The digest of a file, 64 hex digits.

        Raises:
            OSError: there is no such file; and what ``digest_of`` raises.
        """
        name = str(path.absolute())
        state = _state(path)
        known = self._known.get(name)
        if isinstance(known, list) and known[:-1] == state and _is_digest(known[-1]):
            return known[-1]
        digest = self._digest_of(path)
        if _state(path) == state and time.time_ns() - max(state[1:]) > self._FRESH_NS:
            self._added[name] = [*state, digest]
        return digest

    def save(self) -> None:
        """Add what was hashed to what other processes have added meanwhile."""
        if not self._added:
            return
        merged = {**self._load(), **self._added}
        there = {name: record for name, record in merged.items() if os.path.exists(name)}
        with suppress(OSError):
            write_aside(self._path, json.dumps(there).encode())

    def _load(self) -> dict[str, object]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _state(path: Path) -> list[int]:
    """Size, and the times of the last change of content and of anything, in nanoseconds."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))
