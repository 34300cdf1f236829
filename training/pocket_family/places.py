"""Where each shape's things are on the whole: what a relation can be told from.

A relation alone teaches a small model little: it is of shapes *and* places, so half of the facts
that it needs are worth nothing without the other half.
"""

from __future__ import annotations

import numpy as np

from hb_tta.pocket.world import SHAPES, SIZE, Scene

BINS = 8
# 0: no such shape; else the bin of the mean centre of its things, along either axis.
PLACE_HEADS = {f"{axis}_{shape}": BINS + 1 for axis in "xy" for shape in SHAPES}


def place_labels(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Labels of every head: int64 (N,)."""
    labels = {head: np.zeros(len(scenes), np.int64) for head in PLACE_HEADS}
    for row, scene in enumerate(scenes):
        for index, group in enumerate(scene.groups):
            centres = [(thing.x, thing.y) for thing in scene.things if thing.group == index]
            for axis, value in zip("xy", np.mean(centres, axis=0), strict=True):
                labels[f"{axis}_{group.shape}"][row] = 1 + int(value * BINS // SIZE)
    return labels
