"""Files that are whole or absent: everything the package keeps on disk is written through here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from hb_tta.reading import read_bytes

FLUSHES_AT_ONCE = 16  # a file system's journal takes them together


def cache_root() -> Path | None:
    """The folder for what can be made again: ``$XDG_CACHE_HOME/hb_tta``, else ``~/.cache``.

    None for a user without a home (``docker run -u 12345``): nothing is kept there then.
    """
    named = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if named.startswith("~") else Path(named) / "hb_tta"


def write_aside(path: str | os.PathLike[str], data: bytes, *, flush: bool = True) -> None:
    """Write a file so that whoever looks, at any moment, finds the old one, the new one or none.

    The bytes go to a temporary name in the same folder (folders are made as needed), are flushed to
    the disk and renamed over ``path``; then the folder is flushed too. When this returns, a power
    cut does not lose the file. A failed or interrupted write removes its temporary file; a killed
    one leaves it behind, under a hidden name that ends in ``.tmp``.

    Args:
        flush: False: leave it to the operating system when the bytes reach the disk. A kill loses
            nothing then, a power cut may lose the file.

    Raises:
        OSError: the file cannot be written. The old one, if any, is untouched.
    """
    path = Path(path)
    _make_folders(path.parent)
    aside = _write_beside(path, data, flush=flush)
    try:
        os.replace(aside, path)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        _discard(aside)
        raise
    if flush:
        _sync_folder(path.parent)


def write_group(files: Sequence[tuple[Path, bytes]]) -> None:
    """``write_aside`` of several files that are flushed together, and each folder once.

    Raises:
        OSError: one of them cannot be written. The others are there, as if each had been written
            by itself.
    """
    if len(files) == 1:
        return write_aside(*files[0])
    folders = list(dict.fromkeys(path.parent for path, _ in files))
    _make_folders(*folders)
    errors: list[OSError] = []
    with ThreadPoolExecutor(FLUSHES_AT_ONCE) as pool:
        asides = [pool.submit(_write_beside, path, data, flush=True) for path, data in files]
        for (path, _), aside in zip(files, asides, strict=True):
            try:
                os.replace(aside.result(), path)
            except OSError as error:
                errors.append(error)
        list(pool.map(_sync_folder, folders))
    if errors:
        raise errors[0]


def holds(path: Path, data: bytes) -> bool:
    """Whether a file is there and has exactly these bytes; one of another size is not read."""
    try:
        return path.stat().st_size == len(data) and read_bytes(path) == data
    except OSError:
        return False


def _write_beside(path: Path, data: bytes, *, flush: bool) -> Path:
    """A temporary file beside ``path`` that holds the data."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            if flush:
                os.fsync(file.fileno())
    except BaseException:
        _discard(aside)
        raise
    return aside


def _discard(aside: Path) -> None:
    with suppress(OSError):
        aside.unlink()


def _make_folders(*folders: Path) -> None:
    """``mkdir -p`` whose new names survive a power cut."""
    changed: dict[Path, None] = {}
    for folder in folders:
        for missing in _missing_folders(folder):
            missing.mkdir(exist_ok=True)
            changed[missing.parent] = None
    for parent in changed:
        _sync_folder(parent)


def _missing_folders(folder: Path) -> Iterator[Path]:
    """The folders to make, outermost first."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    return reversed(missing)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
