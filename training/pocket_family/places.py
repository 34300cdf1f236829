"""Where things are: what a relation can be told from.

A relation alone teaches a small model little: it is of shapes *and* places, so half of the facts
that it needs are worth nothing without the other half. And a patch's token must say where the patch
is, which labels of what it shows never ask for.
"""

from __future__ import annotations

import numpy as np
from hb_tta.training.pocket_family.labels import PATCH

from hb_tta.pocket.world import SHAPES, SIZE, Scene

BINS = 8
# 0: no such shape; else the bin of the mean centre of its things, along either axis.
PLACE_HEADS = {f"{axis}_{shape}": BINS + 1 for axis in "xy" for shape in SHAPES}
PATCH_HEADS = {"column": SIZE // PATCH, "row": SIZE // PATCH}


def place_labels(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Labels of every head: int64 (N,)."""
    labels = {head: np.zeros(len(scenes), np.int64) for head in PLACE_HEADS}
    for row, scene in enumerate(scenes):
        for index, group in enumerate(scene.groups):
            centres = [(thing.x, thing.y) for thing in scene.things if thing.group == index]
            for axis, value in zip("xy", np.mean(centres, axis=0), strict=True):
                labels[f"{axis}_{group.shape}"][row] = 1 + int(value * BINS // SIZE)
    return labels


def patch_labels(number: int) -> dict[str, np.ndarray]:
    """The column and the row of every patch, the same in all scenes: int64 (N, 64)."""
    row, column = np.divmod(np.arange((SIZE // PATCH) ** 2), SIZE // PATCH)
    return {"column": np.tile(column, (number, 1)), "row": np.tile(row, (number, 1))}
