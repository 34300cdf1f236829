"""What captions tell of their nouns, and what pictures show of them: labels for states of texts.

A matching logit says that something is wrong, and seldom what. A noun that knows how many things it
names, in which colour, and how they stand to the other group, and knows the same of what is seen of
its shape, has only to compare the two: so swapped groups are learnt, which no word gives away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hb_tta.pocket.captions import NUMBERS, plural
from hb_tta.pocket.world import COLOURS, INVERSE, MAX_THINGS, RELATIONS, SHAPES, Scene
from hb_tta.training.pocket_family.labels import BACKGROUND_NAMES, COLOUR_NAMES, HEADS, IGNORED
from hb_tta.training.pocket_family.places import BEARING_HEADS, BEARINGS, bearing

NOUN_HEADS = {
    "told_count": len(NUMBERS),
    "told_colour": len(COLOURS),
    "told_bearing": BEARINGS,
    "seen_count": MAX_THINGS + 1,
    "seen_colour": len(COLOURS) + 1,
    "seen_bearing": BEARINGS,
}
# What a whole text says of each shape that it names, as ``HEADS`` and ``BEARING_HEADS`` have it.
TEXT_HEADS = {
    name: size
    for name, size in (HEADS | BEARING_HEADS).items()
    if name.split("_")[0] in ("background", "count", "colour", "bearing")
}
_NOUNS = {plural(noun, count): noun for noun in (*SHAPES, "shape") for count in (1, 2)}


def noun_labels(
    texts: Sequence[str], pictures: Sequence[Scene], length: int
) -> dict[str, torch.Tensor]:
    """Labels at every noun, int64 (N, length); elsewhere, and of what is left unsaid, none.

    Words are one token each, behind ``[CLS]``.

    Args:
        texts: N captions.
        pictures: the record of each one's picture, of which it may be wrong.
    """
    labels = {head: np.full((len(texts), length), IGNORED) for head in NOUN_HEADS}
    for row, (text, scene) in enumerate(zip(texts, pictures, strict=True)):
        for place, shape, told in _groups(text):
            for head, value in (told | _seen(scene, shape)).items():
                labels[head][row, place + 1] = value
    return {head: torch.from_numpy(values) for head, values in labels.items()}


def text_labels(texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """What texts say of each shape that they name, int64 (N,); of others, none."""
    labels = {head: np.full(len(texts), IGNORED) for head in TEXT_HEADS}
    for row, text in enumerate(texts):
        for name in set(text.rstrip(".").split()) & set(BACKGROUND_NAMES):
            labels["background"][row] = BACKGROUND_NAMES.index(name)
        for _, shape, told in _groups(text.rstrip(".")):
            if shape in SHAPES:
                told = {head.removeprefix("told_"): value for head, value in told.items()}
                shift = {"count": 1, "colour": 1, "bearing": 0}  # 0 is: it is not there
                for head, value in told.items():
                    known = value != IGNORED
                    labels[f"{head}_{shape}"][row] = value + shift[head] if known else IGNORED
    return {head: torch.from_numpy(values) for head, values in labels.items()}


def _groups(text: str) -> list[tuple[int, str, dict[str, int]]]:
    """Of every noun its place among the words, its shape ("shape": any), and what is told of it."""
    words = text.split()
    nouns = [place for place, word in enumerate(words) if word in _NOUNS]
    bearings = _bearings(text) if len(nouns) == 2 else [IGNORED] * len(nouns)
    return [
        (place, _NOUNS[words[place]], _told(words[max(0, place - 2) : place]) | {"told_bearing": b})
        for place, b in zip(nouns, bearings, strict=True)
    ]


def _told(before: Sequence[str]) -> dict[str, int]:
    """The number and the colour among the words before a noun."""
    told = {}
    for word in before:
        if word in NUMBERS:
            told["told_count"] = NUMBERS.index(word)
        if word in COLOURS:
            told["told_colour"] = COLOUR_NAMES.index(word)
    return told


def _seen(scene: Scene, shape: str) -> dict[str, int]:
    """What a picture shows of a shape; nothing is asked of "shapes"."""
    if shape not in SHAPES:
        return {}
    for index, group in enumerate(scene.groups):
        if group.shape == shape:
            colour = 1 + COLOUR_NAMES.index(group.colour)
            stands = bearing(scene, index)
            return {"seen_count": group.count, "seen_colour": colour, "seen_bearing": stands}
    return {"seen_count": 0, "seen_colour": 0}


def _bearings(text: str) -> list[int]:
    """How the first group stands to the second, and the second to the first."""
    for index, relation in enumerate(RELATIONS):
        if f" {relation} " in text:
            return [1 + index, 1 + RELATIONS.index(INVERSE.get(relation, relation))]
    return [IGNORED, IGNORED]
