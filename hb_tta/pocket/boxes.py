"""Where the words of a scene's caption are: what a perfect detector finds."""

from __future__ import annotations

import numpy as np

from hb_tta.detect import Box

from .world import SIZE, Scene, Thing

MARGIN = 1.12  # of a thing's radius: its edge is anti-aliased

Corners = tuple[float, float, float, float]


def word_boxes(scene: Scene, text: str, rng: np.random.Generator) -> tuple[Box, ...]:
    """The groups that a caption names, "red circles" or "circles", each with the box of one thing.

    Args:
        text: of the scene.
        rng: draws the thing.
    """
    boxes = []
    for number, group in enumerate(scene.groups):
        noun = text.find(group.shape)
        if noun < 0:
            continue
        stop = next((i for i in range(noun, len(text)) if text[i] == " "), len(text))
        bare = noun - len(group.colour) - 1
        start = bare if text[max(0, bare) : noun] == f"{group.colour} " else noun
        things = [thing for thing in scene.things if thing.group == number]
        box = corners(things[int(rng.integers(len(things)))])
        boxes.append(Box(text[start:stop], start, stop, box, 1.0))
    return tuple(sorted(boxes, key=lambda box: box.start))


def corners(thing: Thing) -> Corners:
    """The box of a thing, within the picture."""
    reach = MARGIN * thing.radius
    edges = (thing.x - reach, thing.y - reach, thing.x + reach, thing.y + reach)
    x0, y0, x1, y1 = (float(min(SIZE, max(0, edge))) for edge in edges)
    return x0, y0, x1, y1
