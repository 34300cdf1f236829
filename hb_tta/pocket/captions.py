"""What can be said of a scene: the forms of captions, their parts, and one-edit wrong ones.

A caption is ``[count] [colour] shape [relation [count] [colour] shape] [on background]``; a
``Mention`` says which parts are there. What is left unsaid is left open: a generator may vary it.
A filling and a leaning ground have no words: only pictures can say them.

``FORMS`` is the contract between who writes captions and who draws from them: every form that
anybody writes is in it, and a generator is trained on all of them. A caption of two groups names
their relation; only drafts that lost it say "and".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .world import (
    AGENT,
    AROUND,
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    INVERSE,
    MAX_THINGS,
    SHAPES,
    SYMMETRIC,
    Scene,
    inverse,
)

NUMBERS = ("one", "two", "three", "four")
ATTRIBUTES = ("scene", "colour", "count", "shape", "relation")


@dataclass(frozen=True)
class Mention:
    """Which attributes a caption names.

    Attributes:
        groups: the indices of the groups that it names.
        without: what it leaves out besides, as (index of a group, "count" or "colour").
    """

    count: bool = True
    colour: bool = True
    shape: bool = True
    relation: bool = True
    background: bool = True
    groups: tuple[int, ...] = (0, 1)
    without: frozenset[tuple[int, str]] = frozenset()

    def names(self, attribute: str, group: int) -> bool:
        """Whether "count" or "colour" of a group is named."""
        return getattr(self, attribute) and (group, attribute) not in self.without


FULL = Mention()


def caption(scene: Scene, mention: Mention = FULL) -> str:
    """The caption of a scene, naming what ``mention`` allows: "two red circles on grass"."""
    named = [i for i in mention.groups if i < len(scene.groups)]
    if scene.relation == AROUND and len(named) == 2 and mention.relation:
        return caption(from_second(scene), seen_from_second(mention))
    words = [_phrase(scene, i, mention) for i in named[:1]]
    if len(named) == 2:
        joint = scene.relation if mention.relation and scene.relation else "and"
        words += [joint, _phrase(scene, named[1], mention)]
    if not named:
        words = ["shapes"]
    if mention.background:
        words += ["on", scene.background]
    return " ".join(words)


def _phrase(scene: Scene, index: int, mention: Mention) -> str:
    group = scene.groups[index]
    noun = plural(group.shape if mention.shape else "shape", group.count)
    words = [NUMBERS[group.count - 1]] if mention.names("count", index) else []
    words += [group.colour] if mention.names("colour", index) else []
    return " ".join([*words, noun])


def plural(noun: str, count: int) -> str:
    """The noun as it is written of ``count`` things."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return noun + ending


def from_second(scene: Scene) -> Scene:
    """The same picture told from its second group."""
    first, second = scene.groups
    things = tuple(replace(thing, group=1 - thing.group) for thing in scene.things)
    relation = inverse(scene.relation)
    return replace(scene, groups=(second, first), relation=relation, things=things)


def seen_from_second(mention: Mention) -> Mention:
    """The mention that names of ``from_second(scene)`` what this one names of the scene."""
    return replace(
        mention,
        groups=tuple(sorted(1 - i for i in mention.groups)),
        without=frozenset((1 - i, attribute) for i, attribute in mention.without),
    )


# ── Forms ────────────────────────────────────────────────────────────────────────────────────────


class Form(NamedTuple):
    """A form of captions.

    Attributes:
        share: of a generator's training captions.
        mention: what it names of a scene; where a scene cannot be told so (a relation needs two
            groups), the nearest that can.
        writer: who writes it.
        template: what stands around the caption.
    """

    share: float
    mention: Callable[[Scene, np.random.Generator], Mention]
    writer: str
    template: str = "{}"

    def write(self, scene: Scene, mention: Mention) -> str:
        """The text in this form."""
        return self.template.format(caption(scene, mention))


def _always(**parts) -> Callable[[Scene, np.random.Generator], Mention]:
    mention = Mention(**parts)
    return lambda scene, rng: mention


def _one_group(scene: Scene, rng: np.random.Generator) -> Mention:
    return Mention(groups=(0,), background=rng.random() < 0.3)


def _doubtful(scene: Scene, rng: np.random.Generator) -> Mention:
    attribute = ("count", "colour")[rng.integers(2)]
    left_out = frozenset({(int(rng.integers(len(scene.groups))), attribute)})
    return Mention(background=rng.random() < 0.3, without=left_out)


def _joined(scene: Scene, rng: np.random.Generator) -> Mention:
    return Mention(relation=False, background=rng.random() < 0.5)


def _on_some_ground(scene: Scene, rng: np.random.Generator) -> Mention:
    return Mention(background=rng.random() < 0.5)


def _pictured(scene: Scene, rng: np.random.Generator) -> Mention:
    some = [(i, "colour") for i in range(len(scene.groups)) if rng.random() < 0.7]
    return Mention(background=rng.random() < 0.5, without=frozenset(some))


def _draft(scene: Scene, rng: np.random.Generator) -> Mention:
    return random_mention(scene, rng)


EDIT = "keep {} but change everything else"
"""An instruction for models that edit a picture."""

FORMS = {
    "full": Form(0.38, _always(), "the generic template; MUMU's text"),
    "relation": Form(
        0.30, _always(background=False), "the templates of questions and interactions"
    ),
    "scene": Form(0.05, _always(count=False), "the question template, asked for the ground"),
    "one group": Form(0.06, _one_group, "the object template; a description that lost a group"),
    "doubtful": Form(0.05, _doubtful, "drafts that disagree on a count or a colour"),
    "draft": Form(0.05, _draft, "drafts that left anything out"),
    "and": Form(0.02, _joined, "drafts that lost the relation"),
    "edit": Form(0.03, _on_some_ground, "the template of edit models", EDIT),
    "pictured": Form(0.06, _pictured, "MUMU: the words of a prompt whose pictures say the rest"),
}
"""Every form that is written, by name; the shares sum to 1."""


def draw_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A form by its share and a true caption in it; half of two groups are told from the second."""
    names, forms = list(FORMS), list(FORMS.values())
    row = int(rng.choice(len(forms), p=[form.share for form in forms]))
    told = told_from_either(scene, rng)
    return names[row], forms[row].write(told, forms[row].mention(told, rng))


def told_from_either(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene, or in half of the draws as it is told from its second group."""
    return from_second(scene) if len(scene.groups) == 2 and rng.random() < 0.5 else scene


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


# ── Wrong captions ───────────────────────────────────────────────────────────────────────────────


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
    if scene.relation == AROUND:  # captions tell it from the agent: the edit does too
        edited = _wrong_relation(from_second(scene), rng)
        return from_second(edited) if edited else None
    agent = scene.groups[0].shape == AGENT and all(group.count == 1 for group in scene.groups)
    told_from_object = scene.relation in SYMMETRIC and scene.groups[1].shape == AGENT
    contacts = CONTACTS if agent else SYMMETRIC if told_from_object else ()
    choices: tuple[str, ...] = (*DIRECTIONS, *contacts)
    wrong = _other(choices, {scene.relation}, rng)
    if scene.relation in DIRECTIONS and rng.random() < 0.5:
        wrong = INVERSE[scene.relation]  # the commonest mistake: the two are swapped
    return replace(scene, relation=wrong)


def _other(choices, taken, rng: np.random.Generator) -> str:
    return str(rng.choice([choice for choice in choices if choice not in taken]))
