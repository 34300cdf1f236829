"""The controls of pocket_mme.py: what a question is answered with in place of its own views.

    text           the description in the prompt before the question, and no views
    words          as text, but without the image: describe, then answer
    said           the answer that stands in the description, by its grammar: what describing alone
                   brings, however well the model reads; plain where none stands in it
    other          the views that were made for another image's question
    jitter         the image itself, moved and zoomed a little: views without a generator
    box filter     the image, each pixel the mean of its neighbourhood
    median filter  the image, each pixel the median of its neighbourhood
    unsharp mask   the image, its edges sharpened
    perfect judge  of the question's own views those that keep the answer, by the reader
    ceiling        views that the world draws anew from the scene's record: the asked fact is kept
                   (``hb_tta.pocket.tasks.focus``) and everything else varies as in the world

The ceiling and the judge read the ground truth, which no method may: they tell what perfect views
and perfect selection would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from PIL import ImageFilter
from PIL.Image import Image

from hb_tta.families import get_family
from hb_tta.generators.jitter import jittered
from hb_tta.pocket.captions import Mention, from_second
from hb_tta.pocket.edition import BUNDLED, THIRD, Edition
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import answer as read_answer
from hb_tta.pocket.reading import reading_of_text
from hb_tta.pocket.tasks import SPLITS, SUFFIX, Sample, focus
from hb_tta.pocket.world import (
    AROUND,
    CONTACTS,
    Scene,
    is_held_out,
    render,
    sample_scene,
    with_unnamed,
)

ANSWER_FORMAT = "\nAnswer the question using a single word or phrase."  # of lmms-eval's mme


@dataclass(frozen=True)
class Shown:
    """What the model is asked and shown beside the real image.

    Attributes:
        prompt: the whole text.
        views: images.
        keys: of the views in the store; none where they are not from there.
        description: what was said of the image; None where nothing was.
        pictured: whether the real image is shown at all.
        answered: what is answered without asking the model; None: it is asked.
    """

    prompt: str
    views: Sequence[Image] = ()
    keys: Sequence[str] = ()
    description: str | None = None
    pictured: bool = True
    answered: str | None = None


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

    def words(number: int) -> Shown:
        return replace(text(number), pictured=False)

    def said(number: int) -> Shown:
        shown = text(number)
        told = read_answer(reading_of_text(shown.description or ""), samples[number].question)
        if told is None:
            return plain(number)
        return replace(shown, answered="Yes" if told else "No")

    def other(number: int) -> Shown:
        made = augmentations[others[number]]
        return Shown(prompt_of(samples[number]), made.views, made.keys, made.description)

    def seeded(number: int) -> np.random.Generator:
        category = THIRD.categories.index(samples[number].category)
        return np.random.default_rng([SPLITS[split], category, number])

    def ceiling(number: int) -> Shown:
        sample, rng = samples[number], seeded(number)
        drawn = [
            draw_again(sample.scene, focus(sample.category), rng, style=sample.category == "style")
            for _ in range(views)
        ]
        return Shown(prompt_of(sample), [render(scene) for scene in drawn])

    def jitter(number: int) -> Shown:
        sample, rng = samples[number], seeded(number)
        return Shown(prompt_of(sample), [jittered(sample.image, rng) for _ in range(views)])

    def filtered(how: ImageFilter.Filter) -> Callable[[int], Shown]:
        return lambda number: Shown(prompt_of(samples[number]), [samples[number].image.filter(how)])

    def judged(number: int) -> Shown:
        sample, made = samples[number], augmentations[number]
        readings = _reader().read(list(made.views))
        kept = [
            read_answer(reading, sample.question) == (sample.answer == "Yes")
            for reading in readings
        ]
        rows = [row for row, keep in enumerate(kept) if keep]
        return Shown(
            prompt_of(sample),
            [made.views[row] for row in rows],
            [made.keys[row] for row in rows],
            made.description,
        )

    return {
        "plain here": plain,
        "text": text,
        "words": words,
        "said": said,
        "other": other,
        "jitter": jitter,
        "box filter": filtered(ImageFilter.BoxBlur(1)),
        "median filter": filtered(ImageFilter.MedianFilter(3)),
        "unsharp mask": filtered(ImageFilter.UnsharpMask(radius=2, percent=200, threshold=0)),
        "perfect judge": judged,
        "ceiling": ceiling,
    }


@cache
def _reader() -> Reader:
    return Reader.from_pretrained(get_family("pocket").weights("reader"))


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


TRIES = 20_000  # a scene that fits turns up in some hundreds


def draw_again(
    scene: Scene,
    keep: Mention,
    rng: np.random.Generator,
    *,
    style: bool = False,
    edition: Edition = BUNDLED,
) -> Scene:
    """Another scene of the world of which the same can be said as far as ``keep`` goes.

    Shapes and colours stay; places, sizes and what ``keep`` leaves out are drawn anew. A scene of
    a held-out combination may be drawn again with one, any other is not.

    Args:
        style: whether the fillings stay too.

    Raises:
        RuntimeError: no scene that fits was found.
    """
    for _ in range(TRIES):
        drawn = sample_scene(rng)
        tellings = [drawn] if len(drawn.groups) == 1 else [drawn, from_second(drawn)]
        for told in tellings:
            found = _dressed(told, scene, keep)
            if found is None or (is_held_out(found) and not is_held_out(scene)):
                continue
            fresh = with_unnamed(found, rng, edition)
            return replace(fresh, groups=found.groups) if style else fresh
    raise RuntimeError(f"no scene of which the same can be said in {TRIES} draws: {scene}")


def _dressed(drawn: Scene, scene: Scene, keep: Mention) -> Scene | None:
    """``drawn`` with the shapes and colours of ``scene``; None where it does not fit."""
    if len(drawn.groups) != len(scene.groups):
        return None
    pairs = list(zip(scene.groups, drawn.groups, strict=True))
    if drawn.relation in (*CONTACTS, AROUND):
        # A contact says which shapes it has; it is drawn again only where it is to be kept.
        same = all(old.shape == new.shape for old, new in pairs)
        if not (keep.relation and same):
            return None
    if keep.relation and drawn.relation != scene.relation:
        return None
    if keep.count and any(old.count != new.count for old, new in pairs):
        return None
    return replace(
        drawn,
        background=scene.background if keep.background else drawn.background,
        groups=tuple(replace(old, count=new.count) for old, new in pairs),
    )
