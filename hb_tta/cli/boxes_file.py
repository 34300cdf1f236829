"""The file that ``hb-tta bootstrap`` fills: a line of JSON an image, and how it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import objects_in, read_bytes, read_json

BOXES, SETTINGS = "boxes.jsonl", "bootstrap.json"


class BoxesFile:
    """``boxes.jsonl``, written line by line in the order of the images.

    An earlier run's lines count as long as they are of the same images and captions, in order; from
    the first that is not, the file is written anew. Half a line of a killed run is one of these.

    Args:
        folder: made as needed.
        settings: what decides a line; an earlier run's must be the same.

    Raises:
        UserError: the folder holds boxes that were found otherwise.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / BOXES
        self.done = 0
        self._file: IO[bytes] | None = None
        self._claim(folder / SETTINGS, settings)
        self._earlier = self._lines()

    def known(self, index: int, image: str, caption: str | None) -> dict[str, Any] | None:
        """The earlier line of an image, if it is the next; it stays then.

        Args:
            index: of the row.
            image: its path from the folder.
            caption: that was given; ``None``: the line has a describer's.
        """
        line = next(self._earlier, None)
        if line is None:
            return None
        same = line.get("index") == index and line.get("image") == image
        if same and (caption is None or line.get("caption") == caption) and "failure" not in line:
            self.done += 1
            return line
        self._earlier = iter(())
        return None

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line; it is in the file when this returns."""
        if self._file is None:
            self._cut()
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        self._file.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        self.done += 1

    def close(self) -> None:
        """Ends the file; earlier lines behind the last image are cut off."""
        if self._file is None:
            self._cut()
        else:
            self._file.close()

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

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for _, line in objects_in(self.path):
            if line is None:
                return
            yield line

    def _cut(self) -> None:
        """Leaves the lines that count."""
        if self.path.exists():
            lines = read_bytes(self.path).split(b"\n")[: self.done]
            write_aside(self.path, b"".join(line + b"\n" for line in lines))
