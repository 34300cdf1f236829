"""Reading what somebody else wrote: regular files alone, JSON of any shape, one line at a time.

A path that a person or a data set names may be a pipe that never ends, a device or a folder; JSON
may be cut, nested too deep, or hold a number of 5,000 digits. Every file that the package reads by
itself is read through here, and goes wrong in two ways alone: ``OSError`` and ``ValueError``.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

DEEPEST = 100
"""Levels of lists and objects in JSON; Python's own limit differs with the depth of the call."""

Place = str | os.PathLike[str]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MARK = b"\xef\xbb\xbf"  # a byte-order mark is no part of a text


def open_regular(path: Place) -> BufferedReader:
    """A regular file, opened to be read as bytes; of anything else nothing is waited for.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def read_bytes(path: Place) -> bytes:
    """A regular file's bytes.

    Raises:
        OSError: see ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read()


def read_text(path: Place) -> str:
    """A regular file's text, without a byte-order mark.

    Raises:
        OSError: see ``open_regular``.
        ValueError: it is no UTF-8.
    """
    return read_bytes(path).removeprefix(_MARK).decode("utf-8")


def read_json(path: Place) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: see ``open_regular``.
        ValueError: it holds none.
    """
    return parse_json(read_bytes(path))


def parse_json(text: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, no UTF-8, or nested deeper than ``DEEPEST``.
    """
    if isinstance(text, bytes):
        text = text.removeprefix(_MARK).decode("utf-8")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and is_deep(found):
        raise ValueError("it is nested too deep")
    return found


def is_deep(value: Any, deepest: int = DEEPEST) -> bool:
    """Whether lists and objects are nested in more than ``deepest`` levels."""
    level = [value]
    for _ in range(deepest):
        level = [inner for outer in level for inner in _items(outer)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def lines_in(path: Place) -> Iterator[tuple[int, bytes]]:
    """The lines of a regular file with their numbers, from 1; those without text are left out.

    A line ends at ``\\n`` alone: a text may hold the other characters at which ``str.splitlines``
    would cut it (U+2028, U+2029, U+0085).

    Raises:
        OSError: see ``open_regular``.
    """
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(_MARK) if number == 1 else line
            if line.strip():
                yield number, line


def objects_in(path: Place) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The JSON objects of a file with one a line, and the lines' numbers; None for another line.

    Raises:
        OSError: see ``open_regular``.
    """
    for number, line in lines_in(path):
        try:
            found = parse_json(line)
        except ValueError:
            found = None
        yield number, found if isinstance(found, dict) else None


def user_path(text: Place) -> Path:
    """A path as a person writes it: ``~`` is their home, where they have one.

    Never fails, other than ``Path.expanduser``: a name that begins with a tilde stays one where
    there is no such person.
    """
    return Path(os.path.expanduser(os.fspath(text)))


def inside(folder: Path, name: str) -> Path:
    """The file of a name that data gave, below a folder.

    Raises:
        ValueError: the name is empty, absolute, or leads out of the folder.
    """
    path = Path(name)
    if not name or "\0" in name or path.is_absolute() or path.drive or ".." in path.parts:
        raise ValueError(f"{name!r} leads out of {str(folder)!r}")
    return folder / path
