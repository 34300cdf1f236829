"""The sheets of a training: each held-out context's own picture, what the untuned generator drew of
it, and what this step's draws from the same noises.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save

from hb_tta.datasets.samples import Example
from hb_tta.disk import write_aside
from hb_tta.training.data import Source
from hb_tta.training.prepare import Sample

CELL = 192  # largest side of a picture
GAP, HEAD, TEXT = 6, 40, 240  # pixels between cells, above them, left of them
UNTUNED = "untuned.safetensors"


@dataclass(frozen=True)
class SheetRow:
    """A held-out context.

    Attributes:
        description: what the generator is told.
        reference: the real picture.
        untuned, now: pictures by the untuned generator and by this step's, RGB uint8 (H, W, 3),
            from the same noises in the same order; ``untuned`` is empty where nobody has them.
    """

    description: str
    reference: Image.Image
    untuned: Sequence[np.ndarray]
    now: Sequence[np.ndarray]


class SampleSheets:
    """Writes ``samples/step_….png`` of a run, and keeps what the untuned generator drew.

    Args:
        folder: ``samples`` in the run's folder.
        source: has the references.
        shown: the held-out rows of the sheets, in order.
    """

    def __init__(self, folder: Path, source: Source, shown: Sequence[Sample]) -> None:
        self._folder, self._source, self._shown = folder, source, shown
        self._references: list[Image.Image] = []

    def write(self, step: int, pictures: Sequence[Sequence[np.ndarray]]) -> Path:
        """The sheet of a step.

        Args:
            step: 0 is the untuned generator.
            pictures: a row a context.
        """
        if step == 0:
            kept = {self._key(row): np.stack(drawn) for row, drawn in enumerate(pictures)}
            # safetensors writes an array's memory as it lies there
            whole = {key: np.ascontiguousarray(drawn) for key, drawn in kept.items()}
            write_aside(self._folder / UNTUNED, save(whole))
        path = self._folder / f"step_{step:06d}.png"
        _save(draw(self._rows(step, pictures), step), path)
        return path

    def _rows(self, step: int, pictures: Sequence[Sequence[np.ndarray]]) -> list[SheetRow]:
        file = self._folder / UNTUNED
        untuned = load_file(file) if step and file.exists() else {}
        return [
            SheetRow(
                self._shown[row].description,
                self._reference(row),
                list(untuned.get(self._key(row), ())),
                drawn,
            )
            for row, drawn in enumerate(pictures)
        ]

    def _key(self, row: int) -> str:
        """Which processes share a run, and so which rows are shown, may change when it goes on."""
        return str(self._shown[row].number)

    def _reference(self, row: int) -> Image.Image:
        while len(self._references) <= row:
            number = self._shown[len(self._references)].number
            (example,) = self._source.read(number, number + 1)
            assert isinstance(example, Example), "a row that was good stays good"
            self._references.append(example.context.image)
        return self._references[row]


def draw(rows: Sequence[SheetRow], step: int) -> Image.Image:
    """The sheet: a row a context; of each noise, the untuned picture and at its right today's."""
    now = "untuned" if step == 0 else f"step {step}"
    cells = [[_shrunk(row.reference), *_pairs(row)] for row in rows]
    names = ["reference", *_names(max(rows, key=lambda row: len(row.untuned)), now)]
    width = GAP + max(cell.width for row in cells for cell in row)
    height = GAP + max(cell.height for row in cells for cell in row)
    most = max(map(len, cells))
    sheet = Image.new("RGB", (TEXT + most * width, HEAD + len(cells) * height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 4), f"Held-out contexts after step {step}", fill="black")
    for place, name in enumerate(names):
        pen.text((TEXT + place * width, HEAD - 16), name, fill="black")
    for number, (row, its) in enumerate(zip(rows, cells, strict=True)):
        top = HEAD + number * height
        pen.multiline_text((4, top), _wrapped(row.description), fill="black")
        for place, cell in enumerate(its):
            sheet.paste(cell, (TEXT + place * width, top))
    return sheet


def _pairs(row: SheetRow) -> list[Image.Image]:
    now = [_cell(picture) for picture in row.now]
    if len(row.untuned) != len(now):
        return now
    before = [_cell(picture) for picture in row.untuned]
    return [cell for both in zip(before, now, strict=True) for cell in both]


def _names(row: SheetRow, now: str) -> list[str]:
    paired = len(row.untuned) == len(row.now)
    return [name for _ in row.now for name in (("untuned", now) if paired else (now,))]


def _cell(picture: np.ndarray) -> Image.Image:
    return _shrunk(Image.fromarray(picture))


def _shrunk(image: Image.Image) -> Image.Image:
    """No side longer than ``CELL``; small ones are enlarged with crisp edges."""
    if max(image.size) < CELL:
        factor = max(1, CELL // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    smaller = image.copy()
    smaller.thumbnail((CELL, CELL))
    return smaller


def _wrapped(text: str, width: int = 36, lines: int = 12) -> str:
    plain = text.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font knows
    return "\n".join(textwrap.wrap(plain, width)[:lines])


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_aside(path, buffer.getvalue())
