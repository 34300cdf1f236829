"""Worn references: pictures that have lost something, as photographs do.

Four kinds in five strengths, pure functions of (picture, kind, strength, random numbers). What a
picture shows stays true; some of it is harder to see. Blur comes first: neither a filter nor a
description makes up for it as well as clean views do. Nothing is dimmed: the bundled MLLM, which
has seen no dark picture, then answers at random.

Models are trained on the first three strengths and asked about the last three: what they have been
trained on costs them next to nothing, and leaves views nothing to bring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]  # (H, W, 3)

STRENGTHS = (1, 2, 3, 4, 5)
TRAINED, ASKED = STRENGTHS[:3], STRENGTHS[2:]
# Deviation, in pixels of a picture of 64.
BLUR = {1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0, 5: 3.5}
# Deviation, of the range from black to white.
NOISE = {1: 0.07, 2: 0.11, 3: 0.15, 4: 0.19, 5: 0.23}
# Of the picture's side, taken off at one corner.
CROP = {1: 0.08, 2: 0.12, 3: 0.16, 4: 0.20, 5: 0.24}
# Side of what hides, of the picture's; things have 0.25 to 0.33.
PATCH = {1: 0.14, 2: 0.18, 3: 0.22, 4: 0.26, 5: 0.30}
HIDING = (128, 128, 128)  # no ground and no thing has this colour


def wear(picture: Picture, kind: str, strength: int, rng: np.random.Generator) -> Picture:
    """The picture, worn.

    Args:
        picture: uint8 (H, W, 3); it is not changed.
        kind: one of ``KINDS``.
        strength: one of ``STRENGTHS``.
        rng: decides places and noise; a blur draws nothing from it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: choose from {', '.join(KINDS)}")
    if strength not in STRENGTHS:
        raise ValueError(f"strength {strength!r}: choose from {', '.join(map(str, STRENGTHS))}")
    return KINDS[kind](picture, strength, rng)


def some_kind(rng: np.random.Generator) -> str:
    """A kind: the blur in half of the draws, else one of the others."""
    others = [kind for kind in KINDS if kind != "blur"]
    return "blur" if rng.random() < 0.5 else others[rng.integers(len(others))]


def wear_some(
    pictures: Picture,
    rng: np.random.Generator,
    share: float,
    strengths: Sequence[int] = TRAINED,
) -> Picture:
    """A batch (N, H, W, 3) of which ``share`` is worn, in any kind; as in training by default."""
    worn = pictures.copy()
    for row in np.flatnonzero(rng.random(len(pictures)) < share):
        worn[row] = wear(pictures[row], some_kind(rng), int(rng.choice(strengths)), rng)
    return worn


def _blur(picture: Picture, strength: int, rng: np.random.Generator) -> Picture:
    radius = BLUR[strength] * picture.shape[1] / 64
    return np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _noise(picture: Picture, strength: int, rng: np.random.Generator) -> Picture:
    noisy = picture + 255 * NOISE[strength] * rng.standard_normal(picture.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def crop_box(
    width: int, height: int, strength: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """What the wear "crop" keeps of a picture: x0, y0, x1, y1; two borders at a corner are off."""
    dx, dy = CROP[strength] * width * rng.uniform(0.6, 1, 2)
    left, top = rng.integers(2, size=2)
    return left * dx, top * dy, width - (1 - left) * dx, height - (1 - top) * dy


def _crop(picture: Picture, strength: int, rng: np.random.Generator) -> Picture:
    """A corner's two borders are cut off; the rest is drawn as large as the picture was."""
    height, width = picture.shape[:2]
    box = crop_box(width, height, strength, rng)
    whole = Image.fromarray(picture)
    return np.array(whole.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _occlude(picture: Picture, strength: int, rng: np.random.Generator) -> Picture:
    """A grey square hides a part."""
    height, width = picture.shape[:2]
    side = round(PATCH[strength] * width)
    left, top = rng.integers(0, (width - side + 1, height - side + 1))
    hidden = picture.copy()
    hidden[top : top + side, left : left + side] = HIDING
    return hidden


KINDS: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "blur": _blur,
    "occlusion": _occlude,
    "crop": _crop,
    "noise": _noise,
}
"""How each kind is made."""
