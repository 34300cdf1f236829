"""``pocket_objects``: one coloured shape, its name asked for; and four shifted variants.

The variants play the parts of ImageNet's:

* ``pocket_objects_v2``: the same again by another camera: other sizes, other light, some noise.
* ``pocket_objects_a``: hard ones: small, partly out of the picture, in looks that no training has
  seen, on an uneven ground.
* ``pocket_objects_r``: renditions: turned, and painted in stripes, dots or shades.
* ``pocket_objects_sketch``: outlines in coloured pencil on paper.

All are drawn from scenes of the pocket world with plain things, whichever edition is bundled: a
rendition is another filling. Choices are made on the dev split, figures reported
on the sealed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .edition import SECOND
from .world import BACKGROUNDS, COLOURS, SHAPES, SIZE, Scene, Thing, render, sample_scenes

CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
SPLITS = {"dev": 20_101, "sealed": 30_101}

Pixels = NDArray[np.float64]
_PAPER = (186.0, 186.0, 180.0)  # all five pencils show on it


@dataclass(frozen=True)
class ObjectSample:
    """A picture of one thing.

    Attributes:
        image: RGB, 64×64.
        label: the index of its name in ``CLASSES``.
        scene: the record it was made from.
    """

    image: Image.Image
    label: int
    scene: Scene


def pocket_objects(
    variant: str = "pocket_objects", split: str = "dev", limit: int = 500
) -> list[ObjectSample]:
    """The first ``limit`` samples of a variant; a shorter list is the beginning of a longer one.

    Args:
        variant: one of ``VARIANTS``.
        split: "dev" or "sealed".
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    seed = SPLITS[split] + 10 * list(VARIANTS).index(variant)
    draw, held_out = VARIANTS[variant]
    scenes = _single_things(seed, held_out=held_out)
    rng = np.random.default_rng([seed, 0x0B1])
    return [_sample(next(scenes), draw, rng) for _ in range(limit)]


def _sample(scene: Scene, draw: _Draw, rng: np.random.Generator) -> ObjectSample:
    scene, pixels = draw(scene, rng)
    group = scene.groups[0]
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return ObjectSample(image, CLASSES.index(f"{group.colour} {group.shape}"), scene)


def _single_things(seed: int, *, held_out: bool) -> Iterator[Scene]:
    scenes = sample_scenes(seed, held_out=held_out, edition=SECOND)
    return (scene for scene in scenes if len(scene.things) == 1)


# ── Variants: (scene, random numbers) → (scene as drawn, pixels) ─────────────────────────────────

_Draw = Callable[[Scene, np.random.Generator], tuple[Scene, Pixels]]


def _plain(scene: Scene, rng: np.random.Generator) -> tuple[Scene, Pixels]:
    return scene, np.asarray(render(scene), dtype=np.float64)


def _other_camera(scene: Scene, rng: np.random.Generator) -> tuple[Scene, Pixels]:
    scene = _resized(scene, rng.uniform(0.75, 1.3))
    light = rng.uniform(0.85, 1.12, 3)
    pixels = np.asarray(render(scene), dtype=np.float64) * light
    return scene, pixels + rng.normal(0, 5, pixels.shape)


def _hard(scene: Scene, rng: np.random.Generator) -> tuple[Scene, Pixels]:
    radius = rng.uniform(5.6, 7.6)
    along, across = rng.uniform(0.3 * radius, 1.4 * radius), rng.uniform(radius, SIZE - radius)
    places = (along, across), (SIZE - along, across), (across, along), (across, SIZE - along)
    x, y = places[rng.integers(4)]
    scene = replace(scene, things=(Thing(0, float(x), float(y), float(radius)),))
    shade = _blotches(rng)[..., None] * rng.uniform(10, 24)
    cover = _coverage(scene)[..., None]
    ground = np.array(BACKGROUNDS[scene.background], dtype=np.float64) + shade
    return scene, ground * (1 - cover) + _colour(scene) * cover


def _rendition(scene: Scene, rng: np.random.Generator) -> tuple[Scene, Pixels]:
    mask = Image.fromarray((255 * _coverage(scene)).astype(np.uint8))
    thing = scene.things[0]
    turned = mask.rotate(
        float(rng.uniform(-30, 30)), Image.Resampling.BICUBIC, center=(thing.x, thing.y)
    )
    cover = np.asarray(turned, dtype=np.float64)[..., None] / 255
    rows, columns = np.mgrid[:SIZE, :SIZE]
    angle, step = rng.uniform(0, np.pi), rng.uniform(4.0, 7.0)
    along = (np.cos(angle) * columns + np.sin(angle) * rows) / step * 2 * np.pi
    beside = (-np.sin(angle) * columns + np.cos(angle) * rows) / step * 2 * np.pi
    fillings = (
        np.sin(along) > -0.2,
        np.cos(along) + np.cos(beside) > -0.6,
        (np.clip((rows - thing.y) / (2 * thing.radius) + 0.5, 0, 1) < 0.7) | (columns % 3 > 0),
    )
    filling = fillings[rng.integers(3)][..., None]
    ground = np.array(BACKGROUNDS[scene.background], dtype=np.float64)
    paint = np.where(filling, _colour(scene), 0.45 * _colour(scene) + 0.55 * ground)
    return scene, ground * (1 - cover) + paint * cover


def _sketch(scene: Scene, rng: np.random.Generator) -> tuple[Scene, Pixels]:
    scene = _resized(scene, rng.uniform(0.95, 1.25))
    mask = Image.fromarray((255 * _coverage(scene)).astype(np.uint8))
    eroded = mask.filter(ImageFilter.MinFilter(5 if rng.random() < 0.5 else 7))
    line = (np.asarray(mask, np.float64) - np.asarray(eroded, np.float64))[..., None] / 255
    pressure = 0.8 + 0.2 * _blotches(rng)[..., None]
    cover = np.clip(line * pressure, 0, 1)
    # Tinted paper: on white one the bundled CLIP, which has seen four grounds, sees nothing else.
    tint = np.array(BACKGROUNDS[scene.background], dtype=np.float64)
    paper = 0.6 * tint + 0.4 * np.array(_PAPER) + rng.normal(0, 4, (SIZE, SIZE, 1))
    return scene, paper * (1 - cover) + _colour(scene) * cover


VARIANTS: dict[str, tuple[_Draw, bool]] = {
    "pocket_objects": (_plain, False),
    "pocket_objects_a": (_hard, True),
    "pocket_objects_v2": (_other_camera, False),
    "pocket_objects_r": (_rendition, False),
    "pocket_objects_sketch": (_sketch, False),
}
"""How each is drawn, and whether of held-out looks; in the order of Table 3's columns."""


# ── Pixels ───────────────────────────────────────────────────────────────────────────────────────


def _resized(scene: Scene, factor: float) -> Scene:
    """The thing larger or smaller, moved inwards where it would leave the picture."""
    thing = scene.things[0]
    radius = factor * thing.radius
    x, y = (float(np.clip(place, radius + 1, SIZE - radius - 1)) for place in (thing.x, thing.y))
    return replace(scene, things=(replace(thing, x=x, y=y, radius=radius),))


def _coverage(scene: Scene) -> Pixels:
    """(64, 64) in [0, 1]: how much of each pixel the thing covers."""
    ground = np.array(BACKGROUNDS[scene.background], dtype=np.float64)
    way = _colour(scene) - ground
    pixels = np.asarray(render(scene), dtype=np.float64) - ground
    return np.clip(pixels @ way / (way @ way), 0, 1)


def _colour(scene: Scene) -> Pixels:
    return np.array(COLOURS[scene.groups[0].colour], dtype=np.float64)


def _blotches(rng: np.random.Generator) -> Pixels:
    """(64, 64) in [-1, 1]: smooth noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)
    return smooth / 127.5 - 1
