"""What an earlier process wrote of a training, read again: its shape is checked here, once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.reading import objects_in, read_json

Row = dict[str, Any]


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """``run.json``: "settings" and "models" by name.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError:
        found = None
    parts = ("settings", "models")
    if not isinstance(found, dict) or not all(isinstance(found.get(one), dict) for one in parts):
        raise UserError(
            f"{path} is damaged, so that nothing tells which run the folder holds: give another "
            "--out, or put back the file of that run"
        )
    return found


def read_rows(path: Path) -> tuple[list[Row], int]:
    """The sound lines of ``metrics.jsonl``, and how many are damaged; none without a file.

    Raises:
        UserError: it cannot be read.
    """
    rows, damaged = [], 0
    try:
        for _, row in objects_in(path):
            if row is not None and is_row(row):
                rows.append(row)
            else:
                damaged += 1
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    return rows, damaged


def is_row(row: Row) -> bool:
    """Whether all that is read of a line can be: its step, its speed, its held-out figures."""
    step, held_out = row.get("step"), row.get("held_out", {})
    speed = row.get("images_per_second", 1.0)
    return (
        isinstance(step, int)
        and not isinstance(step, bool)
        and step >= 0
        and isinstance(held_out, dict)
        and all(map(_is_number, held_out.values()))
        and _is_number(row.get("diversity", 0.0))
        and _is_number(speed)
        and 0 < speed < math.inf
    )


def _is_number(value: Any) -> bool:
    """NaN is one: of a training that went wrong."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)
