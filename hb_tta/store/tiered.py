"""A store at an address, ``s3://bucket/views``, with a store on this machine's disk before it.

What is asked for is looked up here first and fetched then; what is made is written here first, and
sent in the groups in which it is written. Entries lie there under the names that they have in any
store's folder, so that copying the one gives the other, and prove themselves whole: two writers of
one key harm nothing. What could not be sent waits here, marked, and goes with the next group.

``HB_TTA_STORE_OFFLINE=1`` asks nobody: what is here is used, what is made waits.
``HB_TTA_STORE_CACHE`` names the folder here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.disk import cache_root
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.reading import parse_json, read_bytes, user_path
from hb_tta.store.entries import DamagedEntry, NewEntry, proved, sealed
from hb_tta.store.layout import EXTENSIONS, MARK, Entry, entry_named
from hb_tta.store.remote import Remote, Unreachable
from hb_tta.store.store import Store
from hb_tta.store.upkeep import Damage, Pruned, StoreInfo, Usage

NAMES = ".hb-tta-weights.json"
LISTED_SECONDS = 300.0  # that a listing is believed; what was written since is asked for by name
ALIVE_SECONDS = 30.0  # that the address is believed to be there
AT_ONCE = 64  # entries in memory while they are fetched or sent
PARTS_AT_ONCE = 32  # folders that are listed together

_NEVER: tuple[float, dict[str, int]] = (-math.inf, {})


@dataclass(frozen=True)
class Sent:
    """What ``TieredStore.sync`` did: entries that were sent, and that still wait."""

    sent: int
    waiting: int


class TieredStore:
    """What ``Store`` does, at an address. Making one asks nobody and touches no disk.

    Args:
        address: of a folder, as fsspec writes it: ``s3://bucket/views``, ``gs://…``, ``file://…``.
        cache: the folder of the store on this machine.

    Attributes:
        root: the address.
        local: the store on this machine.

    Raises:
        UserError: there is no such kind of address, or what it needs is not installed.
    """

    def __init__(self, address: str, cache: str | os.PathLike[str] | None = None) -> None:
        self.root = address.rstrip("/")
        self.local = Store(_cache_of(self.root) if cache is None else cache)
        self._remote = None if _is_offline() else Remote(self.root)
        self._waiting = Waiting(self.local.root)
        self._listed: dict[str, tuple[float, dict[str, int]]] = {}
        self._alive_at = -ALIVE_SECONDS
        self._failed_at = -ALIVE_SECONDS
        self._told: set[str] = set()
        self._lock = threading.Lock()

    # ── What every store does ──

    def read(self, namespace: str, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """See ``Store.read``.

        Raises:
            UserError: it is not here and the address does not answer.
        """
        return self.local.read(namespace, key) or self._fetched(namespace, [key]).get(key)

    def fetch(self, namespace: str, keys: Sequence[str]) -> None:
        """Have entries here that will be read, many at once.

        Raises:
            UserError: the address does not answer.
        """
        rest = [key for key in keys if not self.local.has(namespace, key)]
        for start in range(0, len(rest), AT_ONCE):
            self._fetched(namespace, rest[start : start + AT_ONCE])

    def has(self, namespace: str, key: str) -> bool:
        """See ``Store.has``."""
        return not self.lacks(namespace, [key])

    def lacks(self, namespace: str, keys: Sequence[str]) -> dict[str, None]:
        """See ``Store.lacks``. The address is asked for lists, not for every key.

        Raises:
            UserError: the address does not answer.
        """
        rest = self.local.lacks(namespace, keys)
        if self._remote is None or not rest:
            return rest
        with self._answering():
            self._check_alive()
            listed = self._list([f"{namespace}/{part}" for part in sorted({k[:2] for k in rest})])
        there = {name.split(".")[0] for names in listed.values() for name in names}
        return {key: None for key in rest if key not in there}

    def put(self, namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """See ``Store.put``."""
        self.put_group(namespace, [NewEntry(key, payload, meta)])

    def put_group(self, namespace: str, entries: Sequence[NewEntry]) -> None:
        """See ``Store.put_group``. What cannot be sent waits here, and a warning says so.

        Raises:
            UserError: neither the disk here nor the address takes them.
        """
        kept = self._keep(namespace, entries)
        files = {_name(namespace, one.key, one.payload): sealed(namespace, one) for one in entries}
        if kept:
            self._waiting.add(files)
            self._send_earlier(but=files)
        failed = self._send(files, kept)
        if failed and not kept:
            raise UserError(
                f"the disk of {self.local.root} takes no more and {self.root} takes nothing "
                f"({next(iter(failed.values()))}): free some space (hb-tta store prune) and give "
                "the same command again, what was finished before is kept"
            )
        self._waiting.remove(name for name in files if name not in failed)

    def lock(self, namespace: str, key: str) -> AbstractContextManager[None]:
        """See ``Store.lock``: among the processes of this machine."""
        return self.local.lock(namespace, key)

    def try_lock(self, namespace: str, key: str) -> AbstractContextManager[bool]:
        """See ``Store.try_lock``: among the processes of this machine."""
        return self.local.try_lock(namespace, key)

    def known_weights(self) -> dict[str, str]:
        """See ``Store.known_weights``: those told here and there."""
        told: dict[str, str] = {}
        if self._remote is not None:
            with suppress(Unreachable, ValueError):  # then what is here has to do
                found = parse_json(self._remote.get([NAMES]).get(NAMES, b"{}"))
                told = {n: it for n, it in found.items() if isinstance(it, str)}
        return {**self.local.known_weights(), **told}

    def learn_weights(self, names: Mapping[str, str]) -> None:
        """See ``Store.learn_weights``."""
        self.local.learn_weights(names)
        if self._remote is not None and names:
            told = json.dumps({**self.known_weights(), **names}, indent=1).encode()
            self._remote.put({NAMES: told})

    # ── Looking after it ──

    def entries(self, namespace: str | None = None) -> Iterator[Entry]:
        """Every entry at the address, by namespace and key; offline those that are here.

        Raises:
            UserError: the address does not answer.
        """
        if self._remote is None:
            yield from self.local.entries(namespace)
            return
        for one in sorted(EXTENSIONS) if namespace is None else [namespace]:
            with self._answering():
                parts = [f"{one}/{part}" for part in self._remote.folders(one)]
            for start in range(0, len(parts), PARTS_AT_ONCE):
                with self._answering():
                    listed = self._remote.sizes(parts[start : start + PARTS_AT_ONCE])
                for part, names in listed.items():
                    for name, size in sorted(names.items()):
                        if key := entry_named(one, name):
                            yield Entry(one, key, Path(part, name), size, 0.0)

    def info(self) -> StoreInfo:
        """Count what is at the address; what is set aside or left behind is counted here."""
        namespaces: dict[str, Usage] = {}
        for entry in self.entries():
            usage = namespaces.get(entry.namespace, Usage())
            namespaces[entry.namespace] = usage + Usage(1, entry.size)
        here = self.local.info()
        return StoreInfo(
            self.root, namespaces, here.set_aside, here.leftovers, here, self._waiting.count()
        )

    def verify(self) -> list[Damage]:
        """Read every entry at the address, and those that are here; nothing is changed."""
        found = self.local.verify()
        entries = iter(self.entries() if self._remote is not None else ())
        while some := {entry.path.as_posix(): entry for entry in islice(entries, AT_ONCE)}:
            with self._answering():
                files = self._asked().get(some)
            for name, data in files.items():
                namespace, key = some[name].namespace, some[name].key
                try:
                    proved(namespace, key, data)
                except DamagedEntry as damage:
                    found.append(Damage(namespace, key, Path(name), str(damage)))
        return found

    def prune(
        self,
        older_than: float | None = None,
        max_bytes: int | None = None,
        *,
        verify: bool = False,
    ) -> Pruned:
        """``Store.prune`` of what is here; nothing goes at the address.

        Raises:
            UserError: something here still waits to be sent.
        """
        if self.sync().waiting and (older_than is not None or max_bytes is not None):
            raise UserError(
                f"{self._waiting.count()} entries are here alone, since {self.root} did not take "
                "them: `hb-tta store sync` sends them, then make room"
            )
        return self.local.prune(older_than, max_bytes, verify=verify)

    def system(self) -> tuple[Any, str] | None:
        """The fsspec file system of the address, and its place there; ``None``: it is not asked."""
        return None if self._remote is None else self._remote.system

    def sync(self) -> Sent:
        """Send what waits."""
        before = self._waiting.count()
        if self._remote is not None:
            self._failed_at = -ALIVE_SECONDS
            self._send_earlier(but={})
        after = self._waiting.count()
        return Sent(before - after, after)

    # ── The address ──

    def _fetched(
        self, namespace: str, keys: Sequence[str]
    ) -> dict[str, tuple[bytes, dict[str, Any]]]:
        """Entries of the address, kept here as they come; a damaged one counts as none."""
        if self._remote is None or not keys:
            return {}
        names = {name: key for key in keys for name in self._called(namespace, key)}
        with self._answering():
            files = self._remote.get(names)
            if len(files) < len(keys):
                self._check_alive()
        found = {}
        for name, data in files.items():
            key = names[name]
            try:
                found[key] = proved(namespace, key, data)
            except DamagedEntry as damage:
                self._warn(f"{self.root}/{name} is damaged ({damage}) and counts as missing")
        self._keep(namespace, [NewEntry(key, *entry) for key, entry in found.items()])
        return found

    def _called(self, namespace: str, key: str) -> list[str]:
        """What an entry may be called at the address: one name, where it was listed."""
        names = _names(namespace, key)
        _, listed = self._listed.get(f"{namespace}/{key[:2]}", _NEVER)
        return [n for n in names if n.rsplit("/", 1)[1] in listed] or names

    def _keep(self, namespace: str, entries: Sequence[NewEntry]) -> bool:
        """Write entries here; False where the disk takes no more, which a warning tells."""
        try:
            if entries:
                self.local.put_group(namespace, entries)
            return True
        except UserError as error:
            self._warn(f"nothing more is kept on this machine, {self.root} alone has it: {error}")
            return False

    def _send(self, files: Mapping[str, bytes], kept: bool) -> dict[str, Exception]:
        """Send files; those that were not taken, of which a warning tells if they are here."""
        failed: dict[str, Exception] = {}
        if self._remote is None:
            failed = dict.fromkeys(files, Unreachable("HB_TTA_STORE_OFFLINE is set"))
        elif time.monotonic() - self._failed_at < ALIVE_SECONDS and self._waiting.count():
            failed = dict.fromkeys(files, Unreachable("it did not a moment ago"))
        else:
            failed = self._sent(files)
        if failed and kept:
            self._warn(
                f"{self.root} does not take what is made ({next(iter(failed.values()))}): it waits "
                f"in {self.local.root}, and goes with what is made later or by `hb-tta store sync`"
            )
        return failed

    def _sent(self, files: Mapping[str, bytes]) -> dict[str, Exception]:
        try:
            self._check_alive()
        except (Unreachable, UserError) as error:
            self._failed_at = time.monotonic()
            return dict.fromkeys(files, error)
        failed = self._asked().put(files)
        if failed:
            self._failed_at = time.monotonic()
        for name in files.keys() - failed.keys():
            part, _, file = name.rpartition("/")
            if part in self._listed:
                self._listed[part][1][file] = len(files[name])
        return failed

    def _send_earlier(self, but: Mapping[str, bytes]) -> None:
        """What an earlier group or run left waiting, unless the address has just failed."""
        if self._remote is None or time.monotonic() - self._failed_at < ALIVE_SECONDS:
            return
        names = [name for name in self._waiting.names() if name not in but]
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            files = {}
            for name in some:
                with suppress(OSError):  # pruned by hand: there is nothing left to send
                    files[name] = read_bytes(self.local.root / name)
            failed = self._sent(files)
            self._waiting.remove(name for name in some if name not in failed)
            if failed:
                return

    def _list(self, parts: Sequence[str]) -> dict[str, dict[str, int]]:
        """What is in folders of the address, as it was a little while ago."""
        now = time.monotonic()
        old = [p for p in parts if now - self._listed.get(p, _NEVER)[0] > LISTED_SECONDS]
        for part, names in self._asked().sizes(old).items():
            self._listed[part] = now, names
        return {part: self._listed[part][1] for part in parts}

    def _check_alive(self) -> None:
        """That the store is at its address, where "not there" would otherwise mean "to be made".

        Raises:
            Unreachable: it does not answer, or takes no first file.
            UserError: there was a store, and now there is none.
        """
        with self._lock:
            if time.monotonic() - self._alive_at < ALIVE_SECONDS:
                return
            if MARK not in self._asked().get([MARK]):
                if self.local.seen():
                    raise UserError(
                        f"there is no store at {self.root} any more: check the address and the "
                        f"bucket; what is in {self.local.root} is kept (HB_TTA_STORE_OFFLINE=1 "
                        "uses that alone)"
                    )
                if failed := self._asked().put({MARK: b""}):
                    raise next(iter(failed.values()))
            self.local.see()
            self._alive_at = time.monotonic()

    def _asked(self) -> Remote:
        assert self._remote is not None
        return self._remote

    def _answering(self) -> AbstractContextManager[None]:
        return _Answering(self.root, self.local.root)

    def _warn(self, sentence: str) -> None:
        kind = sentence.split("(")[0]
        if kind not in self._told:  # once, not for every entry
            self._told.add(kind)
            warnings.warn(sentence, HbTtaWarning, stacklevel=4)


class _Answering(AbstractContextManager[None]):
    """Turns "does not answer" into a sentence."""

    def __init__(self, address: str, here: Path) -> None:
        self._address, self._here = address, here

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, Unreachable):
            raise UserError(
                f"{self._address} does not answer ({error}): check the network, the address and "
                f"the credentials, or use what is in {self._here} alone with HB_TTA_STORE_OFFLINE=1"
            ) from error


class Waiting:
    """Which entries are still to be sent: an empty file each, in the store's folder here."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ".waiting"

    def add(self, names: Mapping[str, bytes]) -> None:
        """Mark entries, before they are sent."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (self._folder / name.replace("/", "=")).touch()

    def remove(self, names: Iterator[str]) -> None:
        """These were sent."""
        for name in names:
            with suppress(FileNotFoundError):
                (self._folder / name.replace("/", "=")).unlink()

    def names(self) -> list[str]:
        """Of the entries that wait, as they are called at the address."""
        with suppress(FileNotFoundError, NotADirectoryError):
            found = [name.replace("=", "/") for name in sorted(os.listdir(self._folder))]
            return [n for n in found if n.count("/") == 2 and ".." not in n]
        return []

    def count(self) -> int:
        """How many there are."""
        return len(self.names())


def open_store(place: str | os.PathLike[str] | None = None) -> Store | TieredStore:
    """The store of a folder or an address; ``None``: ``$HB_TTA_STORE``, else the usual folder."""
    named = os.environ.get("HB_TTA_STORE") if place is None else os.fspath(place)
    return TieredStore(named) if named and "://" in named else Store(place)


def _cache_of(address: str) -> Path:
    """The folder here of an address."""
    named = os.environ.get("HB_TTA_STORE_CACHE")
    root = user_path(named) if named else cache_root()
    if root is None:
        raise UserError(
            f"this user has no home folder to keep what comes from {address}: name one with "
            "$HB_TTA_STORE_CACHE"
        )
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return root / name if named else root / "remote" / name


def _is_offline() -> bool:
    return os.environ.get("HB_TTA_STORE_OFFLINE", "").lower() in ("1", "true", "yes")


def _names(namespace: str, key: str) -> list[str]:
    """All that an entry may be called at the address."""
    return [f"{namespace}/{key[:2]}/{key}{suffix}" for suffix in EXTENSIONS.get(namespace, ("",))]


def _name(namespace: str, key: str, payload: bytes) -> str:
    names = _names(namespace, key)
    return names[payload[8:12] == b"WEBP" and len(names) > 1]
