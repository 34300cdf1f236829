"""What can be said of a scene: full captions, partial ones, and one-edit wrong ones.

A caption is ``[count] [colour] shape [relation [count] [colour] shape] [on background]``; a
``Mention`` says which parts are there. What is left unsaid is left open: a generator may vary it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .world import (
    AGENT,
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    INVERSE,
    MAX_THINGS,
    SHAPES,
    Group,
    Scene,
)

NUMBERS = ("one", "two", "three", "four")
ATTRIBUTES = ("scene", "colour", "count", "shape", "relation")


@dataclass(frozen=True)
class Mention:
    """Which attributes a caption names; ``groups`` are the indices of the groups it names."""

    count: bool = True
    colour: bool = True
    shape: bool = True
    relation: bool = True
    background: bool = True
    groups: tuple[int, ...] = (0, 1)


FULL = Mention()


def caption(scene: Scene, mention: Mention = FULL) -> str:
    """The caption of a scene, naming what ``mention`` allows: "two red circles on grass"."""
    named = [scene.groups[i] for i in mention.groups if i < len(scene.groups)]
    words = [_phrase(group, mention) for group in named[:1]]
    if len(named) == 2:
        joint = scene.relation if mention.relation and scene.relation else "and"
        words += [joint, _phrase(named[1], mention)]
    if not named:
        words = ["shapes"]
    if mention.background:
        words += ["on", scene.background]
    return " ".join(words)


def _phrase(group: Group, mention: Mention) -> str:
    noun = plural(group.shape if mention.shape else "shape", group.count)
    words = [NUMBERS[group.count - 1]] if mention.count else []
    words += [group.colour] if mention.colour else []
    return " ".join([*words, noun])


def plural(noun: str, count: int) -> str:
    """The noun as it is written of ``count`` things."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return noun + ending


def from_second(scene: Scene) -> Scene:
    """The same picture told from its second group; a contact has no inverse and is left unsaid."""
    first, second = scene.groups
    things = tuple(replace(thing, group=1 - thing.group) for thing in scene.things)
    relation = INVERSE.get(scene.relation or "")
    return replace(scene, groups=(second, first), relation=relation, things=things)


def random_caption(scene: Scene, rng: np.random.Generator, *, partial: float = 0.5) -> str:
    """A true caption: full, or with probability ``partial`` one that leaves parts out.

    Half of the scenes with a direction are told from their second group.
    """
    if scene.relation in INVERSE and rng.random() < 0.5:
        scene = from_second(scene)
    return caption(scene, random_mention(scene, rng) if rng.random() < partial else FULL)


def random_mention(scene: Scene, rng: np.random.Generator) -> Mention:
    """Leave parts out at random; a single group keeps at least its shape or its colour."""
    shape = rng.random() < 0.85
    groups: tuple[int, ...] = (0, 1)
    if rng.random() < 0.2:
        groups = ((0,), (1,) if len(scene.groups) == 2 else (0,), ())[rng.integers(3)]
    return Mention(
        count=rng.random() < 0.75,
        colour=rng.random() < 0.75 or not shape,
        shape=shape,
        relation=rng.random() < 0.7,
        background=rng.random() < 0.5 or not groups,
        groups=groups,
    )


def wrong_scene(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene | None:
    """The record with one attribute changed, so that its caption is wrong by one edit.

    Args:
        attribute: one of ``ATTRIBUTES``.

    Returns:
        The edited record (its ``things`` no longer fit), or None where the scene has nothing
        to edit: a relation needs two groups.
    """
    if attribute == "scene":
        return replace(scene, background=_other(BACKGROUNDS, {scene.background}, rng))
    if attribute == "relation":
        return _wrong_relation(scene, rng)
    index = int(rng.integers(len(scene.groups)))
    group = scene.groups[index]
    if attribute == "colour":
        taken = {group.colour for group in scene.groups}
        edited = replace(group, colour=_other(COLOURS, taken, rng))
    elif attribute == "shape":
        taken = {group.shape for group in scene.groups}
        edited = replace(group, shape=_other(SHAPES, taken, rng))
    else:
        assert attribute == "count", attribute
        counts = [n for n in range(1, MAX_THINGS + 1) if n != group.count]
        edited = replace(group, count=int(rng.choice(counts)))
    groups = tuple(edited if i == index else old for i, old in enumerate(scene.groups))
    return replace(scene, groups=groups)


def _wrong_relation(scene: Scene, rng: np.random.Generator) -> Scene | None:
    if scene.relation is None:
        return None
    agent = scene.groups[0].shape == AGENT and all(group.count == 1 for group in scene.groups)
    choices = DIRECTIONS + CONTACTS if agent else DIRECTIONS
    wrong = _other(choices, {scene.relation}, rng)
    if scene.relation in DIRECTIONS and rng.random() < 0.5:
        wrong = INVERSE[scene.relation]  # the commonest mistake: the two are swapped
    return replace(scene, relation=wrong)


def _other(choices, taken, rng: np.random.Generator) -> str:
    return str(rng.choice([choice for choice in choices if choice not in taken]))
