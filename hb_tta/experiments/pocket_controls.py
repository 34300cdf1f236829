"""The controls of pocket_mme.py: what a question is answered with in place of its own views.

    text      the description in the prompt before the question, and no views. The pocket MLLM was
              trained on no such prompts: what it loses by them tells nothing of the description
    other     the views that were made for another image's question
    ceiling   views that the world draws anew from the scene's record: the asked fact is kept
              (``hb_tta.pocket.tasks.FOCUS``) and everything else varies as in the world

The ceiling reads the ground truth, which no method may: it tells what perfect views would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL.Image import Image

from hb_tta.pocket.captions import Mention, from_second
from hb_tta.pocket.tasks import CATEGORIES, FOCUS, SPLITS, SUFFIX, Sample
from hb_tta.pocket.world import CONTACTS, Scene, is_held_out, render, sample_scene

ANSWER_FORMAT = "\nAnswer the question using a single word or phrase."  # of lmms-eval's mme


@dataclass(frozen=True)
class Shown:
    """What the model is asked and shown beside the real image.

    Attributes:
        prompt: the whole text.
        views: images.
        keys: of the views in the store; none where they are not from there.
        description: what was said of the image; None where nothing was.
    """

    prompt: str
    views: Sequence[Image] = ()
    keys: Sequence[str] = ()
    description: str | None = None


def prompt_of(sample: Sample) -> str:
    """The prompt that lmms-eval makes of a question."""
    return sample.question.removesuffix(f" {SUFFIX}") + ANSWER_FORMAT


def controls(
    samples: Sequence[Sample], augmentations: Sequence[Any], split: str, views: int
) -> dict[str, Callable[[int], Shown]]:
    """Each control as a function from a question's number to what is shown.

    Args:
        samples: all questions.
        augmentations: of each question, by the method under test.
        split: of the questions; decides the ceiling's seeds.
        views: how many the ceiling has.
    """
    others = other_numbers(samples)

    def plain(number: int) -> Shown:
        return Shown(prompt_of(samples[number]))

    def text(number: int) -> Shown:
        description = augmentations[number].description
        prompt = prompt_of(samples[number])
        told = f"{description.rstrip('.')}.\n{prompt}" if description else prompt
        return Shown(told, description=description)

    def other(number: int) -> Shown:
        made = augmentations[others[number]]
        return Shown(prompt_of(samples[number]), made.views, made.keys, made.description)

    def ceiling(number: int) -> Shown:
        sample = samples[number]
        rng = np.random.default_rng([SPLITS[split], CATEGORIES.index(sample.category), number])
        drawn = [draw_again(sample.scene, FOCUS[sample.category], rng) for _ in range(views)]
        return Shown(prompt_of(sample), [render(scene) for scene in drawn])

    return {"plain here": plain, "text": text, "other": other, "ceiling": ceiling}


def other_numbers(samples: Sequence[Sample]) -> list[int]:
    """For each question one of the same category and answer about the next image.

    So that what the borrowed views show is distributed as in the question's own.
    """
    alike: dict[tuple[str, str], list[int]] = {}
    for number, sample in enumerate(samples):
        alike.setdefault((sample.category, sample.answer), []).append(number)
    following = {
        a: b for its in alike.values() for a, b in zip(its, its[1:] + its[:1], strict=True)
    }
    assert all(a != b for a, b in following.items()), "a category has one image"
    return [following[number] for number in range(len(samples))]


def draw_again(scene: Scene, keep: Mention, rng: np.random.Generator) -> Scene:
    """Another scene of the world of which the same can be said as far as ``keep`` goes.

    Shapes and colours stay; places, sizes and what ``keep`` leaves out are drawn anew.
    """
    while True:
        drawn = sample_scene(rng)
        tellings = [drawn] if len(drawn.groups) == 1 else [drawn, from_second(drawn)]
        for told in tellings:
            found = _dressed(told, scene, keep)
            if found is not None and not is_held_out(found):
                return found


def _dressed(drawn: Scene, scene: Scene, keep: Mention) -> Scene | None:
    """``drawn`` with the shapes and colours of ``scene``; None where it does not fit."""
    if drawn.relation in CONTACTS or len(drawn.groups) != len(scene.groups):
        return None  # a contact says which shape its agent has
    if len(drawn.groups) == 2 and drawn.relation is None:
        return None  # a contact, told from its object
    if keep.relation and drawn.relation != scene.relation:
        return None
    pairs = list(zip(scene.groups, drawn.groups, strict=True))
    if keep.count and any(old.count != new.count for old, new in pairs):
        return None
    return replace(
        drawn,
        background=scene.background if keep.background else drawn.background,
        groups=tuple(replace(old, count=new.count) for old, new in pairs),
    )
