"""The on-disk, content-addressed home of everything that is dear to make: nothing is made twice.

An entry is one file, ``<root>/<namespace>/<first two of the key>/<key><extension>``: the payload
as it is, and behind it a trailer that describes the payload and proves it whole (``entries.py``).
Readers of PNG stop at the image's own end, so an entry of "views" opens in any image viewer.

The namespaces: "views" (PNG), "descriptions" (UTF-8 JSON), "features" (safetensors).
"""

from __future__ import annotations

import errno
import os
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from hb_tta.disk import cache_root, write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.store.entries import DamagedEntry, content_key, seal, unseal

__all__ = [
    "Damage",
    "Entry",
    "Pruned",
    "Store",
    "StoreInfo",
    "Usage",
    "content_key",
    "default_store_root",
]

EXTENSIONS = {"views": ".png", "descriptions": ".json", "features": ".safetensors"}

# The age at which a writer's temporary file counts as left behind by a killed process. A write
# takes milliseconds; the rest is for clocks of other hosts.
LEFTOVER_SECONDS = 3600.0

# An entry's modification time is the time of its last use, to within this: reading seldom writes.
USE_SECONDS = 3600.0

_LOCKS, _SET_ASIDE = ".locks", ".damaged"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]*")
_SHARD = re.compile(r"[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z]+)?")
_LEFTOVER_NAME = re.compile(r"\.[0-9a-f]{64}(\.[a-z]+)?\.[0-9a-f]{16}\.tmp")

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# ── What is in a store ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Entry:
    """A file of the store: where it is, how large (bytes), last used when (seconds since 1970)."""

    namespace: str
    key: str
    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Damage:
    """A damaged entry that ``Store.verify`` found."""

    namespace: str
    key: str
    path: Path
    reason: str


@dataclass(frozen=True)
class Usage:
    """How many files, how many bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.files + other.files, self.bytes + other.bytes)


@dataclass(frozen=True)
class StoreInfo:
    """What ``Store.info`` counts.

    Attributes:
        root: the store's folder, which need not exist yet.
        namespaces: the entries of each namespace.
        set_aside: damaged entries that were moved out of the way.
        leftovers: temporary files, of writers at work or killed.
    """

    root: Path
    namespaces: dict[str, Usage]
    set_aside: Usage
    leftovers: Usage


@dataclass(frozen=True)
class Pruned:
    """What ``Store.prune`` removed: sound entries (by age or size), damaged ones, leftovers."""

    entries: Usage
    damaged: Usage
    leftovers: Usage


def default_store_root() -> Path:
    """``$HB_TTA_STORE``, else ``~/.cache/hb_tta/store`` (``XDG_CACHE_HOME`` is respected)."""
    named = os.environ.get("HB_TTA_STORE")
    return Path(named).expanduser() if named else cache_root() / "store"


# ── The store ────────────────────────────────────────────────────────────────────────────────────


class Store:
    """A folder of entries under content keys, shared by any number of processes and hosts.

    Making a store touches no disk. Reading a store that is not there finds nothing; the first
    ``put`` makes it. To make an entry once among the processes of a host, lock, then look again::

        with store.lock("views", key):
            payload = store.get("views", key)
            if payload is None:
                payload = make()
                store.put("views", key, payload, meta)

    Args:
        root: its folder; by default ``default_store_root()``.

    Raises:
        UserError: ``root`` is a file.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = default_store_root() if root is None else Path(root).expanduser()
        self.root = chosen.absolute()
        if os.path.exists(self.root) and not os.path.isdir(self.root):
            raise UserError(f"the store {self.root} is a file: name a folder with --store")

    def get(self, namespace: str, key: str) -> bytes | None:
        """The payload under a key, or None where there is none.

        A damaged entry counts as none: it is set aside with a warning, to be made again.

        Raises:
            UserError: the entry is there and cannot be read.
        """
        found = self._read(namespace, key)
        return None if found is None else found[0]

    def manifest(self, namespace: str, key: str) -> dict[str, Any] | None:
        """The ``meta`` that an entry was put with, or None where ``get`` gives None."""
        found = self._read(namespace, key)
        return None if found is None else found[1]["meta"]

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Keep a payload under its key; an entry that is there already is replaced.

        Args:
            meta: plain JSON kept beside the payload for people to read; not part of the key.

        Raises:
            UserError: the store is read-only or full. Nothing half-written stays behind.
        """
        entry = seal(payload, {"namespace": namespace, "key": key, "meta": dict(meta)})
        try:
            write_aside(self._path(namespace, key), entry)
        except OSError as error:
            raise self._write_error(error) from error

    @contextmanager
    def lock(self, namespace: str, key: str) -> Iterator[None]:
        """Hold the right to make an entry, waiting for it as long as another process has it.

        Whoever holds one lock must not wait for another (two processes could wait for each other):
        use ``try_lock`` for the second. The same thread may lock a key again.

        Raises:
            UserError: the store is read-only, so what it lacks cannot be kept.
        """
        with self._held(namespace, key, timeout=-1):
            yield

    @contextmanager
    def try_lock(self, namespace: str, key: str) -> Iterator[bool]:
        """``lock`` without waiting: yields False where another process or thread has the lock.

        A refusal says "not now", not "this key": keys share 4096 locks a namespace. Each lock held
        is an open file of the process, so batches have hundreds of keys at most.
        """
        with self._held(namespace, key, timeout=0) as held:
            yield held

    def entries(self) -> Iterator[Entry]:
        """Every entry, damaged or not, by namespace and key.

        Raises:
            UserError: a folder of the store cannot be read.
        """
        for namespace, path in self._files():
            matched = _ENTRY_NAME.fullmatch(path.name)
            if matched and path == self._path(namespace, matched[1]):
                with suppress(FileNotFoundError):  # pruned by another process meanwhile
                    status = path.stat()
                    yield Entry(namespace, matched[1], path, status.st_size, status.st_mtime)

    def info(self) -> StoreInfo:
        """Count what is in the store, without reading it. A store that is not there is empty."""
        namespaces: defaultdict[str, Usage] = defaultdict(Usage)
        for entry in self.entries():
            namespaces[entry.namespace] += Usage(1, entry.size)
        return StoreInfo(
            root=self.root,
            namespaces=dict(sorted(namespaces.items())),
            set_aside=_usage(self._set_aside_files()),
            leftovers=_usage(self._leftovers()),
        )

    def verify(self) -> list[Damage]:
        """Read every entry and list the damaged ones; nothing is changed.

        Entries that were set aside earlier are not listed: the store no longer counts on them.
        """
        damages = []
        for entry in self.entries():
            try:
                _load(entry.namespace, entry.key, entry.path)
            except FileNotFoundError:
                continue
            except (DamagedEntry, OSError) as error:
                damages.append(Damage(entry.namespace, entry.key, entry.path, str(error)))
        return damages

    def prune(self, older_than: float | None = None, max_bytes: int | None = None) -> Pruned:
        """Remove damaged entries and killed writers' leftovers, and if asked, what is little used.

        Args:
            older_than: remove entries last used more than this many seconds ago (to within
                ``USE_SECONDS``).
            max_bytes: then remove the least recently used entries until the rest is no larger.

        Raises:
            UserError: a limit is negative, or the store is read-only.
        """
        for name, limit in (("older_than", older_than), ("max_bytes", max_bytes)):
            if limit is not None and limit < 0:
                raise UserError(f"{name}={limit} is negative: a limit is 0 or more")
        try:
            leftovers = _remove(self._leftovers(LEFTOVER_SECONDS))
            damaged = _remove(self._set_aside_files()) + _remove(self._damaged_files())
            unused = _little_used(list(self.entries()), older_than, max_bytes)
            return Pruned(_remove(entry.path for entry in unused), damaged, leftovers)
        except OSError as error:
            raise self._write_error(error) from error

    # Reading.

    def _read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        path = self._path(namespace, key)
        try:
            found = _load(namespace, key, path)
            _mark_used(path)
            return found
        except FileNotFoundError:
            return None
        except DamagedEntry as damage:
            self._put_aside(namespace, key, path, damage)
            return None
        except OSError as error:
            raise self._read_error(path, error) from error

    def _put_aside(self, namespace: str, key: str, path: Path, damage: DamagedEntry) -> None:
        """Move a damaged entry out of the way, unless somebody is making it again just now."""
        warnings.warn(
            f"the store's entry {path} is damaged ({damage}) and will be made again",
            HbTtaWarning,
            stacklevel=4,
        )
        with suppress(OSError, UserError), self.try_lock(namespace, key) as mine:
            if mine and _is_damaged(namespace, key, path):
                aside = self.root / _SET_ASIDE / namespace
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(path, aside / path.name)

    def _damaged_files(self) -> Iterator[Path]:
        """Damaged entries that nobody is making again; each is locked until the next is asked."""
        for found in self.verify():
            with self.try_lock(found.namespace, found.key) as mine:
                if mine and _is_damaged(found.namespace, found.key, found.path):
                    yield found.path

    # Locking.

    @contextmanager
    def _held(self, namespace: str, key: str, timeout: float) -> Iterator[bool]:
        lock = self._lock(namespace, key)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            held = False
        except OSError as error:
            raise self._write_error(error) from error
        else:
            held = True
        try:
            yield held
        finally:
            if held:
                lock.release()

    def _lock(self, namespace: str, key: str) -> BaseFileLock:
        # A lock file that is removed while somebody waits for it splits into two locks, so these
        # are never removed; that they are few is what keeps them from piling up.
        _check_address(namespace, key)
        return _file_lock(self.root / _LOCKS / f"{namespace}-{key[:3]}.lock", os.getpid())

    # Places.

    def _path(self, namespace: str, key: str) -> Path:
        _check_address(namespace, key)
        return self.root / namespace / key[:2] / (key + EXTENSIONS.get(namespace, ""))

    def _files(self) -> Iterator[tuple[str, Path]]:
        """(namespace, path) of every file where entries and their leftovers lie."""
        for namespace in self._listed(self.root):
            if _NAMESPACE.fullmatch(namespace.name):
                for shard in self._listed(namespace):
                    if _SHARD.fullmatch(shard.name):
                        yield from ((namespace.name, path) for path in self._listed(shard))

    def _leftovers(self, older_than: float = 0.0) -> Iterator[Path]:
        for _, path in self._files():
            if _LEFTOVER_NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if time.time() - path.stat().st_mtime >= older_than:
                        yield path

    def _set_aside_files(self) -> Iterator[Path]:
        for namespace in self._listed(self.root / _SET_ASIDE):
            yield from (p for p in self._listed(namespace) if _ENTRY_NAME.fullmatch(p.name))

    def _listed(self, folder: Path) -> list[Path]:
        """What lies in a folder, sorted; nothing where it is no folder."""
        try:
            return sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._read_error(folder, error) from error

    def _read_error(self, path: Path, error: OSError) -> UserError:
        return UserError(
            f"{path} of the store cannot be read ({error.strerror}): mend its permissions, or name"
            " another store with --store"
        )

    def _write_error(self, error: OSError) -> UserError:
        if error.errno in _READ_ONLY:
            problem = "is read-only and something has to be written"
        elif error.errno in _FULL:
            problem = "is on a full disk (free some: hb-tta store prune)"
        else:
            problem = f"cannot be written ({error.strerror or error})"
        return UserError(f"the store {self.root} {problem}: name a folder to write in with --store")


class _Lock(FileLock):
    """A class of our own: lmms-eval has every ``FileLock`` of a path be one object, which a forked
    child then shares with its parent (``lmms_eval.evaluator._enable_reentrant_filelocks``).
    """


@cache
def _file_lock(path: Path, process: int) -> BaseFileLock:
    """One instance a file, so that a thread may hold two keys of one lock.

    And one a process: a forked child does not hold what its parent holds.
    """
    return _Lock(path)


def _check_address(namespace: str, key: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is no namespace: a-z, 0-9, _ and - alone")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: content_key gives 64 hex digits")


def _load(namespace: str, key: str, path: Path) -> tuple[bytes, dict[str, Any]]:
    """An entry's payload and manifest; its time of use is left as it is."""
    payload, manifest = unseal(path.read_bytes())
    if (manifest.get("namespace"), manifest.get("key")) != (namespace, key):
        raise DamagedEntry("it is the entry of another key")
    return payload, manifest


def _is_damaged(namespace: str, key: str, path: Path) -> bool:
    """Whether the bytes are wrong; an entry that this user cannot read may be sound."""
    try:
        _load(namespace, key, path)
    except DamagedEntry:
        return True
    except OSError:
        return False
    return False


def _mark_used(path: Path) -> None:
    with suppress(OSError):  # a read-only store keeps no account of use
        if time.time() - path.stat().st_mtime > USE_SECONDS:
            os.utime(path)


def _little_used(
    entries: list[Entry], older_than: float | None, max_bytes: int | None
) -> Iterator[Entry]:
    """The entries that an age and a size limit leave no room for."""
    size = sum(entry.size for entry in entries)
    now = time.time()
    for entry in sorted(entries, key=lambda entry: (entry.used, entry.key)):
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_bytes is not None and size > max_bytes
        if too_old or too_much:
            size -= entry.size
            yield entry


def _usage(paths: Iterator[Path]) -> Usage:
    total = Usage()
    for path in paths:
        with suppress(FileNotFoundError):
            total += Usage(1, path.stat().st_size)
    return total


def _remove(paths: Iterator[Path]) -> Usage:
    removed = Usage()
    for path in paths:
        with suppress(FileNotFoundError):  # another process was quicker
            size = path.stat().st_size
            path.unlink()
            removed += Usage(1, size)
    return removed
