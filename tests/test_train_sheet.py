"""Sheets of a training: what they show where, of any sizes, texts and numbers of processes."""

from pathlib import Path

import numpy as np
from PIL import Image

from hb_tta.context import MultimodalContext
from hb_tta.datasets.samples import Example
from hb_tta.training.prepare import Sample
from hb_tta.training.sheet import CELL, GAP, HEAD, TEXT, SampleSheets, SheetRow, draw

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def plain(colour: tuple[int, int, int], side: int = CELL) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def colour_at(sheet: Image.Image, row: int, column: int, side: int = CELL) -> tuple[int, ...]:
    """Of the middle of a cell."""
    x = TEXT + column * (side + GAP) + side // 2
    return tuple(np.asarray(sheet)[HEAD + row * (side + GAP) + side // 2, x].tolist())


class OneColour:
    """A source whose row n is one colour that tells n."""

    def fingerprint(self):
        return "one colour"

    def size(self):
        return 250

    def read(self, start, stop):
        for number in range(start, stop):
            image = Image.new("RGB", (64, 64), (number, number, number))
            yield Example(MultimodalContext(image, "question", "vqa"), None)


def sheets(folder: Path, *numbers: int) -> SampleSheets:
    shown = [Sample(n, folder, 0, "digest", f"description {n}") for n in numbers]
    return SampleSheets(folder, OneColour(), shown)


def test_each_noise_has_its_untuned_picture_at_the_left_of_todays(tmp_path):
    its = sheets(tmp_path, 30, 90)
    its.write(0, [[plain(RED), plain(GREEN)]] * 2)
    now = Image.open(its.write(7, [[plain(BLUE), plain(BLUE)]] * 2))
    for row, reference in enumerate((30, 90)):
        assert colour_at(now, row, 0) == (reference,) * 3
        assert [colour_at(now, row, column) for column in range(1, 5)] == [RED, BLUE, GREEN, BLUE]


def test_a_run_that_goes_on_finds_what_was_drawn_before(tmp_path):
    sheets(tmp_path, 30, 90).write(0, [[plain(RED)], [plain(GREEN)]])
    # On two processes every other row is shown.
    now = Image.open(sheets(tmp_path, 90, 150).write(9, [[plain(BLUE)], [plain(BLUE)]]))
    assert [colour_at(now, 0, column) for column in range(3)] == [(90, 90, 90), GREEN, BLUE]
    assert [colour_at(now, 1, column) for column in range(2)] == [(150, 150, 150), BLUE]


def test_a_row_whose_untuned_pictures_are_gone_shows_the_rest(tmp_path):
    now = Image.open(sheets(tmp_path, 30).write(5, [[plain(BLUE), plain(RED)]]))
    assert [colour_at(now, 0, column) for column in range(3)] == [(30, 30, 30), BLUE, RED]


def test_pictures_that_lie_across_in_memory_are_kept_as_they_are(tmp_path):
    crossed = (
        np.random.default_rng(0).integers(0, 256, (3, CELL, CELL), np.uint8).transpose(1, 2, 0)
    )
    its = sheets(tmp_path, 30)
    its.write(0, [[crossed]])
    now = Image.open(its.write(1, [[plain(BLUE)]]))
    left = TEXT + CELL + GAP
    kept = now.crop((left, HEAD, left + CELL, HEAD + CELL))
    assert np.array_equal(np.asarray(kept), crossed)


def test_any_size_and_any_text_give_a_sheet():
    for size in ((1, 1), (64, 64), (300, 40), (1024, 2048)):
        row = SheetRow("犬 " * 500, Image.new("RGB", size), [plain(RED, 300)], [plain(BLUE, 300)])
        assert draw([row], 1).size[0] == TEXT + 3 * (CELL + GAP)
