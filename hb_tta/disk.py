"""Files that are whole or absent: everything the package keeps on disk is written through here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cache_root() -> Path:
    """The folder for what can be made again: ``$XDG_CACHE_HOME/hb_tta``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hb_tta"


def write_aside(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that whoever looks, at any moment, finds the old one, the new one or none.

    The bytes go to a temporary name in the same folder (folders are made as needed), are flushed to
    the disk and renamed over ``path``; then the folder is flushed too. When this returns, a power
    cut does not lose the file. A failed or interrupted write removes its temporary file; a killed
    one leaves it behind, under a hidden name that ends in ``.tmp``.

    Raises:
        OSError: the file cannot be written. The old one, if any, is untouched.
    """
    path = Path(path)
    _make_folders(path.parent)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        with suppress(OSError):
            aside.unlink()
        raise
    _sync_folder(path.parent)


def _make_folders(folder: Path) -> None:
    """``mkdir -p`` whose new names survive a power cut."""
    for missing in _missing_folders(folder):
        missing.mkdir(exist_ok=True)
        _sync_folder(missing.parent)


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
