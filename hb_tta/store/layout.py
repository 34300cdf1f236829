"""Where things lie in a store's folder, and what its entries, leftovers and locks are called."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hb_tta.disk import cache_root
from hb_tta.errors import UserError
from hb_tta.reading import user_path

EXTENSIONS = {
    "views": (".png", ".webp"),
    "descriptions": (".json",),
    "boxes": (".json",),
    "scores": (".json",),
    "features": (".safetensors",),
}
"""Of each namespace's entries; of several the payload's own beginning says which."""

MARK = ".hb-tta-store"
"""The file that makes a folder a store: others, too, keep files of 64 hex digits."""

_LOCKS, _SET_ASIDE = ".locks", ".damaged"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]*")
_SHARD = re.compile(r"[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z]+)?")
_LEFTOVER_NAME = re.compile(r"\.[0-9a-f]{64}(\.[a-z]+)?\.[0-9a-f]{16}\.tmp")

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Entry:
    """A file of the store: where it is, how large (bytes), last used when (seconds since 1970)."""

    namespace: str
    key: str
    path: Path
    size: int
    used: float


def default_store_root() -> Path:
    """``$HB_TTA_STORE``, else ``~/.cache/hb_tta/store`` (``XDG_CACHE_HOME`` is respected).

    Raises:
        UserError: there is no home folder to keep it in.
    """
    named = os.environ.get("HB_TTA_STORE")
    if named:
        return user_path(named)
    root = cache_root()
    if root is None:
        raise UserError(
            "this user has no home folder to keep the store in: name one with --store or "
            "$HB_TTA_STORE"
        )
    return root / "store"


class Layout:
    """The places of a store's folder, which need not exist.

    Args:
        root: the store's folder, absolute.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def mark(self) -> Path:
        """Of the file that makes the folder a store."""
        return self.root / MARK

    @property
    def seen(self) -> Path:
        """Of the file that says that the address was there of which this is a copy."""
        return self.root / ".hb-tta-seen"

    @property
    def names(self) -> Path:
        """Of the file with the names of weights that others have."""
        return self.root / ".hb-tta-weights.json"

    def path(self, namespace: str, key: str) -> Path:
        """Of an entry; where there is none, of one that may come."""
        first, *others = self._paths(namespace, key)
        if not others or first.exists():
            return first
        return next((path for path in others if path.exists()), first)

    def new_path(self, namespace: str, key: str, payload: bytes) -> Path:
        """Of an entry that is to be written."""
        paths = self._paths(namespace, key)
        return paths[payload[8:12] == b"WEBP" and len(paths) > 1]

    def _paths(self, namespace: str, key: str) -> list[Path]:
        check_address(namespace, key)
        folder = self.root / namespace / key[:2]
        return [folder / (key + suffix) for suffix in EXTENSIONS.get(namespace, ("",))]

    def lock(self, namespace: str, key: str) -> Path:
        """Of the lock that a key shares with others: 4096 files a namespace.

        A lock file that is removed while somebody waits for it splits into two locks, so these
        are never removed; that they are few is what keeps them from piling up.
        """
        check_address(namespace, key)
        return self.root / _LOCKS / f"{namespace}-{key[:3]}.lock"

    def aside(self, namespace: str, path: Path) -> Path:
        """Where a damaged entry goes."""
        return self.root / _SET_ASIDE / namespace / path.name

    def entries(self, only: str | None = None) -> Iterator[Entry]:
        """Every entry, damaged or not, by namespace and key; of one namespace if it is said."""
        for namespace, path in self._files(only):  # of ours, by names that only we give
            key = entry_named(namespace, path.name)
            if key is not None and key[:2] == path.parent.name:
                with suppress(FileNotFoundError):  # pruned by another process meanwhile
                    status = path.stat()
                    yield Entry(namespace, key, path, status.st_size, status.st_mtime)

    def leftovers(self, older_than: float = 0.0) -> Iterator[Path]:
        """Temporary files of writers at work or killed, at least so old (seconds)."""
        for _, path in self._files():
            if _LEFTOVER_NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if time.time() - path.stat().st_mtime >= older_than:
                        yield path

    def set_aside(self) -> Iterator[Path]:
        """Damaged entries that were moved out of the way."""
        self._check()
        for namespace in EXTENSIONS:
            for path in self._listed(self.root / _SET_ASIDE / namespace):
                if _ENTRY_NAME.fullmatch(path.name):
                    yield path

    def _files(self, only: str | None = None) -> Iterator[tuple[str, Path]]:
        """(namespace, path) of every file where entries and their leftovers lie."""
        self._check()
        for namespace in sorted(EXTENSIONS) if only is None else [only]:
            for shard in self._listed(self.root / namespace, folders=True):
                if _SHARD.fullmatch(shard.name):
                    yield from ((namespace, path) for path in self._listed(shard))

    def _check(self) -> None:
        """Raises UserError for a folder that holds something and is no store of ours."""
        seen = [name for name in self._names(self.root) if not name.startswith(".")]
        if not seen or _is_file(self.mark):
            return
        raise UserError(
            f"{str(self.root)!r} is no store of hb-tta, it has no file {MARK}: name the store's "
            f"folder with --store (a store of an earlier version: make an empty {MARK} in it)"
        )

    def _listed(self, folder: Path, folders: bool = False) -> list[Path]:
        """The regular files in a folder, or its folders, sorted; nothing where it is no folder.

        A link is neither, so that nothing outside the store is looked at.
        """
        if folder.is_symlink() or folder.parent.is_symlink() and folder.parent != self.root:
            return []
        return [folder / name for name in self._names(folder, "folder" if folders else "file")]

    def _names(self, folder: Path, only: str = "") -> list[str]:
        """What a folder holds, sorted; of a "file" or a "folder" no link is one."""
        try:
            with os.scandir(folder) as found:  # which tells them apart without a look at each
                return sorted(it.name for it in found if not only or _kind(it) == only)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise read_error(folder, error) from error


def entry_named(namespace: str, name: str) -> str | None:
    """The key of an entry by its file's name; ``None``: it is no entry's."""
    matched = _ENTRY_NAME.fullmatch(name)
    suffixes = EXTENSIONS.get(namespace, ("",))
    return matched[1] if matched and (matched[2] or "") in suffixes else None


def _kind(found: os.DirEntry[str]) -> str | None:
    with suppress(OSError):  # pruned by another process meanwhile
        if found.is_file(follow_symlinks=False):
            return "file"
        if found.is_dir(follow_symlinks=False):
            return "folder"
    return None


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # pruned by another process meanwhile
        return False


def check_address(namespace: str, key: str) -> None:
    """Raises ValueError where a name could lead out of the store's folder."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is no namespace: a-z, 0-9, _ and - alone")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: content_key gives 64 hex digits")


def read_error(path: Path, error: OSError) -> UserError:
    """What a person is told where a file of the store cannot be read."""
    return UserError(
        f"{path} of the store cannot be read ({error.strerror}): mend its permissions, or name"
        " another store with --store"
    )


def write_error(root: Path, error: OSError) -> UserError:
    """What a person is told where the store cannot be written."""
    if error.errno in _READ_ONLY:
        problem = "is read-only and something has to be written"
    elif error.errno in _FULL:
        problem = "is on a full disk (free some: hb-tta store prune)"
    else:
        problem = f"cannot be written ({error.strerror or error})"
    return UserError(f"the store {root} {problem}: name a folder to write in with --store")
