"""What the detector is asked for: phrases of things, of things not quite like them, of none.

A phrase names shape, colour and filling, or leaves them open. Which things of a batch it names
follows from their records, so every picture is asked for the phrases of all.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hb_tta.pocket.captions import NUMBERS, plural
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, MAX_THINGS, SHAPES, Group, Scene

ANY = -1  # an attribute that a phrase leaves open


@dataclass(frozen=True)
class Asked:
    """A phrase and what it names.

    Attributes:
        shape, colour, filling: the place among those of the world; ``ANY``: it leaves it open.
        thing: whether it names things of the world at all.
    """

    text: str
    shape: int = ANY
    colour: int = ANY
    filling: int = ANY
    thing: bool = True

    def names(self, group: Group) -> bool:
        """Whether the things of a group are called so."""
        own = (self.shape, self.colour, self.filling)
        pairs = zip(own, look_of(group), strict=True)
        return self.thing and all(mine in (ANY, its) for mine, its in pairs)


def look_of(group: Group) -> tuple[int, int, int]:
    """The places of its shape, colour and filling among those of the world."""
    return (
        SHAPES.index(group.shape),
        list(COLOURS).index(group.colour),
        FILLINGS.index(group.filling),
    )


def named_by(asked: Sequence[Asked], scenes: Sequence[Scene]) -> np.ndarray:
    """Which phrases name which things: bool (B, T, Q)."""
    wanted_Q3 = np.array([(one.shape, one.colour, one.filling) for one in asked])
    things = np.array([one.thing for one in asked])
    named = np.zeros((len(scenes), MAX_THINGS, len(asked)), bool)
    for row, scene in enumerate(scenes):
        for place, thing in enumerate(scene.things):
            its = np.array(look_of(scene.groups[thing.group]))
            fits = ((wanted_Q3 == ANY) | (wanted_Q3 == its)).all(1)
            named[row, place] = fits & things
    return named


def draw_asked(scenes: Sequence[Scene], number: int, rng: np.random.Generator) -> list[Asked]:
    """Phrases for a batch: of its things, of these but for one attribute, and of no thing."""
    groups = [group for scene in scenes for group in scene.groups]
    return [_draw_for(groups[int(rng.integers(len(groups)))], rng) for _ in range(number)]


def _draw_for(group: Group, rng: np.random.Generator) -> Asked:
    draw = rng.random()
    if draw < 0.45:
        return phrase_of(group, rng)
    return phrase_of(other_look(group, rng), rng) if draw < 0.85 else phrase_of_nothing(rng)


def other_look(group: Group, rng: np.random.Generator) -> Group:
    """The group with another shape, colour or filling."""
    name = ("shape", "colour", "filling")[rng.integers(3)]
    choices = {"shape": SHAPES, "colour": tuple(COLOURS), "filling": FILLINGS}[name]
    others = [one for one in choices if one != getattr(group, name)]
    changed: dict[str, Any] = {name: str(rng.choice(others))}
    return replace(group, **changed)


def phrase_of(group: Group, rng: np.random.Generator) -> Asked:
    """A phrase that names the group: "two striped red squares", "squares", "red shapes".

    Numbers say nothing: two squares are found where there are three.
    """
    told = [bool(rng.random() < share) for share in (0.85, 0.65, 0.35)]
    adjectives = [group.colour] * told[1] + [group.filling] * told[2]
    if rng.random() < 0.6:
        adjectives.reverse()
    number = group.count if rng.random() < 0.7 else int(rng.integers(1, 5))
    noun = plural(group.shape if told[0] else "shape", number)
    text = " ".join([*_opener(number, rng), *adjectives, noun])
    known = zip(told, look_of(group), strict=True)
    shape, colour, filling = (place if said else ANY for said, place in known)
    return Asked(text, shape, colour, filling)


def _opener(number: int, rng: np.random.Generator) -> list[str]:
    """Most phrases come without: whoever takes them from a caption leaves it out."""
    draw = rng.random()
    if draw < 0.7:
        return []
    return [NUMBERS[number - 1]] if draw < 0.9 else [("a" if number == 1 else "the")]


def phrase_of_nothing(rng: np.random.Generator) -> Asked:
    """A ground, which is no thing, or a word that nobody knows, plain or with a colour."""
    if rng.random() < 0.4:
        text = str(rng.choice(list(BACKGROUNDS)))
    else:
        letters = rng.choice(list(string.ascii_lowercase), int(rng.integers(2, 9)))
        text = "".join(letters)
    adjective = [str(rng.choice(list(COLOURS)))] if rng.random() < 0.4 else []
    return Asked(" ".join([*_opener(int(rng.integers(1, 5)), rng), *adjective, text]), thing=False)


def draw_for_scene(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """A phrase of each group that names it alone, and one or two of what is not there."""
    drawn: list[Asked] = []
    for group in scene.groups:
        while True:
            one = phrase_of(group, rng)
            if sum(map(one.names, scene.groups)) == 1:
                break
        drawn.append(one)
    for _ in range(int(rng.integers(1, 3))):
        while True:
            group = scene.groups[int(rng.integers(len(scene.groups)))]
            nothing = rng.random() < 0.25
            one = phrase_of_nothing(rng) if nothing else phrase_of(other_look(group, rng), rng)
            if not any(map(one.names, scene.groups)):
                break
        drawn.append(one)
    return [drawn[place] for place in rng.permutation(len(drawn))]
