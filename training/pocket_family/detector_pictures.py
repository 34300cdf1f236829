"""What the detector is shown: pictures, worn or not, where their things are, and phrases for them.

Shape suffixes: B pictures, P patches, T things of a picture at most, Q phrases of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hb_tta.detect.detector import Corners
from hb_tta.pocket.boxes import corners
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import COLOURS, MAX_THINGS, SHAPES, SIZE, Scene
from hb_tta.pocket.worn import TRAINED, crop_box, some_kind, wear
from hb_tta.training.pocket_family.phrases import draw_asked, look_of, named_by
from hb_tta.training.pocket_family.run import Scenes, to_pixels

PATCH = 8
PHRASES = 128  # of a batch: every picture is asked for all of them
WORN = 0.25  # the share of worn pictures
WHOLE: Corners = (0.0, 0.0, float(SIZE), float(SIZE))
LOOKS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "filling": len(FILLINGS) + 1}


@dataclass(frozen=True)
class Batch:
    """Pictures, and phrases that all of them are asked for.

    Attributes:
        pixels_BCHW: in [-1, 1].
        texts: Q phrases.
        boxes_BT4: centre and size of the things, from 0 to 1.
        patch_BT: the patch of each.
        there_BT: whether there is one: pictures have different numbers of things.
        named_BTQ: whether a phrase names the thing.
        looks: of each patch the shape, colour and filling of what covers it, 0: nothing does;
            int64 (B, P).
    """

    pixels_BCHW: Tensor
    texts: list[str]
    boxes_BT4: Tensor
    patch_BT: Tensor
    there_BT: Tensor
    named_BTQ: Tensor
    looks: dict[str, Tensor]


def make_batch(scenes: Scenes, rows: np.ndarray, rng: np.random.Generator) -> Batch:
    """Pictures of these rows, of which ``WORN`` are worn, and phrases for them."""
    records = [scenes.records[row] for row in rows]
    pictures, boxes_BT4 = [], np.zeros((len(rows), MAX_THINGS, 4), np.float32)
    for number, (row, scene) in enumerate(zip(rows, records, strict=True)):
        picture, whole = scenes.pictures[row], WHOLE
        if rng.random() < WORN:
            picture, whole = worn_picture(picture, rng)
        pictures.append(picture)
        boxes_BT4[number, : len(scene.things)] = boxes_within(scene, whole)
    asked = draw_asked(records, PHRASES, rng)
    there_BT = boxes_BT4[:, :, 2] > 0
    return Batch(
        to_pixels(np.stack(pictures)),
        [one.text for one in asked],
        torch.from_numpy(boxes_BT4),
        torch.from_numpy(np.stack([patches_of(boxes) for boxes in boxes_BT4])),
        torch.from_numpy(there_BT),
        torch.from_numpy(named_by(asked, records)),
        looks_of(boxes_BT4, records),
    )


def worn_picture(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Corners]:
    """The picture worn as little as answering models see it in training, and what is left of it."""
    kind, strength = some_kind(rng), int(rng.choice(TRAINED))
    seed = int(rng.integers(2**62))
    worn = wear(picture, kind, strength, np.random.default_rng(seed))
    # The same draws again: a crop moves the things, and ``wear`` does not say where to.
    left = crop_box(SIZE, SIZE, strength, np.random.default_rng(seed))
    return worn, left if kind == "crop" else WHOLE


def boxes_within(scene: Scene, whole: Corners) -> np.ndarray:
    """Centre and size (T, 4) of the things, from 0 to 1 of what is left of the picture.

    A thing whose centre is cut off has zeros: it is not there.
    """
    x0, y0, x1, y1 = whole
    found = np.zeros((len(scene.things), 4), np.float32)
    for number, thing in enumerate(scene.things):
        if x0 < thing.x < x1 and y0 < thing.y < y1:
            a, b, c, d = corners(thing)
            left, right = (min(1.0, max(0.0, (x - x0) / (x1 - x0))) for x in (a, c))
            top, low = (min(1.0, max(0.0, (y - y0) / (y1 - y0))) for y in (b, d))
            found[number] = (left + right) / 2, (top + low) / 2, right - left, low - top
    return found


def looks_of(boxes_BT4: np.ndarray, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Of each patch the shape, colour and filling, from 1, of the smallest thing over it."""
    xs, ys = patch_middles()
    looks = np.zeros((3, len(scenes), len(xs)), np.int64)
    for row, (boxes_T4, scene) in enumerate(zip(boxes_BT4, scenes, strict=True)):
        for place in np.argsort(-boxes_T4[: len(scene.things), 2], kind="stable"):
            x, y, width, height = boxes_T4[place]
            inside = (abs(xs - x) < width / 2) & (abs(ys - y) < height / 2)
            group = scene.groups[scene.things[place].group]
            looks[:, row, inside] = 1 + np.array(look_of(group))[:, None]
    return dict(zip(LOOKS, map(torch.from_numpy, looks), strict=True))


def patch_middles() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the patches' middles (P,), row by row, from 0 to 1."""
    side = SIZE // PATCH
    middles = (np.arange(side) + 0.5) / side
    ys, xs = np.meshgrid(middles, middles, indexing="ij")
    return xs.ravel(), ys.ravel()


def patches_of(boxes_T4: np.ndarray) -> np.ndarray:
    """The patch of each thing's centre, int64 (T,); of two in one place the smaller's.

    A thing around another has about the same centre: it has the patch above the inner one's.
    """
    side = SIZE // PATCH
    patches = np.zeros(len(boxes_T4), np.int64)
    taken: list[tuple[float, float, int]] = []
    for thing in np.argsort(boxes_T4[:, 2], kind="stable"):
        x, y, width, _ = boxes_T4[thing]
        if width > 0:
            inner = [p for a, b, p in taken if max(abs(x - a), abs(y - b)) < 1 / side]
            own = min(int(y * side), side - 1) * side + min(int(x * side), side - 1)
            patches[thing] = max(inner[0] - side, 0) if inner else own
            taken.append((x, y, int(patches[thing])))
    return patches
