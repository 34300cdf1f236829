"""A harness's files, other people's too: JSON objects, nested no deeper than any harness nests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hb_tta import reading
from hb_tta.errors import UserError

DEEPEST = 40
"""Levels of lists and objects; Python's own limit differs with the depth of the call."""

Line = dict[str, Any]
Lines = list[Line]


def read_lines(path: Path) -> Lines:
    """The objects of a file with one in each line.

    Raises:
        UserError: a line is damaged, or the file cannot be read.
    """
    texts = enumerate(read_text(path).split("\n"), 1)  # a question may hold a U+2028
    return [parsed(text, f"{path}, line {place}") for place, text in texts if text.strip()]


def read_object(path: Path) -> Line:
    """The object that a file holds.

    Raises:
        UserError: it holds none, or cannot be read.
    """
    return parsed(read_text(path), str(path))


def parsed(text: str, where: str) -> Line:
    """An object out of JSON.

    Raises:
        UserError: it is none.
    """
    try:
        found = reading.parse_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or is_deep(found):
        raise UserError(f"{where} is damaged: evaluate again")
    return found


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        UserError: it is none, or cannot be read.
    """
    try:
        return reading.read_text(path)
    except ValueError:
        raise UserError(f"{path} is no text: name a samples file of lmms-eval") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def is_deep(value: Any) -> bool:
    """Whether it is nested deeper than ``DEEPEST``."""
    return reading.is_deep(value, DEEPEST)


def number(value: Any) -> float | None:
    """A finite number; None for anything else, truth values among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
