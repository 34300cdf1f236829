"""The file that ``hb-tta bootstrap`` fills: a line of JSON an image, and how it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hb_tta.cli.output import Lines
from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import objects_in, read_json
from hb_tta.shards import Shard

BOXES, SETTINGS = "boxes.jsonl", "bootstrap.json"


class BoxesFile:
    """``boxes.jsonl``, a line an image, in their order.

    A line of an earlier run counts if it is of the same row, image and caption, and tells of no
    failure. No part of a run makes the file shorter than it was (``Lines``).

    Args:
        folder: made as needed.
        settings: what decides a line; an earlier run's must be the same.
        shard: which part of a run this is, with a file of its own; ``None``: the whole.

    Raises:
        UserError: the folder holds boxes that were found otherwise.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self.folder = folder
        self.path = folder / (BOXES if shard is None else shard.of(BOXES))
        self.images = 0
        self._claim(folder / SETTINGS, settings)
        self._earlier = _sound(self.path)
        self._next = next(self._earlier, None)
        self._lines = Lines(self.path)

    def known(self, index: int, image: str, caption: str | None) -> dict[str, Any] | None:
        """An earlier run's line of an image.

        Args:
            index: of the row; those of later calls are larger.
            image: its path from the folder.
            caption: that was given; ``None``: the line has a describer's.
        """
        while self._next is not None and _index(self._next) < index:
            self._next = next(self._earlier, None)
        line = self._next
        if line is None or "boxes" not in line or _index(line) != index:
            return None
        if line.get("image") != image or caption not in (None, line.get("caption")):
            return None
        return line

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line; it is in the file when this returns."""
        self._lines.write(line)
        self.images += "boxes" in line

    def close(self, *, whole: bool) -> None:
        """Ends the file.

        Args:
            whole: whether these are all lines of the run.
        """
        self._lines.close(whole=whole)

    def relative(self, image: Path) -> str:
        """An image's path from the folder."""
        try:
            return Path(os.path.relpath(image, self.folder)).as_posix()
        except ValueError:  # on Windows, another drive
            return str(image.absolute())

    def _claim(self, path: Path, settings: dict[str, Any]) -> None:
        if path.exists():
            try:
                old = read_json(path)
            except (OSError, ValueError) as error:
                raise UserError(f"{path} is damaged ({error}): give another --out") from error
            if old != settings:
                other = next((k for k in settings if (old or {}).get(k) != settings[k]), "settings")
                raise UserError(
                    f"{self.folder} holds boxes that were found with another {other}: give another "
                    "--out, or the same again"
                )
        write_aside(path, (json.dumps(settings, indent=2) + "\n").encode())


def _sound(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an earlier run; the half line of a killed one is none."""
    if path.exists():
        yield from (line for _, line in objects_in(path) if line is not None)


def _index(line: dict[str, Any]) -> int:
    index = line.get("index")
    return index if isinstance(index, int) else -1
