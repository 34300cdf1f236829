"""Scene records as label arrays: what towers, text encoders and readers are trained to tell.

Global labels are per scene; a scene has at most one group a shape, so counts, colours and fillings
are listed by shape. The relation is told from the shape that comes first in ``SHAPES``.
Dense labels are per 8×8-pixel patch, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hb_tta.pocket.captions import from_second
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MAX_THINGS,
    RELATIONS,
    SHAPES,
    SIZE,
    Scene,
    drawing_order,
)

COLOUR_NAMES, BACKGROUND_NAMES = tuple(COLOURS), tuple(BACKGROUNDS)
# Sizes of the global heads: background; count, colour and filling of each shape (0: it is not
# there); relation (0: none).
HEADS = {
    "background": len(BACKGROUND_NAMES),
    **{f"count_{shape}": MAX_THINGS + 1 for shape in SHAPES},
    **{f"colour_{shape}": len(COLOUR_NAMES) + 1 for shape in SHAPES},
    **{f"filling_{shape}": len(FILLINGS) + 1 for shape in SHAPES},
    "relation": len(RELATIONS) + 1,
}
# Sizes of the dense heads: 0 is background; a centre is marked with its shape.
DENSE_HEADS = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOUR_NAMES) + 1,
    "filling": len(FILLINGS) + 1,
    "centre": len(SHAPES) + 1,
}
PATCH = 8
IGNORED = -100  # a label that is not asked for


def canonical(scene: Scene) -> Scene:
    """Two groups in the order of ``SHAPES``; an agent (the last shape) keeps its contact."""
    if len(scene.groups) < 2:
        return scene
    if scene.relation in DIRECTIONS:
        first, second = (SHAPES.index(group.shape) for group in scene.groups)
        return scene if first < second else from_second(scene)
    return scene


def global_labels(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Labels of every global head: int64 (N,)."""
    labels = {head: np.zeros(len(scenes), np.int64) for head in HEADS}
    for row, scene in enumerate(map(canonical, scenes)):
        labels["background"][row] = BACKGROUND_NAMES.index(scene.background)
        for group in scene.groups:
            labels[f"count_{group.shape}"][row] = group.count
            labels[f"colour_{group.shape}"][row] = 1 + COLOUR_NAMES.index(group.colour)
            labels[f"filling_{group.shape}"][row] = 1 + FILLINGS.index(group.filling)
        if scene.relation is not None:
            labels["relation"][row] = 1 + RELATIONS.index(scene.relation)
    return labels


def dense_labels(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Labels of every dense head: int64 (N, 64)."""
    side = SIZE // PATCH
    centres = (np.arange(side) + 0.5) * PATCH
    ys, xs = np.meshgrid(centres, centres, indexing="ij")
    labels = {head: np.zeros((len(scenes), side, side), np.int64) for head in DENSE_HEADS}
    for row, scene in enumerate(scenes):
        for thing in drawing_order(scene):
            group = scene.groups[thing.group]
            shape = 1 + SHAPES.index(group.shape)
            near = np.hypot(xs - thing.x, ys - thing.y) <= thing.radius
            labels["shape"][row][near] = shape
            labels["colour"][row][near] = 1 + COLOUR_NAMES.index(group.colour)
            labels["filling"][row][near] = 1 + FILLINGS.index(group.filling)
        for thing in scene.things:
            column, line = int(thing.x // PATCH), int(thing.y // PATCH)
            labels["centre"][row, line, column] = 1 + SHAPES.index(scene.groups[thing.group].shape)
    return {head: values.reshape(len(scenes), -1) for head, values in labels.items()}


@dataclass
class Labels:
    """Global and dense labels of a fixed set of scenes, as tensors."""

    whole: dict[str, torch.Tensor]
    dense: dict[str, torch.Tensor]

    @classmethod
    def of(cls, scenes: list[Scene]) -> Labels:
        """Label every scene once."""
        return cls(
            {head: torch.from_numpy(v) for head, v in global_labels(scenes).items()},
            {head: torch.from_numpy(v) for head, v in dense_labels(scenes).items()},
        )


class Heads(torch.nn.Module):
    """One linear head a label."""

    def __init__(self, width: int, sizes: dict[str, int]):
        super().__init__()
        self.heads = torch.nn.ModuleDict({k: torch.nn.Linear(width, n) for k, n in sizes.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every head for features (..., width)."""
        return {name: head(features) for name, head in self.heads.items()}


def head_loss(logits: dict, labels: dict[str, torch.Tensor], rows=slice(None)) -> torch.Tensor:
    """The mean cross-entropy over the heads that are asked anything."""
    losses = []
    for name, values in logits.items():
        wanted = labels[name][rows].to(values.device).flatten()
        if (wanted != IGNORED).any():
            flat = values.float().flatten(0, -2)
            losses.append(F.cross_entropy(flat, wanted, ignore_index=IGNORED))
    return torch.stack(losses).mean()


def head_accuracy(logits: dict, labels: dict[str, torch.Tensor]) -> dict[str, float]:
    """Accuracy by attribute, over heads of a kind: "count" is the mean of "count_circle", …"""
    by_kind: dict[str, list[float]] = {}
    for name, values in logits.items():
        asked = labels[name] != IGNORED
        right = (values.argmax(-1).cpu() == labels[name])[asked].float().mean().item()
        by_kind.setdefault(name.split("_")[0], []).append(right)
    return {kind: sum(values) / len(values) for kind, values in by_kind.items()}
