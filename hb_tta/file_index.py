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

from hb_tta.disk import cache_root, write_aside
from hb_tta.packed_index import PackedIndex
from hb_tta.reading import open_regular, read_json

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECOND_NS = 1_000_000_000


def file_digest(path: Path) -> str:
    """The SHA-256 of a regular file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileIndex:
    """Digests of files that were looked at before.

    It only saves time: one that is missing, damaged or cannot be written costs a second look.

    A large file is known again by its size and times, where those prove something: the time of
    the last change of anything (ctime), which only the kernel sets. Where times are made up, all
    the same for every build (squashfs and other images that are mounted to be read), such a file
    is read each time. A small one always is.

    Args:
        name: of the index's file in the cache.
        digest_of: what is kept of a file; by default the SHA-256 of its bytes.
    """

    # A file changed again within the file system's clock tick keeps its times; one hashed as fresh
    # as this is not trusted to stay (git's "racy" files).
    _FRESH_NS = 2 * _SECOND_NS
    _SMALL = 1 << 20  # bytes: read in a millisecond

    def __init__(self, name: str, digest_of: Callable[[Path], str] = file_digest) -> None:
        root = cache_root()
        self._path = None if root is None else root / name
        self._digest_of = digest_of
        self._added: dict[str, list[object]] = {}

    @cached_property
    def _known(self) -> dict[str, object]:
        return self._load()

    def digest(self, path: Path) -> str:
        """The digest of a file, 64 hex digits.

        Raises:
            OSError: there is no such regular file; and what ``digest_of`` raises.
        """
        state = self._state(path)
        if state is None or (len(state) == 1 and self._digest_of is file_digest):
            return self._digest_of(path) if state is None else str(state[0])
        name = str(path.absolute())
        known = self._look_up(name, state)
        if known is not None:
            return known
        digest = self._digest_of(path)
        if self._state(path) == state and not self._is_fresh(state):
            self._keep(name, state, digest)
        return digest

    def _look_up(self, name: str, state: list[object]) -> str | None:
        known = self._known.get(name)
        if isinstance(known, list) and known[:-1] == state and _is_digest(known[-1]):
            return known[-1]
        return None

    def _keep(self, name: str, state: list[object], digest: str) -> None:
        self._added[name] = [*state, digest]

    def save(self) -> None:
        """Add what was looked at to what other processes have added meanwhile."""
        if not self._added or self._path is None:
            return
        merged = {**self._load(), **self._added}
        there = {name: record for name, record in merged.items() if os.path.exists(name)}
        with suppress(OSError):
            write_aside(self._path, json.dumps(there).encode())

    def _load(self) -> dict[str, object]:
        try:
            known = None if self._path is None else read_json(self._path)
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _state(self, path: Path) -> list[object] | None:
        """What a file is known again by: its bytes' digest; or its size and times; or nothing."""
        status = path.stat()
        if status.st_size <= self._SMALL:
            return [file_digest(path)]
        if not _times_prove(path, status.st_ctime_ns):
            return None
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def _is_fresh(self, state: list[object]) -> bool:
        times = [when for when in state[1:] if isinstance(when, int)]
        return bool(times) and time.time_ns() - max(times) <= self._FRESH_NS


class ManyFilesIndex(FileIndex):
    """The same for any number of files, which it does not keep in memory.

    It forgets nothing that is gone, so it is for what is named by its content: a small file's
    digest is known again under any name.
    """

    def __init__(self, name: str, digest_of: Callable[[Path], str]) -> None:
        super().__init__(name, digest_of)
        self._packed = PackedIndex(self._path)

    def _look_up(self, name: str, state: list[object]) -> str | None:
        return self._packed.get(_packed_name(name, state))

    def _keep(self, name: str, state: list[object], digest: str) -> None:
        self._packed.put(_packed_name(name, state), digest)

    def save(self) -> None:
        """See ``FileIndex``."""
        self._packed.save()


def _packed_name(name: str, state: list[object]) -> str:
    return str(state[0]) if len(state) == 1 else json.dumps([name, *state])


def _times_prove(path: Path, changed_ns: int) -> bool:
    """Whether the kernel set the time of a file's last change when it changed.

    A file system that is read only has the times that its image was made with. A whole second is
    what such images keep, and what a clock hits once in a thousand million times.
    """
    if not hasattr(os, "statvfs"):
        return True
    return changed_ns % _SECOND_NS != 0 and not os.statvfs(path).f_flag & os.ST_RDONLY


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))
