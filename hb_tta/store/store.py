"""The on-disk, content-addressed home of everything that is dear to make: nothing is made twice.

An entry is one file, ``<root>/<namespace>/<first two of the key>/<key><extension>``: the payload
as it is, and behind it a trailer that describes the payload and proves it whole (``entries.py``).
Readers of images stop at the image's own end, so an entry of "views" opens in any viewer. The
file ``.hb-tta-store`` makes the folder a store: in no other is anything counted or removed.

The namespaces: "views" (PNG or WebP), "descriptions" and "scores" (UTF-8 JSON), "features"
(safetensors).
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hb_tta import locks
from hb_tta.disk import write_aside, write_group
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.reading import read_json, user_path
from hb_tta.store import upkeep
from hb_tta.store.entries import DamagedEntry, NewEntry, load_entry, sealed
from hb_tta.store.layout import Entry, Layout, default_store_root, read_error, write_error
from hb_tta.store.upkeep import Damage, Pruned, StoreInfo, Usage

# An entry's modification time is the time of its last use, to within this: reading seldom writes.
USE_SECONDS = 3600.0


class Store:
    """A folder of entries under content keys, shared by any number of processes and hosts.

    Making a store touches no disk. Reading a store that is not there finds nothing; the first
    ``put`` makes it. To make an entry once among the processes of a host, lock, then look again::

        with store.lock("views", key):
            found = store.read("views", key)
            if found is None:
                payload = make()
                store.put("views", key, payload, meta)

    Args:
        root: its folder; by default ``default_store_root()``.

    Raises:
        UserError: ``root`` is a file.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = user_path(default_store_root() if root is None else root).absolute()
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"the store {self.root} is a file: name a folder with --store")
        self._layout = Layout(self.root)

    def read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """The payload under a key and its ``meta``, or None where there is none.

        The file is read once, whole. A damaged entry counts as none: it is set aside with a
        warning, to be made again.

        Raises:
            UserError: the entry is there and cannot be read.
        """
        path = self._layout.path(namespace, key)
        try:
            found = load_entry(namespace, key, path)
            _mark_used(path)
            return found
        except FileNotFoundError:
            return None
        except DamagedEntry as damage:
            self._put_aside(namespace, key, path, damage)
            return None
        except OSError as error:
            raise read_error(path, error) from error

    def has(self, namespace: str, key: str) -> bool:
        """Whether there is an entry under a key, without reading it: ``read`` finds damage."""
        return self._layout.path(namespace, key).is_file()

    def lacks(self, namespace: str, keys: Sequence[str]) -> dict[str, None]:
        """Those of the keys that have no entry, in order, each once; nothing is read."""
        return {key: None for key in dict.fromkeys(keys) if not self.has(namespace, key)}

    def fetch(self, namespace: str, keys: Sequence[str]) -> None:
        """Have entries at hand that will be read: on a disk they are."""

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Keep a payload under its key; an entry that is there already is replaced.

        Args:
            meta: plain JSON kept beside the payload for people to read; not part of the key.

        Raises:
            UserError: the store is read-only or full. Nothing half-written stays behind.
        """
        self.put_group(namespace, [NewEntry(key, payload, meta)])

    def put_group(self, namespace: str, entries: Sequence[NewEntry]) -> None:
        """``put`` of several entries that are flushed to the disk together.

        Raises:
            UserError: the store is read-only or full; what went in before that stays.
        """
        files = [
            (
                self._layout.new_path(namespace, entry.key, entry.payload),
                sealed(namespace, entry),
            )
            for entry in entries
        ]
        try:
            if not self._layout.mark.exists():
                write_aside(self._layout.mark, b"")
            if files:
                write_group(files)
        except OSError as error:
            raise write_error(self.root, error) from error

    @contextmanager
    def lock(self, namespace: str, key: str) -> Iterator[None]:
        """Hold the right to make an entry, waiting for it as long as another process has it.

        A thread that waits gives away the locks that it holds meanwhile, so that no two can wait
        for each other: behind it, an entry that was locked earlier may have been made by somebody
        else. The same thread may lock a key again.

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

    def known_weights(self) -> dict[str, str]:
        """Names of the weights that imported entries were made with → their fingerprints."""
        with suppress(OSError, ValueError):
            found = read_json(self._layout.names)
            if isinstance(found, dict) and all(isinstance(it, str) for it in found.values()):
                return found
        return {}

    def learn_weights(self, names: Mapping[str, str]) -> None:
        """Add to ``known_weights``; of one name the last counts.

        Raises:
            UserError: the store cannot be written.
        """
        if not names:
            return
        told = json.dumps({**self.known_weights(), **names}, indent=1).encode()
        try:
            write_aside(self._layout.names, told)
        except OSError as error:
            raise write_error(self.root, error) from error

    def seen(self) -> bool:
        """Whether ``see`` was called of this folder, ever."""
        return self._layout.seen.exists()

    def see(self) -> None:
        """Remember that what this folder is a copy of was there."""
        if not self.seen():
            with suppress(OSError):
                write_aside(self._layout.seen, b"")

    def entries(self, namespace: str | None = None) -> Iterator[Entry]:
        """Every entry, damaged or not, by namespace and key; of one namespace alone if it is said.

        Raises:
            UserError: a folder of the store cannot be read, or it is no store.
        """
        return self._layout.entries(namespace)

    def info(self) -> StoreInfo:
        """Count what is in the store, without reading it. A store that is not there is empty."""
        return upkeep.count(self._layout)

    def verify(self) -> list[Damage]:
        """Read every entry and list the damaged ones; nothing is changed.

        Entries that were set aside earlier are not listed: the store no longer counts on them.
        """
        return list(upkeep.damages(self._layout))

    def prune(
        self,
        older_than: float | None = None,
        max_bytes: int | None = None,
        *,
        verify: bool = False,
    ) -> Pruned:
        """Remove what was set aside as damaged and killed writers' leftovers, and what is asked.

        Sizes and dates alone are looked at, unless it is to verify.

        Args:
            older_than: remove entries last used more than this many seconds ago (to within
                ``USE_SECONDS``).
            max_bytes: then remove the least recently used entries until the rest is no larger.
            verify: read every entry first, and remove the damaged ones that nobody knew of.

        Raises:
            UserError: a limit is negative, the store is read-only, or the folder is no store.
        """
        for name, limit in (("older_than", older_than), ("max_bytes", max_bytes)):
            if limit is not None and limit < 0:
                raise UserError(f"{name}={limit} is negative: a limit is 0 or more")
        try:
            leftovers = upkeep.remove(self._layout.leftovers(upkeep.LEFTOVER_SECONDS))
            damaged = upkeep.remove(self._layout.set_aside())
            damaged += upkeep.remove(self._damaged_files()) if verify else Usage()
            if older_than is None and max_bytes is None:
                return Pruned(Usage(), damaged, leftovers)
            unused = upkeep.little_used(self.entries, older_than, max_bytes)
            return Pruned(upkeep.remove(entry.path for entry in unused), damaged, leftovers)
        except OSError as error:
            raise write_error(self.root, error) from error

    def _put_aside(self, namespace: str, key: str, path: Path, damage: DamagedEntry) -> None:
        """Move a damaged entry out of the way, unless somebody is making it again just now."""
        warnings.warn(
            f"the store's entry {path} is damaged ({damage}) and will be made again",
            HbTtaWarning,
            stacklevel=3,
        )
        with suppress(OSError, UserError), self.try_lock(namespace, key) as mine:
            if mine and upkeep.is_damaged(namespace, key, path):
                aside = self._layout.aside(namespace, path)
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, aside)

    def _damaged_files(self) -> Iterator[Path]:
        """Damaged entries that nobody is making again; each is locked until the next is asked."""
        for found in upkeep.damages(self._layout):
            with self.try_lock(found.namespace, found.key) as mine:
                if mine and upkeep.is_damaged(found.namespace, found.key, found.path):
                    yield found.path

    @contextmanager
    def _held(self, namespace: str, key: str, timeout: float) -> Iterator[bool]:
        with ExitStack() as taken:
            try:
                lock = locks.held_giving_way(self._layout.lock(namespace, key), timeout)
                held = taken.enter_context(lock)
            except OSError as error:
                raise write_error(self.root, error) from error
            yield held


def _mark_used(path: Path) -> None:
    with suppress(OSError):  # a read-only store keeps no account of use
        if time.time() - path.stat().st_mtime > USE_SECONDS:
            os.utime(path)
