"""``pocket_mme``: yes/no question pairs in the columns of MME, over scenes of the pocket world.

One yes and one no question an image, in the categories of an edition. What a "yes" question asks
for and what a "no" question asks for have the same distribution, so a model that never sees the
image cannot do better than chance: scenes are drawn until the asked attribute is uniform, and the
wrong alternative is uniform over the others.

``style`` asks for the filling, which no description names: only a picture can keep it.
``reasoning`` compares two numbers. Where grounds lean, ``scene`` asks of those that lean to a
neighbour, whether they are the one or the other.

From the third edition on the pictures are of three parts, which take turns: half are worn, as much
as the worst of training or more, a quarter show combinations that no answering model was trained
on, a quarter are neither. Worn ones are the most, for there clean views bring most, and copies of
the same picture, moved or filtered, next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image as images
from PIL.Image import Image

from .captions import NUMBERS, Mention, caption, from_second, plural
from .edition import BUNDLED, FILLINGS, MME_CATEGORIES, THIRD, Edition
from .world import (
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    INVERSE,
    NEIGHBOURS,
    SHAPES,
    Scene,
    render,
    sample_scenes,
)
from .worn import ASKED, some_kind, wear

CATEGORIES = BUNDLED.categories
SUFFIX = "Please answer yes or no."
# Choices are made on the dev split; reported figures come from the sealed one.
SPLITS = {"dev": 20_001, "sealed": 30_001}
# Of how strongly leaning grounds the third edition asks.
LEANING = (0.2, 0.46)

_TWO_FACTS = Mention(background=False)


def focus(category: str, edition: Edition = BUNDLED) -> Mention:
    """What a description must keep for a category, and what it leaves to the generator."""
    if category == "scene":
        return Mention(relation=edition.relation_always, count=False)
    if category == "position" or edition.relation_always:
        return _TWO_FACTS
    return Mention(relation=False, background=False)


FOCUS = {category: focus(category) for category in CATEGORIES}


HELD_OUT, WORN, ORDINARY = PARTS = ("held-out", "worn", "ordinary")
_TURNS = (WORN, HELD_OUT, WORN, ORDINARY)


class Wear(NamedTuple):
    """How a picture is worn (``hb_tta.pocket.worn``)."""

    kind: str
    strength: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """A row of the benchmark, in MME's columns, and what it was made from.

    Attributes:
        part: one of ``PARTS``.
        wear: None for a clean picture.
    """

    question_id: str
    question: str
    answer: str
    category: str
    scene: Scene
    part: str = ORDINARY
    wear: Wear | None = None

    @property
    def image(self) -> Image:
        """The picture: RGB, 64×64."""
        picture = render(self.scene)
        if self.wear is None:
            return picture
        rng = np.random.default_rng(self.wear.seed)
        return images.fromarray(wear(np.asarray(picture), self.wear.kind, self.wear.strength, rng))


@dataclass(frozen=True)
class QuestionPair:
    """Two questions about one fact of a scene; the first is answered by yes.

    ``told`` is the scene as the questions tell it: its first group is the one asked about.
    """

    category: str
    yes: str
    no: str
    told: Scene
    edition: Edition = BUNDLED

    @property
    def description(self) -> str:
        """The context description that keeps what the questions ask about."""
        return caption(self.told, focus(self.category, self.edition))


def pocket_mme(
    split: str = "dev",
    *,
    category: str | None = None,
    limit: int | None = 500,
    edition: Edition = BUNDLED,
) -> Iterator[Sample]:
    """The benchmark: ``limit`` images a category, two questions an image.

    Args:
        split: "dev" for every choice that anyone makes, "sealed" for reported figures.
        category: one of the edition's; all of them by default, one after the other.
        limit: images a category; the parts take turns, so that any limit is balanced.
        edition: whose questions; the second has ordinary pictures alone.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    for name in edition.categories if category is None else (category,):
        pairs = {
            # Of one seed the two streams would ask for the same values in turn.
            held_out: question_pairs(
                name, SPLITS[split] + 5000 * held_out, held_out=held_out, edition=edition
            )
            for held_out in (False, True)
        }
        rng = np.random.default_rng([SPLITS[split], THIRD.categories.index(name), 0x3EA])
        for index in range(500 if limit is None else limit):
            part = _TURNS[index % len(_TURNS)] if edition.lean else ORDINARY
            pair = next(pairs[part == HELD_OUT])
            worn = _some_wear(rng) if part == WORN else None
            for answer, question in (("Yes", pair.yes), ("No", pair.no)):
                yield Sample(
                    f"{name}/{index:04d}.png",
                    f"{question} {SUFFIX}",
                    answer,
                    name,
                    pair.told,
                    part,
                    worn,
                )


def _some_wear(rng: np.random.Generator) -> Wear:
    return Wear(some_kind(rng), int(rng.choice(ASKED)), int(rng.integers(2**32)))


def question_pairs(
    category: str, seed: int, *, held_out: bool = False, edition: Edition = BUNDLED
) -> Iterator[QuestionPair]:
    """An endless stream of pairs of one category about fresh scenes.

    Args:
        held_out: about scenes with a combination that no answering model has seen.
        edition: whose scenes and questions; the first five categories' seeds are the same in all.
    """
    if category not in edition.categories:
        raise ValueError(f"category {category!r}: choose from {', '.join(edition.categories)}")
    stream = [seed, THIRD.categories.index(category)]
    rng = np.random.default_rng(stream)
    scenes = sample_scenes(
        seed * len(MME_CATEGORIES) + stream[1], held_out=held_out, edition=edition
    )
    while True:
        wanted = _wanted(category, rng)
        told = next(
            t for scene in scenes if (t := _told(scene, category, wanted, rng, edition.lean > 0))
        )
        yield make_pair(told, category, rng, edition=edition)


def _wanted(category: str, rng: np.random.Generator) -> str | int:
    """The true value of the asked attribute, uniform over its values."""
    all_values: dict[str, tuple[str, ...] | tuple[int, ...]] = {
        "existence": SHAPES,
        "count": (1, 2, 3, 4),
        "position": DIRECTIONS,
        "color": tuple(COLOURS),
        "scene": tuple(BACKGROUNDS),
        "style": FILLINGS,
        "reasoning": SHAPES,
    }
    values = all_values[category]
    return values[int(rng.integers(len(values)))]


def _told(
    scene: Scene, category: str, wanted, rng: np.random.Generator, leaning: bool
) -> Scene | None:
    """The scene told so that its first group has the wanted value, or None if it has not."""
    if category == "scene":
        near = not leaning or LEANING[0] <= scene.lean <= LEANING[1]
        return scene if near and scene.background == wanted else None
    if category == "position":
        if scene.relation not in DIRECTIONS:
            return None
        told = scene if rng.integers(2) else from_second(scene)
        return told if told.relation == wanted else None
    if category == "reasoning":
        more = more_first(scene)
        return more if more and more.groups[0].shape == wanted else None
    if category == "existence" and scene.relation in CONTACTS:
        return None  # an agent is always a cross: its absence would be told by the prior
    value = {"existence": "shape", "count": "count", "color": "colour", "style": "filling"}[
        category
    ]
    index = int(rng.integers(len(scene.groups)))
    if getattr(scene.groups[index], value) != wanted:
        return None
    return scene if index == 0 else from_second(scene)


def more_first(scene: Scene) -> Scene | None:
    """The scene told from the group with more things; None where none has more."""
    if len(scene.groups) < 2 or scene.groups[0].count == scene.groups[1].count:
        return None
    return scene if scene.groups[0].count > scene.groups[1].count else from_second(scene)


def make_pair(
    told: Scene, category: str, rng: np.random.Generator, *, edition: Edition = BUNDLED
) -> QuestionPair:
    """The two questions about the first group of a scene that is told from it."""
    group = told.groups[0]

    def other(values, *taken):
        left = [value for value in values if value not in taken]
        return left[int(rng.integers(len(left)))]

    if category == "existence":
        absent = other(SHAPES, *(g.shape for g in told.groups))
        asked = [f"Is there a {shape} in this image?" for shape in (group.shape, absent)]
    elif category == "count":
        wrong = other(range(1, 5), group.count)
        asked = [_count_question(group.shape, count) for count in (group.count, wrong)]
    elif category == "color":
        wrong = other(COLOURS, group.colour)
        asked = [_look_question(group.shape, group.count, c) for c in (group.colour, wrong)]
    elif category == "style":
        wrong = other(FILLINGS, group.filling)
        asked = [_look_question(group.shape, group.count, f) for f in (group.filling, wrong)]
    elif category == "scene":
        wrong = NEIGHBOURS[told.background] if edition.lean else other(BACKGROUNDS, told.background)
        asked = [f"Is this image on {name}?" for name in (told.background, wrong)]
    elif category == "reasoning":
        more, less = (plural(g.shape, 2) for g in told.groups)
        asked = [f"Are there more {a} than {b}?" for a, b in ((more, less), (less, more))]
    else:
        assert category == "position", category
        second = told.groups[1]
        nouns = plural(group.shape, group.count), plural(second.shape, second.count)
        verb = "Is" if group.count == 1 else "Are"
        assert told.relation is not None
        wrong = INVERSE[told.relation]
        asked = [f"{verb} the {nouns[0]} {r} the {nouns[1]}?" for r in (told.relation, wrong)]
    return QuestionPair(category, asked[0], asked[1], told, edition)


def _count_question(shape: str, count: int) -> str:
    verb = "Is" if count == 1 else "Are"
    return f"{verb} there {NUMBERS[count - 1]} {plural(shape, count)} in this image?"


def _look_question(shape: str, count: int, look: str) -> str:
    return f"{'Is' if count == 1 else 'Are'} the {plural(shape, count)} {look}?"
