"""How well the detector finds what phrases name, at its usual thresholds.

Shape suffix: T things of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hb_tta.detect.boxes import overlap
from hb_tta.detect.detector import Corners, Detector
from hb_tta.pocket.world import SIZE, Scene
from hb_tta.training.pocket_family.detector_pictures import WHOLE, boxes_within, worn_picture
from hb_tta.training.pocket_family.phrases import draw_for_scene
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, dev_scenes


def dev_parts(run: RecipeRun) -> dict[str, tuple[Scenes, bool]]:
    """Dev scenes by part, and whether they are worn: clean, with what answers never sees, worn."""
    clean, held_out = dev_scenes(run, 128), dev_scenes(run, 128, held_out=True)
    return {"": (clean, False), "held_out_": (held_out, False), "worn_": (clean, True)}


def figures_by_part(detector: Detector, parts: dict[str, tuple[Scenes, bool]]) -> dict[str, float]:
    """``found_rate`` of every part."""
    return {
        f"{part}{name}": value
        for part, (scenes, worn) in parts.items()
        for name, value in found_rate(detector, scenes, worn=worn).items()
    }


def found_rate(detector: Detector, scenes: Scenes, *, worn: bool = False) -> dict[str, float]:
    """How well a detector finds what phrases name, at its usual thresholds.

    Args:
        worn: whether the pictures are worn, as strongly as in training.

    Returns:
        "found": of the phrases that name something, those whose best box is that of such a thing;
        "all": those of which every thing has its box, and no box is of anything else;
        "of_nothing": of the phrases that name nothing, those with a box.
    """
    rng = np.random.default_rng(0)
    judged: list[tuple[list[Corners], list[Corners]]] = []
    for picture, scene in zip(scenes.pictures, scenes.records, strict=True):
        seen, whole = worn_picture(picture, rng) if worn else (picture, WHOLE)
        judged += _found_and_real(detector, seen, scene, whole, rng)
    named = [(found, real) for found, real in judged if real]
    return {
        "found": _mean([bool(found) and _all_near(found[:1], real) for found, real in named]),
        "all": _mean([_all_near(real, found) and _all_near(found, real) for found, real in named]),
        "of_nothing": _mean([bool(found) for found, real in judged if not real]),
    }


def _found_and_real(
    detector: Detector, picture: np.ndarray, scene: Scene, whole: Corners, rng: np.random.Generator
) -> list[tuple[list[Corners], list[Corners]]]:
    """Of each phrase for a scene the boxes that are found, best first, and those of its things."""
    asked = draw_for_scene(scene, rng)
    (found,) = detector.find([Image.fromarray(picture)], [[one.text for one in asked]])
    boxes_T4 = boxes_within(scene, whole)
    groups = [scene.groups[thing.group] for thing in scene.things]
    return [
        (
            [box.box for box in found if box.phrase == place],
            pixel_boxes(boxes_T4[[one.names(group) for group in groups] & (boxes_T4[:, 2] > 0)]),
        )
        for place, one in enumerate(asked)
    ]


def _all_near(boxes: Sequence[Corners], others: Sequence[Corners]) -> bool:
    return all(any(overlap(box, other) > 0.5 for other in others) for box in boxes)


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else 0.0


def pixel_boxes(boxes_T4: np.ndarray) -> list[Corners]:
    """Centres and sizes from 0 to 1 as corners in pixels."""
    return [
        (SIZE * (x - w / 2), SIZE * (y - h / 2), SIZE * (x + w / 2), SIZE * (y + h / 2))
        for x, y, w, h in boxes_T4.tolist()
    ]
