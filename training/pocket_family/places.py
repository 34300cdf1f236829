"""Where things are: what a relation can be told from.

A relation alone teaches a small model little: it is of shapes *and* places, so half of the facts
that it needs are worth nothing without the other half. And a patch's token must say where the patch
is, which labels of what it shows never ask for. So every patch is asked for its column and row, and
every patch of a thing for its bearing: the relation of its own group to the other one.
"""

from __future__ import annotations

import numpy as np

from hb_tta.pocket.world import INVERSE, RELATIONS, SHAPES, SIZE, Scene
from hb_tta.training.pocket_family.labels import IGNORED, PATCH

BINS = 8
# 0: no such shape; else the bin of the mean centre of its things, along either axis.
PLACE_HEADS = {f"{axis}_{shape}": BINS + 1 for axis in "xy" for shape in SHAPES}
PATCH_HEADS = {"column": SIZE // PATCH, "row": SIZE // PATCH}
# The relation of the own group to the other one; 0: there is no other.
BEARINGS = len(RELATIONS) + 1
BEARING_HEADS = {f"bearing_{shape}": BEARINGS for shape in SHAPES}
PATCH_BEARING_HEADS = {"bearing": BEARINGS}


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


def bearing(scene: Scene, group: int) -> int:
    """The relation of a group to the other one, as an index of ``BEARING_HEADS``' classes.

    Of an agent and its object both are told the contact: it has no name from the other side.
    """
    if scene.relation is None:
        return 0
    told = scene.relation if group == 0 else INVERSE.get(scene.relation, scene.relation)
    return 1 + RELATIONS.index(told)


def bearing_labels(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """The bearing of every shape that is there: int64 (N,)."""
    labels = {head: np.full(len(scenes), IGNORED) for head in BEARING_HEADS}
    for row, scene in enumerate(scenes):
        for index, group in enumerate(scene.groups):
            labels[f"bearing_{group.shape}"][row] = bearing(scene, index)
    return labels


def patch_bearing_labels(scenes: list[Scene], shapes: np.ndarray) -> dict[str, np.ndarray]:
    """The bearing of the group of every patch of a thing: int64 (N, 64).

    Args:
        shapes: the patches' dense labels "shape": int64 (N, 64).
    """
    labels = np.full(shapes.shape, IGNORED)
    for row, scene in enumerate(scenes):
        for index, group in enumerate(scene.groups):
            labels[row][shapes[row] == 1 + SHAPES.index(group.shape)] = bearing(scene, index)
    return {"bearing": labels}
