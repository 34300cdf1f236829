"""What was read off a picture, and how it is judged: no pixels and no network here.

Two readers give this type, a trained one (``hb_tta.pocket.reader``) and a strict one by geometry
(``hb_tta.training.pocket_family.strict_reader``); whatever judges a picture asks a ``Reading``.

Relations are judged by whether they *hold*: of two things in opposite corners one may be left of
the other and above it, so a picture is right if the relation that was asked for is among those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from .captions import FULL, NUMBERS, Mention
from .edition import FILLINGS
from .tasks import SUFFIX
from .world import (
    AROUND,
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    INVERSE,
    RELATIONS,
    SHAPES,
    SYMMETRIC,
    Group,
    Scene,
)


class Place(NamedTuple):
    """Centre and radius of one thing, in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Reading:
    """What a reader saw.

    Attributes:
        background: its name.
        groups: things of one shape and one colour, with their number.
        relations: triples (index of a group, relation, index of another group) that hold.
        confidence: in [0, 1]: how sure the reader is of all of it together.
        places: centre and radius of every thing of every group, where the reader measures them.
    """

    background: str
    groups: tuple[Group, ...]
    relations: frozenset[tuple[int, str, int]] = frozenset()
    confidence: float = 1.0
    places: tuple[tuple[Place, ...], ...] = ()

    @property
    def relation(self) -> str | None:
        """One relation of the first group to the second: a contact before a direction."""
        held = {relation for first, relation, second in self.relations if (first, second) == (0, 1)}
        return next((r for r in CONTACTS + RELATIONS if r in held), None)

    def count(self, *, shape: str | None = None, colour: str | None = None) -> int:
        """The number of things of this shape and colour; None stands for any."""
        return sum(self.groups[i].count for i in self.find(shape=shape, colour=colour))

    def find(self, *, shape: str | None = None, colour: str | None = None) -> list[int]:
        """The indices of the groups of this shape and colour; None stands for any."""
        return [
            index
            for index, group in enumerate(self.groups)
            if shape in (None, group.shape) and colour in (None, group.colour)
        ]

    def holds(self, first: Iterable[int], relation: str, second: Iterable[int]) -> bool:
        """Whether the relation holds between any of the first and any of the second groups."""
        if relation == AROUND:
            return self.holds(second, "inside", first)
        second = tuple(second)
        return any((i, relation, j) in self.relations for i in first for j in second)

    def __str__(self) -> str:
        """A line for contact sheets: "2 red circle, 1 blue square | left of | sea"."""
        groups = ", ".join(f"{g.count} {g.colour} {g.shape}" for g in self.groups) or "nothing"
        return " | ".join(filter(None, (groups, self.relation, self.background)))


# Margins, in pixels, between what the world draws of a relation and what it never draws of it.
DIRECTION_GAP = 10.0  # drawn: at least 13.8 between the nearest centres
CORNER_GAP = 26.0  # "apart from" is drawn with at least 32 along both axes
TOUCH = 0.94  # of the sum of the radii; drawn: 0.78; equal things keep more than 1


def relations_between(
    first: Sequence[Place], second: Sequence[Place], *, slack: float = 0.0
) -> set[str]:
    """The relations of the first things to the second ones that hold by geometry.

    Args:
        slack: in [-1, 1]: widens (or, below 0, narrows) every margin by this fraction of a
            quarter, so that what depends on the margin can be told from what does not.
    """
    if not first or not second:
        return set()
    ease = 0.25 * slack
    pairs = [(a, b) for a in first for b in second]
    right = min(b.x - a.x for a, b in pairs)
    left = min(a.x - b.x for a, b in pairs)
    down = min(b.y - a.y for a, b in pairs)
    up = min(a.y - b.y for a, b in pairs)
    gap = DIRECTION_GAP * (1 - ease)
    gaps = {"left of": right, "right of": left, "above": down, "below": up}
    held = {relation for relation, size in gaps.items() if size >= gap}
    corner = CORNER_GAP * (1 - ease)
    if all(min(abs(a.x - b.x), abs(a.y - b.y)) >= corner for a, b in pairs):
        held.add("apart from")
    if len(first) == 1 and _inside(first[0], second, ease):
        held.add("inside")
    elif not (len(second) == 1 and _inside(second[0], first, ease)):
        if any(_distance(a, b) <= TOUCH * (1 + ease / 3) * (a.radius + b.radius) for a, b in pairs):
            held.add("touching")
    return held


def _distance(a: Place, b: Place) -> float:
    return ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5


def _inside(place: Place, others: Sequence[Place], ease: float) -> bool:
    return any(
        place.radius < 0.6 * other.radius and _distance(place, other) < (0.5 + ease) * other.radius
        for other in others
    )


def all_relations(places: Sequence[Sequence[Place]]) -> frozenset[tuple[int, str, int]]:
    """The relations that hold between all groups, as triples."""
    return frozenset(
        (i, relation, j)
        for i, j in permutations(range(len(places)), 2)
        for relation in relations_between(places[i], places[j])
    )


def both_ways(triples: Iterable[tuple[int, str, int]]) -> frozenset[tuple[int, str, int]]:
    """The triples and what follows from them, told from the other group."""
    closed = set(triples)
    for first, relation, second in tuple(closed):
        if relation in INVERSE:
            closed.add((second, INVERSE[relation], first))
        elif relation in SYMMETRIC:
            closed.add((second, relation, first))
    return frozenset(closed)


def places_of(scene: Scene) -> tuple[tuple[Place, ...], ...]:
    """The places of every group of a record."""
    return tuple(
        tuple(Place(t.x, t.y, t.radius) for t in scene.things if t.group == index)
        for index in range(len(scene.groups))
    )


def reading_of(scene: Scene) -> Reading:
    """What a perfect reader reads off a rendered scene."""
    places = places_of(scene)
    return Reading(scene.background, scene.groups, all_relations(places), places=places)


_GROUP = re.compile(
    rf"\b(?:({'|'.join(NUMBERS)}) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(SHAPES)})(?:e?s)?\b"
)


class Told(NamedTuple):
    """What a description says: its groups (None: not said), and the words of its relations."""

    groups: list[tuple[int | None, str | None, str]]
    relations: list[str]
    backgrounds: list[str]


def read_description(text: str) -> Told:
    """Counts, colours and shapes of the groups in a description, in their order."""
    text = text.lower()
    groups: list[tuple[int | None, str | None, str]] = [
        (NUMBERS.index(count) + 1 if count else None, colour or None, shape)
        for count, colour, shape in _GROUP.findall(text)
    ]
    words = (
        [word for word in choices if re.search(rf"\b{word}\b", text)]
        for choices in (RELATIONS, BACKGROUNDS)
    )
    return Told(groups, *words)


UNSAID = ""
"""A colour, a filling or a ground that a text leaves open; of a number, 0."""


def reading_of_text(text: str) -> Reading:
    """What a description tells, as if it had been read off a picture."""
    told = read_description(text)
    groups = tuple(
        Group(shape, colour or UNSAID, count or 0, UNSAID) for count, colour, shape in told.groups
    )
    triples = {(0, relation, 1) for relation in told.relations} if len(groups) == 2 else set()
    background = told.backgrounds[0] if len(told.backgrounds) == 1 else UNSAID
    return Reading(background, groups, both_ways(triples))


def judge(reading: Reading, scene: Scene, mention: Mention = FULL) -> dict[str, bool]:
    """Whether a picture shows what a caption asked for, by attribute.

    Args:
        reading: of the picture.
        scene: the record that the caption tells; of it only groups, background and relation count.
        mention: what the caption names. What it leaves open is not judged and has no key.

    Returns:
        ``scene``: the background. ``colour``: every named colour is on some thing.
        ``existence``: every named shape is there. ``count``: of every named group (shape and
        colour, as far as named) there is the named number. ``position``: the named relation holds
        between the named groups. ``bound``: every named shape has its named colour.
    """
    named = [i for i in mention.groups if i < len(scene.groups)]
    groups = [scene.groups[i] for i in named]
    looks = [_named_look(scene, i, mention) for i in named]
    coloured = [i for i in named if mention.names("colour", i)]
    counted = [row for row, i in enumerate(named) if mention.names("count", i)]
    verdict: dict[str, bool] = {}
    if mention.background:
        verdict["scene"] = reading.background == scene.background
    if coloured:
        verdict["colour"] = all(reading.count(colour=scene.groups[i].colour) > 0 for i in coloured)
    if named and mention.shape:
        verdict["existence"] = all(reading.count(shape=group.shape) > 0 for group in groups)
    if counted:
        verdict["count"] = all(reading.count(**looks[row]) == groups[row].count for row in counted)
    if len(named) == 2 and mention.relation and scene.relation:
        first, second = (reading.find(**look) for look in looks)
        verdict["position"] = reading.holds(first, scene.relation, second)
    if coloured and mention.shape:
        verdict["bound"] = all(reading.count(**look) > 0 for look in looks)
    return verdict


def fillings_kept(reading: Reading, scene: Scene) -> bool:
    """Whether the scene's shapes, where they are in the picture, are filled as in the scene.

    No caption names a filling: it can only come from a picture.
    """
    return all(
        reading.groups[i].filling == group.filling
        for group in scene.groups
        for i in reading.find(shape=group.shape)
    )


def _named_look(scene: Scene, index: int, mention: Mention) -> dict[str, str | None]:
    group = scene.groups[index]
    return {
        "shape": group.shape if mention.shape else None,
        "colour": group.colour if mention.names("colour", index) else None,
    }


def matches(reading: Reading, scene: Scene, mention: Mention = FULL) -> bool:
    """Whether a picture shows all that a caption asked for."""
    return all(judge(reading, scene, mention).values())


_SHAPE = f"({'|'.join(SHAPES)})(?:e?s)?"
_QUESTIONS = {
    "existence": re.compile(rf"is there an? {_SHAPE} in this image\?"),
    "count": re.compile(rf"(?:is|are) there ({'|'.join(NUMBERS)}) {_SHAPE} in this image\?"),
    "color": re.compile(rf"(?:is|are) the {_SHAPE} ({'|'.join(COLOURS)})\?"),
    "style": re.compile(rf"(?:is|are) the {_SHAPE} ({'|'.join(FILLINGS)})\?"),
    "reasoning": re.compile(rf"are there more {_SHAPE} than {_SHAPE}\?"),
    "scene": re.compile(rf"is this image on ({'|'.join(BACKGROUNDS)})\?"),
    "position": re.compile(rf"(?:is|are) the {_SHAPE} ({'|'.join(RELATIONS)}) the {_SHAPE}\?"),
}


def answer(reading: Reading, question: str) -> bool | None:
    """The answer to a question of ``pocket_mme`` about the picture, or the text, that was read.

    Args:
        question: with or without the benchmark's suffix.

    Returns:
        True for yes, False for no, None where the question cannot be answered: it is not one of
        the benchmark's, the thing that it is about is not there, or a text leaves it open.
    """
    asked = question.strip().removesuffix(SUFFIX).strip().lower()
    for category, pattern in _QUESTIONS.items():
        found = pattern.fullmatch(asked)
        if found:
            return _answer(reading, category, found.groups())
    return None


def _answer(reading: Reading, category: str, words: Sequence[str]) -> bool | None:
    if category == "existence":
        return bool(reading.find(shape=words[0]))
    if category == "scene":
        return reading.background == words[0] if reading.background else None
    first = reading.find(shape=words[1] if category == "count" else words[0])
    if category == "count":
        counts = [reading.groups[i].count for i in first]
        return sum(counts) == 1 + NUMBERS.index(words[0]) if all(counts) else None
    if category == "style":
        fillings = {reading.groups[i].filling for i in first}
        return words[1] in fillings if fillings and UNSAID not in fillings else None
    if category == "color":
        colours = {reading.groups[i].colour for i in first}
        return words[1] in colours if colours and UNSAID not in colours else None
    second = reading.find(shape=words[-1])
    if category == "reasoning":
        counts = [reading.groups[i].count for i in first + second]
        more = reading.count(shape=words[0]) > reading.count(shape=words[1])
        return more if first and second and all(counts) else None
    return reading.holds(first, words[1], second) if first and second else None
