"""Captioned images with boxes of their words: what MUMU is trained on.

A source is read by row numbers; a row that cannot be used is a ``BadRecord``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from PIL import Image

from hb_tta.datasets.own import open_rows
from hb_tta.datasets.pocket import TRAINING_SEED
from hb_tta.datasets.rows import Columns, OwnRows, Row, parsed
from hb_tta.detect import Box
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.pocket.boxes import word_boxes
from hb_tta.pocket.captions import Mention, caption, told_from_either
from hb_tta.pocket.edition import BUNDLED, Edition
from hb_tta.pocket.world import Scene, render, sample_scenes
from hb_tta.training.data import BadRecord
from hb_tta.training.settings import Common


@dataclass(frozen=True)
class Captioned:
    """An image, its caption, and where the caption's words are in it.

    Attributes:
        image: RGB, the path of a file, or a scene of the pocket world.
        caption: the equivalent of every prompt that is made of it.
        boxes: in the order of the caption.
    """

    image: Any
    caption: str
    boxes: tuple[Box, ...]


class CaptionedImages(Protocol):
    """Rows of captioned images."""

    def fingerprint(self) -> Any:
        """Plain JSON that differs where the rows do."""
        ...

    def size(self) -> int:
        """The number of rows."""
        ...

    def read(self, row: int) -> Captioned | BadRecord:
        """A row; its pixels are not read."""
        ...


class Bootstrapped:
    """The rows that `hb-tta bootstrap` wrote."""

    def __init__(self, rows: OwnRows, columns: Columns) -> None:
        self._rows, self._columns = rows, columns
        self._columns.check(rows)

    def fingerprint(self) -> Any:
        """Of the file's text: its images are told by their paths."""
        return self._rows.fingerprint()

    def size(self) -> int:
        """See ``CaptionedImages``."""
        size = self._rows.size()
        return sum(1 for _ in self._rows) if size is None else size

    def read(self, row: int) -> Captioned | BadRecord:
        """See ``CaptionedImages``."""
        for found in self._rows.rows(row, row + 1):
            try:
                return self._captioned(found)
            except (UserError, OSError) as error:
                return BadRecord(f"{found.called}: {error}")
        return BadRecord(f"row {row}: there is none")

    def _captioned(self, row: Row) -> Captioned:
        written = parsed(row.content)
        if "failure" in written:
            raise UserError(f"`hb-tta bootstrap` could not use it: {written['failure']}")
        record = self._columns.read(row, self._rows.root)
        text, boxes, size = (written.get(name) for name in ("caption", "boxes", "size"))
        if not isinstance(text, str) or not text.strip():
            raise UserError('it has no "caption": write boxes by `hb-tta bootstrap`')
        if not isinstance(boxes, list) or size is None or not _is_size(size):
            raise UserError('it has no "boxes" and "size": write them by `hb-tta bootstrap`')
        if not isinstance(record.image, bytes) and not record.image.is_file():
            raise UserError(f"there is no image {str(record.image)!r}: check the path")
        its = [Box.from_json(box, text, (size[0], size[1])) for box in boxes]
        return Captioned(record.image, text, tuple(sorted(its, key=lambda box: box.start)))


class PocketCaptioned:
    """Fresh scenes of the pocket world with their full captions; the boxes are the scene's own."""

    def __init__(self, edition: Edition = BUNDLED, seed: int = TRAINING_SEED) -> None:
        self._stream = sample_scenes(seed, edition=edition)
        self._drawn: list[Scene] = []

    def fingerprint(self) -> Any:
        """A picture of the world's rules: the first captions and boxes."""
        first = [self.read(row) for row in range(10)]
        return {"pocket-mumu": [(one.caption, [box.box for box in one.boxes]) for one in first]}

    def size(self) -> int:
        """As many as anyone may want: more could be drawn."""
        return 100_000

    def read(self, row: int) -> Captioned:
        """See ``CaptionedImages``."""
        self._drawn.extend(islice(self._stream, max(0, row + 1 - len(self._drawn))))
        rng = np.random.default_rng([row, 0xB0C5])
        return told(self._drawn[row], rng)


def told(scene: Scene, rng: np.random.Generator, mention: Mention | None = None) -> Captioned:
    """A scene with its caption and, of each group that is named, the box of one of its things.

    Args:
        rng: draws the group that it is told from, whether the ground is named, and the things.
        mention: what is named; ``None``: all, the ground in half of the captions.
    """
    scene = told_from_either(scene, rng)
    text = caption(scene, mention or Mention(background=bool(rng.random() < 0.5)))
    return Captioned(scene, text, word_boxes(scene, text, rng))


LAYOUTS: dict[str, Callable[[], CaptionedImages]] = {"pocket-mumu": PocketCaptioned}
"""Data by name."""


def open_captioned(settings: Common) -> CaptionedImages:
    """The captioned images that a training's settings name.

    Raises:
        UserError: there are none of that name, or they cannot be read.
    """
    if settings.data is None:
        raise UserError(
            "the recipe names no data: write boxes by `hb-tta bootstrap IMAGES --out DIR` and give "
            "--data DIR/boxes.jsonl"
        )
    if settings.data in LAYOUTS:
        return LAYOUTS[settings.data]()
    rows = open_rows(settings.data)
    if rows is None:
        raise UserError(
            f"{settings.data!r} holds images and no boxes: write them by `hb-tta bootstrap`, and "
            "name the file boxes.jsonl"
        )
    return Bootstrapped(rows, Columns(settings.image_column))


def with_pixels(row: Captioned, number: int) -> Captioned:
    """A row with its pixels.

    Raises:
        UserError: the image has gone, or is damaged, since the boxes were written.
    """
    if isinstance(row.image, Image.Image):
        return row
    if isinstance(row.image, Scene):
        return replace(row, image=render(row.image))
    try:
        return replace(row, image=load_image(row.image))
    except UserError as error:
        raise UserError(
            f"the image of row {number} cannot be read any more ({error}): put it back, or write "
            "the boxes again by `hb-tta bootstrap`"
        ) from error


def survey(source: CaptionedImages, rows: int) -> Iterator[tuple[int, str | None]]:
    """The rows' numbers, each with why it cannot be used, or ``None``."""
    for row in range(rows):
        found = source.read(row)
        yield row, found.reason if isinstance(found, BadRecord) else None


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(isinstance(side, int) and 0 < side < 2**20 for side in size)
    )
