"""The rows of MUMU's table: from one scene the prompt of each arm, and what a right picture shows.

Every arm is asked about the same scenes. A scene's groups are told in words, in crops, or in
neither; crops come from the scene itself, from another scene with the same things, or stand before
each other's words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from hb_tta.generators.mumu.prompt import Part, Prompt, crop
from hb_tta.pocket.boxes import word_boxes
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, NEIGHBOURS, Group, Scene, render


@dataclass(frozen=True)
class Asked:
    """A prompt and what it asks for.

    Attributes:
        prompt: words and crops.
        scene: what a right picture shows, as far as ``mention`` names it.
        mention: what is judged.
        crops: the images of the prompt, in order.
        ground: of the crops' scene, where it is another than the picture's; else ``None``.
    """

    prompt: Prompt
    scene: Scene
    mention: Mention
    crops: tuple[Image, ...] = ()
    ground: str | None = None


Arm = Callable[[Scene, np.random.Generator], "Asked | None"]
"""``None``: the scene cannot be asked so."""


def words(scene: Scene, rng: np.random.Generator) -> Asked:
    """Everything in words."""
    mention = Mention(background=False)
    return Asked(Prompt((caption(scene, mention),)), scene, mention)


def neither(scene: Scene, rng: np.random.Generator) -> Asked:
    """Neither colour nor crop, the control: what is left to chance."""
    text = caption(scene, Mention(background=False, colour=False))
    return Asked(Prompt((text,)), scene, Mention(background=False))


def crops(scene: Scene, rng: np.random.Generator) -> Asked:
    """The colour in crops of the scene itself alone."""
    return _in_crops(scene, scene, scene, rng)


def other_scene(scene: Scene, rng: np.random.Generator) -> Asked:
    """The colour in crops of a scene with the same things, elsewhere, on another ground."""
    own = {scene.background, NEIGHBOURS[scene.background]}
    ground = str(rng.choice([name for name in BACKGROUNDS if name not in own]))
    things = tuple(replace(thing, x=64 - thing.x) for thing in scene.things)
    other = replace(scene, background=ground, things=things, lean=0.0)
    asked = _in_crops(replace(scene, lean=0.0), other, scene, rng, background=True)
    return replace(asked, ground=ground)


def unsaid_ground(scene: Scene, rng: np.random.Generator) -> Asked:
    """Crops of another scene, and no ground in words: whether the crops' ground is taken over."""
    asked = other_scene(scene, rng)
    other = replace(scene, background=asked.ground or scene.background, lean=0.0)
    return replace(_in_crops(other, other, scene, rng), ground=asked.ground)


def exchanged(scene: Scene, rng: np.random.Generator) -> Asked | None:
    """Each of two words has the other's crop: the word says the shape, the crop the look."""
    if len(scene.groups) < 2:
        return None
    first, second = scene.groups
    swapped = (
        replace(first, colour=second.colour, filling=second.filling),
        replace(second, colour=first.colour, filling=first.filling),
    )
    return _in_crops(scene, scene, replace(scene, groups=swapped), rng, exchange=True)


def conflict(scene: Scene, rng: np.random.Generator) -> Asked:
    """Words of other colours than the crops': the scene asked for is the words'."""
    taken = {group.colour for group in scene.groups}
    free = [colour for colour in COLOURS if colour not in taken]
    drawn = rng.permutation(free)
    groups = tuple(
        replace(group, colour=str(colour))
        for group, colour in zip(scene.groups, drawn, strict=False)
    )
    told = replace(scene, groups=groups)
    mention = Mention(background=False)
    text = caption(told, mention)
    boxes = word_boxes(told, text, rng)
    picture = render(scene)
    cut = tuple(crop(picture, box.box) for box in boxes)
    parts: list[Part] = []
    place = 0
    for box, image in zip(boxes, cut, strict=True):
        parts += [text[place : box.start], image]
        place = box.start
    return Asked(_prompt([*parts, text[place:]]), told, mention, cut)


ARMS: dict[str, Arm] = {
    "words": words,
    "crops of the scene": crops,
    "crops of another scene": other_scene,
    "crops exchanged": exchanged,
    "neither (control)": neither,
}
"""Arms that are judged alike, by name; ``words`` comes first: the others are compared with it."""


def won(colours: tuple[Group, ...], told: Scene, seen: Callable[[str, str], bool]) -> list[str]:
    """For each group of a conflict whose colour is in the picture: "crop", "word" or "neither".

    Args:
        colours: the crops' groups.
        told: the words' scene.
        seen: whether the picture has a shape in a colour.
    """
    found = []
    for shown, said in zip(colours, told.groups, strict=True):
        if seen(shown.shape, shown.colour):
            found.append("crop")
        else:
            found.append("word" if seen(said.shape, said.colour) else "neither")
    return found


def _in_crops(
    asked: Scene,
    cut_from: Scene,
    wanted: Scene,
    rng: np.random.Generator,
    *,
    background: bool = False,
    exchange: bool = False,
) -> Asked:
    """Nouns in words, with a crop before each; ``wanted`` is what a right picture shows."""
    named = Mention(background=background)
    bare = caption(asked, replace(named, colour=False))
    places = word_boxes(asked, bare, rng)
    source = word_boxes(cut_from, caption(cut_from, named), rng)
    picture = render(cut_from)
    cut = [crop(picture, box.box) for box in source]
    if exchange:
        cut.reverse()
    parts: list[Part] = []
    place = 0
    for box, image in zip(places, cut, strict=True):
        parts += [bare[place : box.start], image]
        place = box.start
    return Asked(_prompt([*parts, bare[place:]]), wanted, named, tuple(cut))


def _prompt(parts: list[Part]) -> Prompt:
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return Prompt(tuple(part for part in stripped if not isinstance(part, str) or part))
