"""Contact sheets of the card: pictures with what the reader read, right ones framed green."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hb_tta.context import DescribedContext
from hb_tta.disk import write_aside
from hb_tta.pocket.captions import caption
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.reading import Reading, fillings_kept, matches
from hb_tta.pocket.world import CONTACTS, NEIGHBOURS, SIZE, Scene, render, sample_scenes
from hb_tta.pocket.worn import KINDS, STRENGTHS, wear
from hb_tta.training.pocket_family.evaluate import captioned, draw, load_reader, round_trips
from hb_tta.training.pocket_family.measure import chosen_guidance, missing
from hb_tta.training.pocket_family.run import SEALED_SEED, RecipeRun, Scenes

COLUMNS, NUMBER = 4, 16
ZOOM, FRAME, GAP, LINE = 3, 4, 14, 13
RIGHT, WRONG, PAPER, INK = (40, 150, 70), (205, 45, 45), (250, 249, 246), (30, 30, 30)


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet (or two, side by side), a frame's colour or none, and lines below."""

    pictures: Sequence[Image.Image]
    lines: Sequence[str]
    right: bool | None = None


def draw_sheets(run: RecipeRun, folder: Path) -> None:
    """world.png, worn.png, round_trips.png, seeds.png and captions.png, on the sealed seed.

    Those of models that the run has not made yet are left out.
    """
    seed = SEALED_SEED + 1000 * run.seed
    _save(sheet(_world_cells(seed)), folder / "world.png")
    _save(sheet(_worn_cells(seed)), folder / "worn.png")
    if not missing(run, "reader_round_trips"):
        _save(sheet(_round_trip_cells(run, seed)), folder / "round_trips.png")
    if not missing(run, "captions"):
        _save(sheet(_seed_cells(run, seed)), folder / "seeds.png")
        _save(sheet(_caption_cells(run, seed)), folder / "captions.png")


def _world_cells(seed: int) -> list[Cell]:
    stream = sample_scenes(seed, edition=THIRD)
    scenes = list(islice(stream, NUMBER - len(CONTACTS)))
    scenes += [next(s for s in stream if s.relation == contact) for contact in CONTACTS]
    return [Cell([render(scene)], [caption(scene), _unnamed(scene)]) for scene in scenes]


def _unnamed(scene: Scene) -> str:
    """What the caption does not say."""
    fillings = ", ".join(group.filling for group in scene.groups)
    return f"({fillings}; {100 * scene.lean:.0f} % {NEIGHBOURS[scene.background]})"


def _worn_cells(seed: int) -> list[Cell]:
    """One scene a kind, clean and in every strength."""
    rng, cells = np.random.default_rng(seed), []
    for kind, scene in zip(KINDS, sample_scenes(seed, edition=THIRD), strict=False):
        picture = np.asarray(render(scene))
        cells.append(Cell([Image.fromarray(picture)], [caption(scene)]))
        for strength in STRENGTHS:
            worn = Image.fromarray(wear(picture, kind, strength, rng))
            cells.append(Cell([worn], [f"{kind}, strength {strength}"]))
    return cells


def _round_trip_cells(run: RecipeRun, seed: int) -> list[Cell]:
    scenes = Scenes(seed, NUMBER)
    decoded, psnr = round_trips(run, scenes.pictures)
    readings = load_reader(run).read(decoded)
    return [
        Cell(
            [Image.fromarray(before), Image.fromarray(after)],
            [f"{decibel:.1f} dB", str(reading)],
            matches(reading, scene) and fillings_kept(reading, scene),
        )
        for before, after, decibel, reading, scene in zip(
            scenes.pictures, decoded, psnr, readings, scenes.records, strict=True
        )
    ]


def _seed_cells(run: RecipeRun, seed: int) -> list[Cell]:
    scene = next(s for s in captioned(seed, 64) if len(s.groups) == 2 and len(s.things) > 2)
    return _generated(run, [scene] * NUMBER)


def _caption_cells(run: RecipeRun, seed: int) -> list[Cell]:
    return _generated(run, captioned(seed, NUMBER))


def _generated(run: RecipeRun, scenes: Sequence[Scene]) -> list[Cell]:
    contexts = [DescribedContext(render(scene), caption(scene)) for scene in scenes]
    pictures = draw(run, "i2t2i", chosen_guidance(run), contexts)
    return judged_cells(pictures, load_reader(run).read(pictures), scenes)


def judged_cells(
    pictures: np.ndarray, readings: Sequence[Reading], scenes: Sequence[Scene]
) -> list[Cell]:
    """Cells of pictures that were asked for by full captions: asked, then read.

    Right is what shows all that was asked for, and nothing else.
    """
    return [
        Cell(
            [Image.fromarray(picture)],
            [caption(scene), str(reading)],
            matches(reading, scene) and len(reading.groups) == len(scene.groups),
        )
        for picture, reading, scene in zip(pictures, readings, scenes, strict=True)
    ]


def sheet(cells: Sequence[Cell]) -> Image.Image:
    """The cells in rows of ``COLUMNS``."""
    tiles = [_tile(cell) for cell in cells]
    width, height = (max(sizes) for sizes in zip(*(tile.size for tile in tiles), strict=True))
    rows = -(-len(tiles) // COLUMNS)
    size = (GAP + COLUMNS * (width + GAP), GAP + rows * (height + GAP))
    page = Image.new("RGB", size, PAPER)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, COLUMNS)
        page.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return page


def _tile(cell: Cell) -> Image.Image:
    side = SIZE * ZOOM
    width = FRAME + (side + FRAME) * len(cell.pictures)
    font = ImageFont.load_default(11)
    lines = [piece for line in cell.lines for piece in wrapped(line, width, font)]
    tile = Image.new("RGB", (width, side + 2 * FRAME + 4 + LINE * len(lines)), PAPER)
    pen = ImageDraw.Draw(tile)
    if cell.right is not None:
        pen.rectangle((0, 0, width - 1, side + 2 * FRAME - 1), fill=RIGHT if cell.right else WRONG)
    for index, picture in enumerate(cell.pictures):
        large = picture.resize((side, side), Image.Resampling.NEAREST)
        tile.paste(large, (FRAME + index * (side + FRAME), FRAME))
    for index, line in enumerate(lines):
        pen.text((0, side + 2 * FRAME + 2 + index * LINE), line, INK, font)
    return tile


def wrapped(text: str, width: int, font) -> list[str]:
    """The text in lines no wider than ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    write_aside(path, buffer.getvalue())
