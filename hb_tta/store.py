"""The on-disk, content-addressed home of everything that is dear to make: nothing is made twice.

An entry is one file, ``<root>/<namespace>/<first two of the key>/<key><extension>``: the payload
as it is, and behind it a trailer that describes the payload and proves that it is whole. Readers
of PNG stop at the image's own end, so an entry of "views" opens in any image viewer.

The namespaces: "views" (PNG), "descriptions" (UTF-8 JSON), "features" (safetensors).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hb_tta.disk import cache_root, write_aside
from hb_tta.errors import UserError

EXTENSIONS = {"views": ".png", "descriptions": ".json", "features": ".safetensors"}

# The age at which a writer's temporary file counts as left behind by a killed process. A write
# takes milliseconds; the rest is for clocks of other hosts.
LEFTOVER_SECONDS = 3600.0

# An entry's modification time is the time of its last use, to within this: reading seldom writes.
USE_SECONDS = 3600.0

_LOCKS, _SET_ASIDE = ".locks", ".damaged"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z]+)?")
_LEFTOVER_NAME = re.compile(r"\.[0-9a-f]{64}(\.[a-z]+)?\.[0-9a-f]{16}\.tmp")

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


def content_key(request: Mapping[str, Any]) -> str:
    """The key of what a request makes: the SHA-256 of its canonical JSON, 64 hex digits.

    Canonical JSON has sorted keys, no spaces, ASCII alone, and floats by ``repr``. An integer and
    the float that equals it are different requests: a spec settles its own types. A tuple counts as
    a list.

    Raises:
        TypeError: something in it is not plain JSON (a path, an array, a key that is no string…);
            the message says where. Guessing a string for it would let two requests share a key.
        ValueError: a float is NaN or infinite.
    """
    return hashlib.sha256(_canonical_json(request)).hexdigest()


def _canonical_json(value: Mapping[str, Any]) -> bytes:
    _check_json(dict(value), "request")
    text = json.dumps(
        dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def _check_json(value: object, where: str) -> None:
    if type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{where} has the key {name!r}, which is no string")
            _check_json(item, f"{where}[{name!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type]
            _check_json(item, f"{where}[{index}]")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"{where} is a {type(value).__name__}, which is not plain JSON: {value!r}")


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────

# The last line of an entry: the payload's length and the digest of all that is before the line,
# the line's own length included. It has a fixed size, so that it is found from the end.
_FOOTER = "\nhb-tta entry 1 {length:016x} {digest}\n"
_FOOTER_SIZE = len(_FOOTER.format(length=0, digest="0" * 64))


class DamagedEntry(Exception):
    """An entry's bytes are not those that were written, or not those of its key."""


def seal(payload: bytes, manifest: Mapping[str, Any]) -> bytes:
    """The bytes of an entry: the payload, its manifest as a line of JSON, the closing line."""
    body = b"\n".join((payload, _canonical_json(manifest)))
    return body + _footer(body, len(payload))


def unseal(entry: bytes) -> tuple[bytes, dict[str, Any]]:
    """The payload and the manifest of an entry.

    Raises:
        DamagedEntry: it was cut short, or a bit of it changed.
    """
    body, footer = entry[:-_FOOTER_SIZE], entry[-_FOOTER_SIZE:]
    try:
        length = int(footer.split()[3], 16)
    except (IndexError, ValueError):
        raise DamagedEntry("its closing line is missing, so it was cut short") from None
    if _footer(body, length) != footer:
        raise DamagedEntry("its bytes do not match their digest")
    return body[:length], json.loads(body[length:])


def _footer(body: bytes, length: int) -> bytes:
    digest = hashlib.sha256(b"%016x" % length + body).hexdigest()
    return _FOOTER.format(length=length, digest=digest).encode("ascii")


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
        if self.root.exists() and not self.root.is_dir():
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
        lock = self._lock(namespace, key)
        try:
            lock.acquire()
        except OSError as error:
            raise self._write_error(error) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def try_lock(self, namespace: str, key: str) -> Iterator[bool]:
        """``lock`` without waiting: yields False where another process or thread has the lock.

        A refusal says "not now", not "this key": keys share 4096 locks a namespace.
        """
        lock = self._lock(namespace, key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise self._write_error(error) from error
        try:
            yield True
        finally:
            lock.release()

    def entries(self) -> Iterator[Entry]:
        """Every entry, damaged or not, in no order."""
        for namespace, name, path in self._files():
            matched = _ENTRY_NAME.fullmatch(name)
            if matched and path.parent.name == name[:2]:
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
        found = (self._damage(entry) for entry in self.entries())
        return sorted((damage for damage in found if damage), key=lambda damage: damage.path)

    def prune(self, older_than: float | None = None, max_bytes: int | None = None) -> Pruned:
        """Remove damaged entries and killed writers' leftovers, and if asked, what is little used.

        Args:
            older_than: remove entries last used more than this many seconds ago (to within
                ``USE_SECONDS``).
            max_bytes: then remove the least recently used entries until the rest is no larger.

        Raises:
            UserError: the store is read-only.
        """
        try:
            leftovers = _remove(self._leftovers(LEFTOVER_SECONDS))
            damaged = _remove(self._set_aside_files())
            damaged += _remove(path for path in self._damaged_paths() if path.exists())
            chosen = _least_used(list(self.entries()), older_than, max_bytes)
            return Pruned(_remove(entry.path for entry in chosen), damaged, leftovers)
        except OSError as error:
            raise UserError(
                f"the store {self.root} cannot be pruned ({error.strerror}):"
                " run it as a user who may write there"
            ) from error

    # Reading.

    def _read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        path = self._path(namespace, key)
        try:
            return self._load(namespace, key, path)
        except FileNotFoundError:
            return None
        except DamagedEntry as damage:
            self._put_aside(namespace, key, path, damage)
            return None
        except OSError as error:
            raise UserError(
                f"the store's entry {path} cannot be read ({error.strerror}):"
                " mend its permissions, or name another store with --store"
            ) from error

    def _load(self, namespace: str, key: str, path: Path) -> tuple[bytes, dict[str, Any]]:
        with open(path, "rb") as file:
            data = file.read()
            used = os.fstat(file.fileno()).st_mtime
        payload, manifest = unseal(data)
        if (manifest.get("namespace"), manifest.get("key")) != (namespace, key):
            raise DamagedEntry("it is the entry of another key")
        if time.time() - used > USE_SECONDS:
            with suppress(OSError):  # a read-only store keeps no account of use
                os.utime(path)
        return payload, manifest

    def _put_aside(self, namespace: str, key: str, path: Path, damage: DamagedEntry) -> None:
        """Move a damaged entry out of the way, unless somebody is making it again just now."""
        warnings.warn(
            f"the store's entry {path} is damaged ({damage}) and will be made again", stacklevel=4
        )
        with suppress(OSError, UserError), self.try_lock(namespace, key) as mine:
            if mine and self._damage(Entry(namespace, key, path, 0, 0.0)):
                aside = self.root / _SET_ASIDE / namespace
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(path, aside / path.name)

    def _damage(self, entry: Entry) -> Damage | None:
        try:
            self._load(entry.namespace, entry.key, entry.path)
        except FileNotFoundError:
            return None
        except (DamagedEntry, OSError) as error:
            return Damage(entry.namespace, entry.key, entry.path, str(error))
        return None

    def _damaged_paths(self) -> Iterator[Path]:
        """Damaged entries that nobody is making again just now; each is locked while it is out."""
        for damage in self.verify():
            with self.try_lock(damage.namespace, damage.key) as mine:
                if mine and self._damage(Entry(damage.namespace, damage.key, damage.path, 0, 0.0)):
                    yield damage.path

    # Places.

    def _path(self, namespace: str, key: str) -> Path:
        _check_address(namespace, key)
        return self.root / namespace / key[:2] / (key + EXTENSIONS.get(namespace, ""))

    def _lock(self, namespace: str, key: str) -> FileLock:
        # A lock file that is removed while somebody waits for it splits into two locks, so these
        # are never removed; that they are few is what keeps them from piling up. One instance a
        # file and process (is_singleton) lets a thread hold two keys of one lock.
        _check_address(namespace, key)
        path = self.root / _LOCKS / f"{namespace}-{key[:3]}.lock"
        return FileLock(path, is_singleton=True)

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        """(namespace, file name, path) of every file where entries and their leftovers lie."""
        for folder in self.root.glob("*/[0-9a-f][0-9a-f]"):
            if _NAMESPACE.fullmatch(folder.parent.name):
                for path in folder.iterdir():
                    yield folder.parent.name, path.name, path

    def _leftovers(self, older_than: float = 0.0) -> Iterator[Path]:
        for _, name, path in self._files():
            if _LEFTOVER_NAME.fullmatch(name):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if time.time() - path.stat().st_mtime >= older_than:
                        yield path

    def _set_aside_files(self) -> Iterator[Path]:
        for path in (self.root / _SET_ASIDE).glob("*/*"):
            if _ENTRY_NAME.fullmatch(path.name):
                yield path

    def _write_error(self, error: OSError) -> UserError:
        if error.errno in _READ_ONLY:
            problem = "is read-only and lacks what has to be made"
        elif error.errno in _FULL:
            problem = "is on a full disk: free some space (hb-tta store prune)"
            return UserError(f"the store {self.root} {problem}, or name another with --store")
        else:
            problem = f"cannot be written ({error.strerror or error})"
        return UserError(f"the store {self.root} {problem}: name a folder to write in with --store")


def _check_address(namespace: str, key: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is no namespace: a-z, 0-9, _ and - alone")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: content_key gives 64 hex digits")


def _least_used(
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
