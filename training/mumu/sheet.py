"""The sheets of a training of MUMU: prompts with their crops, the target, what the model draws."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from hb_tta.disk import write_aside
from hb_tta.training.mumu.prompts import Drawn

CELL, GAP, HEAD, TEXT = 144, 6, 40, 260  # pixels


@dataclass(frozen=True)
class SheetRow:
    """A held-out row: prompt, its own picture, the model's (``None``: it draws none yet)."""

    drawn: Drawn
    target: Image.Image
    picture: Image.Image | None


class MumuSheets:
    """Writes ``samples/step_….png`` of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, step: int, rows: Sequence[SheetRow]) -> Path:
        """The sheet of a step."""
        path = self._folder / f"step_{step:06d}.png"
        buffer = io.BytesIO()
        draw(rows, step).save(buffer, "PNG")
        write_aside(path, buffer.getvalue())
        return path


def draw(rows: Sequence[SheetRow], step: int) -> Image.Image:
    """A row a prompt: its words, its images, the target, the model's picture."""
    most = max(len(row.drawn.prompt.images) for row in rows)
    names = [*(f"image {number + 1}" for number in range(most)), "target", "drawn"]
    width, height = CELL + GAP, CELL + GAP
    sheet = Image.new("RGB", (TEXT + len(names) * width, HEAD + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 4), f"Held-out prompts after step {step}", fill="black")
    for place, name in enumerate(names):
        pen.text((TEXT + place * width, HEAD - 16), name, fill="black")
    for number, row in enumerate(rows):
        top = HEAD + number * height
        pen.multiline_text((4, top), _wrapped(row.drawn), fill="black")
        images: list[Image.Image | None] = list(row.drawn.prompt.images)
        images += [None] * (most - len(images))
        for place, image in enumerate([*images, row.target, row.picture]):
            if image is not None:
                sheet.paste(_cell(image), (TEXT + place * width, top))
    return sheet


def _wrapped(drawn: Drawn, width: int = 40) -> str:
    text = drawn.prompt.written("[image]")
    plain = text.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font knows
    return "\n".join(textwrap.wrap(plain, width)[:8])


def _cell(image: Image.Image) -> Image.Image:
    """Within the cell; small ones are enlarged with crisp edges."""
    factor = CELL // max(image.size)
    if factor >= 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    smaller = image.copy()
    smaller.thumbnail((CELL, CELL))
    return smaller
