"""Files of a data set on disk: which of them count.

Names that begin with a dot (``.ipynb_checkpoints``, ``._x.jpg``) and ``__MACOSX`` are left by other
programs: nothing below them is ever part of a data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is another program's."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(root: Path) -> list[Path]:
    """The folders right below one, in the order of their names."""
    return sorted(f for f in root.iterdir() if f.is_dir() and not is_hidden(f.name))


def files_below(root: Path) -> list[Path]:
    """All files below a folder, in the order of their paths."""
    return sorted(_walk(root))


def images_below(root: Path) -> list[Path]:
    """All image files below a folder, in the order of their paths."""
    return [file for file in files_below(root) if file.suffix.lower() in IMAGE_SUFFIXES]


def listing_digest(root: Path | None) -> str | None:
    """A digest of the names and sizes of a folder's files; ``None`` of none."""
    if root is None:
        return None
    listing = [
        (str(f.relative_to(root)), f.stat().st_size) for f in files_below(root) if f.is_file()
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not is_hidden(name)]
        yield from (Path(folder, name) for name in files if not is_hidden(name))
