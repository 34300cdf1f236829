"""What the pocket MLLMs are asked about a scene, and what they should say.

Three kinds of lessons: ``pocket_mme``'s yes/no questions, open questions with answers of one word
(they teach the same facts with a denser signal), and context descriptions, asked for with the
describer's own templates. A description keeps what its question asks about, by the scene's record,
whatever the answer to the question is; one of two groups names their relation.

Some questions come with a description before them, with and without the picture, so that answering
from words is nothing new. Without the picture the words are all there is; beside it some of them
are wrong, and the picture decides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from hb_tta.context import MultimodalContext
from hb_tta.describe.templates import evaluation_prompt, training_prompt
from hb_tta.pocket.captions import FULL, Mention, caption, from_second, plural, wrong_scene
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.reading import answer, reading_of
from hb_tta.pocket.tasks import QuestionPair, focus, make_pair, more_first
from hb_tta.pocket.world import (
    AGENT,
    AROUND,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    INVERSE,
    RELATIONS,
    SYMMETRIC,
    Group,
    Scene,
)
from hb_tta.training.pocket_family.labels import canonical

EDITION = THIRD
CATEGORIES = EDITION.categories
# How benchmarks ask for a short answer: MME's own words, lmms-eval's "default", "gpt4v",
# "qwen_vl" and "plm" prompts for MME (tasks/mme/mme.yaml), and the two together.
MME_SUFFIX = " Please answer yes or no."
SINGLE_WORD = "\nAnswer the question using a single word or phrase."
SUFFIXES = (
    MME_SUFFIX, SINGLE_WORD, MME_SUFFIX + SINGLE_WORD, "\nAnswer the question with Yes or No.",
    " Answer:", "", "",
)  # fmt: skip
OPEN_SUFFIXES = (SINGLE_WORD, " Answer:", "", "")
SIDES = {
    "left of": "on the left", "right of": "on the right",
    "above": "at the top", "below": "at the bottom",
}  # fmt: skip
NUMBER_ANSWERS = ("One", "Two", "Three", "Four")
MAIN_OBJECT = Mention(groups=(0,))
WITH_RELATION = Mention(background=False)
# A group's count is 1 five times as often as 4: questions about small counts are thinned, so that
# the number that is asked for says nothing of the answer.
_COUNT_KEPT = {1: 0.2, 2: 0.43, 3: 0.6, 4: 1.0}
PICTURED = 0.2  # the share of questions with a description that have the picture too
WRONG_WORDS = 0.2  # the share of descriptions beside a picture that are wrong by one edit
# What a wrong word is put for, so that the question's answer by the words is another one.
_ATTRIBUTE = {
    "existence": "shape", "count": "count", "position": "relation", "color": "colour",
    "scene": "scene", "reasoning": "count",
}  # fmt: skip
_NO_IMAGE = Image.new("RGB", (1, 1))


class Lesson(NamedTuple):
    """A user's text and the assistant's answer to it.

    Attributes:
        pictured: whether there is an image before them.
    """

    text: str
    answer: str
    pictured: bool = True


def can_tell(scene: Scene, category: str) -> bool:
    """Whether ``pocket_mme`` could ask a question of ``category`` about the scene."""
    if category == "position":
        return scene.relation in DIRECTIONS
    if category == "reasoning":
        return more_first(scene) is not None
    return category != "existence" or scene.relation not in CONTACTS


def tell(scene: Scene, category: str, rng: np.random.Generator) -> Scene | None:
    """The scene told from the group that a question of ``category`` asks about.

    None where there is nothing to ask about, and for some of the small counts.
    """
    if not can_tell(scene, category):
        return None
    if category == "scene":
        return scene
    if category == "reasoning":
        return more_first(scene)
    told = scene if rng.integers(len(scene.groups)) == 0 else from_second(scene)
    if category == "count" and rng.random() > _COUNT_KEPT[told.groups[0].count]:
        return None
    return told


def yes_no_lessons(pair: QuestionPair, rng: np.random.Generator) -> list[Lesson]:
    """Both questions, with suffixes: what tells them apart is all there is to learn."""
    return [Lesson(_question(pair, a) + _one_of(SUFFIXES, rng), a) for a in ("Yes", "No")]


def open_lesson(told: Scene, category: str, rng: np.random.Generator) -> Lesson:
    """An open question about the first group of ``told``; its answer is a word."""
    text, answer = _open_question(told, category, rng)
    return Lesson(text + _one_of(OPEN_SUFFIXES, rng), answer)


def _open_question(told: Scene, category: str, rng: np.random.Generator) -> tuple[str, str]:
    group = told.groups[0]
    verb, noun = "is" if group.count == 1 else "are", plural(group.shape, group.count)
    if category == "scene":
        return "What is the background of this image?", told.background.capitalize()
    if category == "existence":
        things = plural("thing", group.count)
        return f"What shape {verb} the {group.colour} {things}?", group.shape.capitalize()
    if category == "count":
        asked = f"How many {plural(group.shape, 2)} are there in this image?"
        return asked, NUMBER_ANSWERS[group.count - 1]
    if category == "color":
        return f"What color {verb} the {noun}?", group.colour.capitalize()
    if category == "style":
        return f"How {verb} the {noun} filled?", group.filling.capitalize()
    if category == "reasoning":
        return "Of which shape are there more?", group.shape.capitalize()
    assert category == "position" and told.relation is not None, category
    other = plural(told.groups[1].shape, told.groups[1].count)
    if rng.integers(2):
        # Not "left of the other one": of two shapes that would be the one that is not named.
        return f"What shape is {SIDES[told.relation]}?", group.shape.capitalize()
    return f"Where {verb} the {noun}, seen from the {other}?", told.relation.capitalize()


def compound_lesson(scene: Scene, rng: np.random.Generator) -> Lesson:
    """A yes/no question that joins attributes: "Is there a red circle left of the square?" """
    told = _told_sayably(scene, rng)
    text, holds = _compound_question(told, rng)
    return Lesson(text + _one_of(SUFFIXES, rng), "Yes" if holds else "No")


def _compound_question(told: Scene, rng: np.random.Generator) -> tuple[str, bool]:
    group, relation = told.groups[0], told.relation
    holds = bool(rng.integers(2))
    colour = group.colour
    if not holds and (relation is None or rng.integers(2)):
        colour = _one_of([c for c in COLOURS if c != colour], rng)
    elif not holds:
        contacts = CONTACTS if group.shape == AGENT else SYMMETRIC
        relation = INVERSE.get(str(relation)) or _one_of(
            [r for r in contacts if r != relation], rng
        )
    there = "Is there a" if group.count == 1 else "Are there"
    text = f"{there} {colour} {plural(group.shape, group.count)}"
    if relation is None:
        return f"{text} in this image?", holds
    return f"{text} {relation} the {plural(told.groups[1].shape, told.groups[1].count)}?", holds


def _told_sayably(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene told from either group, but from the agent where it is inside."""
    told = scene if rng.integers(len(scene.groups)) == 0 else from_second(scene)
    return scene if told.relation == AROUND else told


def worded_lesson(pair: QuestionPair, rng: np.random.Generator) -> Lesson | None:
    """A question with a description before it, beside the picture or without it.

    In half of them it is an open one: to find a word comes before comparing it. None where words
    alone cannot tell: no description names a filling.
    """
    if pair.category == "style":
        return None
    told, pictured = pair.told, rng.random() < PICTURED
    if pictured and rng.random() < WRONG_WORDS:
        told = wrong_scene(told, _ATTRIBUTE[pair.category], rng) or told
    mention = FULL if rng.random() < 0.4 else focus(pair.category, EDITION)
    words = caption(told, mention)
    words = words.capitalize() if rng.integers(2) else words
    if rng.integers(2):
        asked, right = _open_question(pair.told, pair.category, rng)
        asked += _one_of(OPEN_SUFFIXES, rng)
    else:
        asked = _question(pair, ("Yes", "No")[rng.integers(2)])
        holds = answer(reading_of(pair.told), asked)
        assert holds is not None, asked
        right = "Yes" if holds else "No"
        asked += _one_of(SUFFIXES, rng)
    return Lesson(f"{words}.\n{asked}", right, pictured)


def description_lesson(scene: Scene, rng: np.random.Generator) -> Lesson:
    """A context description of any task, asked for with the describer's template."""
    draw = rng.random()
    if draw < 0.08:
        return Lesson(evaluation_prompt("", "object"), caption(canonical(scene), MAIN_OBJECT))
    if draw < 0.2:
        return Lesson(evaluation_prompt("", "generic"), caption(canonical(scene), FULL))
    if draw < 0.3 and scene.relation is not None:
        return _interaction_lesson(scene, rng)
    if draw < 0.38:
        return _compound_description(scene, rng)
    while True:
        category = _one_of(CATEGORIES, rng)
        told = tell(scene, category, rng)
        if told is not None:
            return _question_description(make_pair(told, category, rng, edition=EDITION), rng)


def _question_description(pair: QuestionPair, rng: np.random.Generator) -> Lesson:
    """What a question asks about; in one of ten the answer is told, as reward training does."""
    answer = ("Yes", "No")[rng.integers(2)]
    asked = _question(pair, answer)
    if rng.random() < 0.2:
        asked, answer = _open_question(pair.told, pair.category, rng)
    if rng.random() < 0.1:
        context = MultimodalContext(_NO_IMAGE, asked, "vqa", ground_truth=answer)
        return Lesson(training_prompt(context), pair.description)
    return Lesson(evaluation_prompt(asked, "vqa"), pair.description)


def _compound_description(scene: Scene, rng: np.random.Generator) -> Lesson:
    told = _told_sayably(scene, rng)
    asked, _ = _compound_question(told, rng)
    return Lesson(evaluation_prompt(asked, "vqa"), caption(told, WITH_RELATION))


def _interaction_lesson(scene: Scene, rng: np.random.Generator) -> Lesson:
    """The relation between "agent | object" or "agent | action | object"; any action is asked."""
    nouns = [_noun(group, rng) for group in scene.groups]
    if rng.integers(2):
        nouns.insert(1, _one_of(RELATIONS, rng))
    asked = evaluation_prompt(" | ".join(nouns), "hoi")
    return Lesson(asked, caption(scene, WITH_RELATION))


def _noun(group: Group, rng: np.random.Generator) -> str:
    noun = plural(group.shape, group.count)
    return noun if rng.random() < 0.7 else f"{group.colour} {noun}"


def _question(pair: QuestionPair, answer: str) -> str:
    return pair.yes if answer == "Yes" else pair.no


def _one_of(choices, rng: np.random.Generator) -> str:
    return str(choices[rng.integers(len(choices))])
