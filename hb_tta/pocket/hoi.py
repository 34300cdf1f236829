"""``pocket_hoi``: few-shot tasks in the shape of Bongard-HOI, over scenes of the pocket world.

A task asks for one relation of the agent (a cross) to one kind of object: six supports show it, six
show another relation to the same kind of object, and one query of each is to be told. All relations
survive a mirror, for test-time prompt tuning flips its views.

The four splits are Bongard-HOI's. An *unseen action* is a relation to an object that no training
has seen together (``UNSEEN_PAIRS``); an *unseen object* is one in a look, its colour on its ground,
that no training has seen (``HELD_OUT_LOOKS``). That holds for all that answers, describes and
embeds, and for tuning by rewards; what draws and what judges has seen all, from the third edition
on, as SDXL and BLIP-2 have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from .reading import Place, relations_between
from .world import (
    AGENT,
    HELD_OUT_LOOKS,
    MIRROR_RELATIONS,
    SHAPES,
    UNSEEN_PAIRS,
    Scene,
    agent_scene,
    render,
)

SPLITS = {"dev": 20_201, "sealed": 30_201}
# name: (the relation is unseen with its object, the object's look is unseen); in Table 2's order
VARIANTS = {
    "seen act., seen obj.": (False, False),
    "unseen act., seen obj.": (True, False),
    "seen act., unseen obj.": (False, True),
    "unseen act., unseen obj.": (True, True),
}
SHOTS = 6
OBJECTS = tuple(shape for shape in SHAPES if shape != AGENT)


@dataclass(frozen=True)
class HoiSample:
    """One image of a task.

    Attributes:
        scene: its record.
        label: 0 where the asked relation holds, 1 where not.
        action: the relation that it shows.
    """

    scene: Scene
    label: int
    action: str

    @property
    def image(self) -> Image:
        """The picture: RGB, 64×64."""
        return render(self.scene)


@dataclass(frozen=True)
class PocketHoiTask:
    """Twelve supports and two queries, positives first.

    ``action`` and ``object`` are what is asked; the agent is a cross.
    """

    action: str
    object: str
    supports: tuple[HoiSample, ...]
    queries: tuple[HoiSample, ...]


def pocket_hoi(variant: str, split: str = "dev", limit: int = 200) -> list[PocketHoiTask]:
    """The first ``limit`` tasks of a split; a shorter list is the beginning of a longer one.

    Args:
        variant: one of ``VARIANTS``.
        split: "dev" or "sealed".
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    tasks = hoi_tasks(SPLITS[split] + 10 * list(VARIANTS).index(variant), *VARIANTS[variant])
    return [next(tasks) for _ in range(limit)]


def hoi_tasks(seed: int, unseen_action: bool, unseen_object: bool) -> Iterator[PocketHoiTask]:
    """An endless stream of tasks of one seed."""
    rng = np.random.default_rng([seed, 0x401])
    pairs = [
        (relation, shape)
        for relation in MIRROR_RELATIONS
        for shape in OBJECTS
        if ((relation, shape) in UNSEEN_PAIRS) == unseen_action
    ]
    while True:
        relation, shape = pairs[rng.integers(len(pairs))]
        positives = [
            HoiSample(_scene(rng, relation, shape, unseen_object), 0, relation)
            for _ in range(SHOTS + 1)
        ]
        negatives = [_negative(rng, relation, shape, unseen_object) for _ in range(SHOTS + 1)]
        supports = (*positives[:SHOTS], *negatives[:SHOTS])
        yield PocketHoiTask(relation, shape, supports, (positives[-1], negatives[-1]))


def _negative(
    rng: np.random.Generator, relation: str, shape: str, unseen_object: bool
) -> HoiSample:
    """Another relation, one that trainings have seen, in which the asked one does not hold too."""
    others = [
        other
        for other in MIRROR_RELATIONS
        if other != relation and (other, shape) not in UNSEEN_PAIRS
    ]
    other = others[rng.integers(len(others))]
    scene = _scene(rng, other, shape, unseen_object, lambda made: relation not in _held(made))
    return HoiSample(scene, 1, other)


def _scene(
    rng: np.random.Generator,
    relation: str,
    shape: str,
    unseen_object: bool,
    wanted: Callable[[Scene], bool] = lambda scene: True,
) -> Scene:
    while True:
        scene = agent_scene(rng, relation, shape)
        looks = [
            (group.shape, group.colour, scene.background) in HELD_OUT_LOOKS
            for group in scene.groups
        ]
        if looks == [False, unseen_object] and wanted(scene):
            return scene


def _held(scene: Scene) -> set[str]:
    """The relations of the agent to the object that hold, by geometry with some room to spare."""
    agent, other = ([Place(thing.x, thing.y, thing.radius)] for thing in scene.things)
    return relations_between(agent, other, slack=1)
