"""``pocket_mme``: yes/no question pairs in the columns of MME, over scenes of the pocket world.

One yes and one no question an image, in five categories. What a "yes" question asks for and what
a "no" question asks for have the same distribution, so a model that never sees the image cannot
do better than chance: scenes are drawn until the asked attribute is uniform, and the wrong
alternative is uniform over the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from .captions import NUMBERS, Mention, caption, from_second, plural
from .world import (
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    INVERSE,
    SHAPES,
    Scene,
    render,
    sample_scenes,
)

CATEGORIES = ("existence", "count", "position", "color", "scene")
SUFFIX = "Please answer yes or no."
# Choices are made on the dev split; reported figures come from the sealed one.
SPLITS = {"dev": 20_001, "sealed": 30_001}

# What a description must keep for each category, and what it leaves to the generator.
FOCUS = {
    "existence": Mention(relation=False, background=False),
    "count": Mention(relation=False, background=False),
    "position": Mention(background=False),
    "color": Mention(relation=False, background=False),
    "scene": Mention(relation=False, count=False),
}


@dataclass(frozen=True)
class Sample:
    """A row of the benchmark, in MME's columns, and the record it was made from."""

    question_id: str
    question: str
    answer: str
    category: str
    scene: Scene

    @property
    def image(self) -> Image:
        """The picture: RGB, 64×64."""
        return render(self.scene)


@dataclass(frozen=True)
class QuestionPair:
    """Two questions about one fact of a scene; the first is answered by yes.

    ``told`` is the scene as the questions tell it: its first group is the one asked about.
    """

    category: str
    yes: str
    no: str
    told: Scene

    @property
    def description(self) -> str:
        """The context description that keeps what the questions ask about."""
        return caption(self.told, FOCUS[self.category])


def pocket_mme(
    split: str = "dev", *, category: str | None = None, limit: int | None = 500
) -> Iterator[Sample]:
    """The benchmark: ``limit`` images a category, two questions an image.

    Args:
        split: "dev" for every choice that anyone makes, "sealed" for reported figures.
        category: one of ``CATEGORIES``; all of them by default, one after the other.
        limit: images a category.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    for name in CATEGORIES if category is None else (category,):
        pairs = question_pairs(name, SPLITS[split])
        for index in range(500 if limit is None else limit):
            pair = next(pairs)
            for answer, question in (("Yes", pair.yes), ("No", pair.no)):
                yield Sample(
                    f"{name}/{index:04d}.png", f"{question} {SUFFIX}", answer, name, pair.told
                )


def question_pairs(category: str, seed: int, *, held_out: bool = False) -> Iterator[QuestionPair]:
    """An endless stream of pairs of one category about fresh scenes."""
    if category not in CATEGORIES:
        raise ValueError(f"category {category!r}: choose from {', '.join(CATEGORIES)}")
    stream = [seed, CATEGORIES.index(category)]
    rng = np.random.default_rng(stream)
    scenes = sample_scenes(seed * len(CATEGORIES) + stream[1], held_out=held_out)
    while True:
        wanted = _wanted(category, rng)
        told = next(t for scene in scenes if (t := _told(scene, category, wanted, rng)))
        yield make_pair(told, category, rng)


def _wanted(category: str, rng: np.random.Generator) -> str | int:
    """The true value of the asked attribute, uniform over its values."""
    all_values: dict[str, tuple[str, ...] | tuple[int, ...]] = {
        "existence": SHAPES,
        "count": (1, 2, 3, 4),
        "position": DIRECTIONS,
        "color": tuple(COLOURS),
        "scene": tuple(BACKGROUNDS),
    }
    values = all_values[category]
    return values[int(rng.integers(len(values)))]


def _told(scene: Scene, category: str, wanted, rng: np.random.Generator) -> Scene | None:
    """The scene told so that its first group has the wanted value, or None if it has not."""
    if category == "scene":
        return scene if scene.background == wanted else None
    if category == "position":
        if scene.relation not in DIRECTIONS:
            return None
        told = scene if rng.integers(2) else from_second(scene)
        return told if told.relation == wanted else None
    if category == "existence" and scene.relation in CONTACTS:
        return None  # an agent is always a cross: its absence would be told by the prior
    value = {"existence": "shape", "count": "count", "color": "colour"}[category]
    index = int(rng.integers(len(scene.groups)))
    if getattr(scene.groups[index], value) != wanted:
        return None
    return scene if index == 0 else from_second(scene)


def make_pair(told: Scene, category: str, rng: np.random.Generator) -> QuestionPair:
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
        asked = [_colour_question(group.shape, group.count, c) for c in (group.colour, wrong)]
    elif category == "scene":
        wrong = other(BACKGROUNDS, told.background)
        asked = [f"Is this image on {name}?" for name in (told.background, wrong)]
    else:
        assert category == "position", category
        second = told.groups[1]
        nouns = plural(group.shape, group.count), plural(second.shape, second.count)
        verb = "Is" if group.count == 1 else "Are"
        assert told.relation is not None
        wrong = INVERSE[told.relation]
        asked = [f"{verb} the {nouns[0]} {r} the {nouns[1]}?" for r in (told.relation, wrong)]
    return QuestionPair(category, asked[0], asked[1], told)


def _count_question(shape: str, count: int) -> str:
    verb = "Is" if count == 1 else "Are"
    return f"{verb} there {NUMBERS[count - 1]} {plural(shape, count)} in this image?"


def _colour_question(shape: str, count: int, colour: str) -> str:
    return f"{'Is' if count == 1 else 'Are'} the {plural(shape, count)} {colour}?"
