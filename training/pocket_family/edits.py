"""A right caption of a scene beside the wrong ones that one edit makes of it.

A swap is an edit too: the two groups trade places, or their colours. It changes no word, only
which belongs to which, so a judge that counts words cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hb_tta.pocket.captions import (
    ATTRIBUTES,
    FULL,
    Mention,
    caption,
    from_second,
    random_mention,
    wrong_scene,
)
from hb_tta.pocket.world import INVERSE, Scene

SWAPS = ("groups", "colours")


@dataclass(frozen=True)
class Choice:
    """A right caption and, by attribute, the caption that is wrong in it alone.

    An attribute that the caption leaves unsaid, or that the scene has not, has no wrong one.
    """

    right: str
    wrong: dict[str, str]
    full: bool


def draw_choice(
    scene: Scene,
    rng: np.random.Generator,
    *,
    partial: float = 0.5,
    attributes: Sequence[str] = ATTRIBUTES,
) -> Choice:
    """One caption, full or with probability ``partial`` one that leaves parts out, and its edits.

    Half of the scenes with a direction are told from their second group.

    Args:
        attributes: what is edited: of ``ATTRIBUTES`` and ``SWAPS``.
    """
    if scene.relation in INVERSE and rng.random() < 0.5:
        scene = from_second(scene)
    full = rng.random() >= partial
    mention = FULL if full else random_mention(scene, rng)
    edits = {
        attribute: _swapped(scene, attribute, mention)
        if attribute in SWAPS
        else _edited(scene, attribute, mention, rng)
        for attribute in attributes
    }
    wrong = {attribute: text for attribute, text in edits.items() if text is not None}
    return Choice(caption(scene, mention), wrong, full)


def _edited(scene: Scene, attribute: str, mention: Mention, rng: np.random.Generator) -> str | None:
    right = caption(scene, mention)
    for _ in range(4):  # the edited group may be one that the caption leaves out
        edited = wrong_scene(scene, attribute, rng)
        if edited is not None and (text := caption(edited, mention)) != right:
            return text
    return None


def _swapped(scene: Scene, what: str, mention: Mention) -> str | None:
    """The caption with the groups or their colours the other way round; None if that is true."""
    if len(scene.groups) < 2 or not mention.relation or set(mention.groups) != {0, 1}:
        return None
    first, second = scene.groups
    if what == "groups":
        if scene.relation not in INVERSE:
            return None  # of touching things either is told first
        groups = second, first
    else:
        groups = replace(first, colour=second.colour), replace(second, colour=first.colour)
    text = caption(replace(scene, groups=groups), mention)
    return text if text != caption(scene, mention) else None


def wrong_words(right: str, wrong: str) -> list[bool]:
    """Which words of ``wrong`` differ from ``right``, where one run of words was edited.

    Of swapped groups with unlike numbers of words all that lies between them counts.
    """
    a, b = right.split(), wrong.split()
    if len(a) == len(b):
        return [x != y for x, y in zip(a, b, strict=True)]
    start = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    tail = next(i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y)
    return [start <= index < len(b) - tail for index in range(len(b))]
