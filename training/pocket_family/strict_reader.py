"""The second judge: reads a picture by colour, connected components and templates, untrained.

It shares nothing with the trained reader but the world's palette and proportions, so where the
two agree neither is likely to be fooled. It is strict: a blob that fits no template is nothing.

A thing's filling is the one with which, drawn at its place, it looks most like the picture. For its
outline the pale stripes count as its colour, and what a rim encloses as its inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import fft, ndimage

from hb_tta.pocket.edition import FILLINGS, PLAIN
from hb_tta.pocket.reading import Place, Reading, all_relations, judge
from hb_tta.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    PALE,
    SHAPES,
    SIZE,
    Group,
    Scene,
    Thing,
    render,
)

__all__ = ["judge", "read_strictly"]

LEAST_IOU = 0.7  # overlap with the best template, below which a blob is no shape
LEAST_PIXELS = 30  # the smallest thing, a cross inside another, has about 85
LEAST_VISIBLE = 0.6  # of a thing's area: what is hidden more could be anything
SURE = 60.0  # distance in RGB within which a pixel has a palette colour for sure
_PAINTS = np.array(list(COLOURS.values()), np.float32)
# Every radius that the world draws, and a little beyond.
RADII = (*np.arange(5.6, 11.7, 0.4), *np.arange(18.2, 22.6, 0.7))


def read_strictly(images: np.ndarray) -> list[Reading]:
    """Read pictures.

    Args:
        images: uint8 (N, 64, 64, 3).

    Returns:
        One reading a picture; its confidence is the least overlap of a thing with its template.
    """
    return [_read(image) for image in images]


@dataclass(frozen=True)
class _Thing:
    shape: str
    colour: str
    filling: str
    place: Place
    iou: float


def _read(image: np.ndarray) -> Reading:
    background, shade = _ground(image)
    colours = _segment(image, shade, pale=True)
    things = [
        thing
        for index, name in enumerate(COLOURS)
        for blob in _blobs(colours == index)
        if (thing := _thing(image, blob, colours, name, background, shade))
    ]
    looks = sorted({(thing.shape, thing.colour) for thing in things}, key=_order)
    members = [[t for t in things if (t.shape, t.colour) == look] for look in looks]
    places = tuple(tuple(thing.place for thing in group) for group in members)
    groups = tuple(
        Group(*look, count=len(group), filling=_most([thing.filling for thing in group]))
        for look, group in zip(looks, members, strict=True)
    )
    least = min((thing.iou for thing in things), default=0.0)
    return Reading(background, groups, all_relations(places), least, places)


def _thing(image, blob, colours, name: str, background: str, shade) -> _Thing | None:
    """What a blob of one colour is, or None where no template fits it."""
    whole = _filled(blob, colours)
    others = (colours >= 0) & ~whole
    thing = _fit(whole, others, name)
    if thing is None:
        return None
    filling = _filling(image, thing, background)
    if filling == PLAIN:
        # Without pale stripes its edge is where it is half covered, not where a third is.
        edged = whole & (_segment(image, shade, pale=False) >= 0)
        thing = _fit(edged, others, name) or thing
    return replace(thing, filling=filling)


def _most(names: list[str]) -> str:
    return max(FILLINGS, key=names.count)


def _filled(blob: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The blob with the ground that it encloses; another thing inside stays its own."""
    return blob | (ndimage.binary_fill_holes(blob) & (colours < 0))


def _filling(image: np.ndarray, thing: _Thing, background: str) -> str:
    """Which filling fits the pixels at a thing's place best."""
    x, y, radius = thing.place
    top, left = (max(0, int(v - radius) - 1) for v in (y, x))
    window = np.s_[top : int(y + radius) + 2, left : int(x + radius) + 2]
    pixels = image[window].astype(np.float32)
    errors = []
    for filling in FILLINGS:
        group = Group(thing.shape, thing.colour, 1, filling)
        drawn = render(Scene(background, (group,), None, (Thing(0, x, y, radius),)))
        difference = np.abs(np.asarray(drawn, np.float32)[window] - pixels).sum(-1)
        # The best four fifths of the pixels: what lies on it or beside it is none of its filling.
        errors.append(np.sort(difference.ravel())[: int(0.8 * difference.size)].mean())
    return FILLINGS[int(np.argmin(errors))]


def _order(look: tuple[str, str]) -> tuple[int, str]:
    return SHAPES.index(look[0]), look[1]


def _ground(image: np.ndarray) -> tuple[str, np.ndarray]:
    """The ground's name and its shade (1, 3): it may lean, and is where most of its pixels are."""
    pixels = image.astype(np.float32)
    grounds = np.array(list(BACKGROUNDS.values()), np.float32)
    nearest = _distances(pixels, np.concatenate([grounds, _PAINTS])).argmin(-1)
    counts = np.bincount(nearest.ravel(), minlength=len(grounds))[: len(grounds)]
    ground = int(counts.argmax())
    seen = pixels[nearest == ground] if counts[ground] else grounds[ground : ground + 1]
    return list(BACKGROUNDS)[ground], np.median(seen, 0, keepdims=True)


def _segment(image: np.ndarray, shade: np.ndarray, *, pale: bool) -> np.ndarray:
    """Each pixel's colour: its index, or -1 for the ground.

    A pixel on an edge mixes two colours and may look like a third, so it goes to whatever the
    nearest sure pixel is.

    Args:
        pale: whether the pale mix of a colour and the ground is that colour.
    """
    palette = [shade, _PAINTS]
    if pale:
        palette.append(PALE * _PAINTS + (1 - PALE) * shade)
    distances = _distances(image.astype(np.float32), np.concatenate(palette))
    labels = distances.argmin(-1) - 1
    labels[labels >= len(_PAINTS)] -= len(_PAINTS)
    unsure = distances.min(-1) > SURE
    if unsure.any() and not unsure.all():
        rows, columns = ndimage.distance_transform_edt(
            unsure, return_distances=False, return_indices=True
        )
        labels = labels[rows, columns]
    return labels


def _distances(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels[:, :, None] - palette, axis=-1)


def _blobs(mask: np.ndarray) -> list[np.ndarray]:
    labels, number = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    return [labels == i for i in range(1, number + 1) if sizes[i] >= LEAST_PIXELS]


def _fit(blob: np.ndarray, others: np.ndarray, colour: str) -> _Thing | None:
    """The template that covers a blob best, or None.

    Another thing may hide a part of it (an agent lies on its object) or only lie around it, so a
    template's pixels on ``others`` count by half: the mean of the overlap with and without them.
    """
    bank = _templates()
    area = blob.sum()
    most = min(area + others.sum(), area / LEAST_VISIBLE) / LEAST_IOU
    rows = np.flatnonzero((bank.areas >= LEAST_IOU * area) & (bank.areas <= most))
    if not len(rows):
        return None
    areas = bank.areas[rows][:, None, None]
    common = bank.correlate(blob, rows)
    visible = areas - bank.correlate(others, rows)
    iou = (common / (visible + area - common) + common / (areas + area - common)) / 2
    iou[visible < LEAST_VISIBLE * areas] = 0.0
    best = np.unravel_index(iou.argmax(), iou.shape)
    if iou[best] < LEAST_IOU:
        return None
    shape, radius, dx, dy = bank.kinds[rows[best[0]]]
    place = Place(float(best[2] + dx), float(best[1] + dy), radius)
    return _Thing(shape, colour, FILLINGS[0], place, float(iou[best]))


class _Bank:
    """Templates of every shape and radius at half-pixel offsets, as spectra."""

    def __init__(self) -> None:
        self.kinds = [
            (shape, float(radius), dx, dy)
            for shape in SHAPES
            for radius in RADII
            for dx in (0.0, 0.5)
            for dy in (0.0, 0.5)
        ]
        masks = np.stack([_template(*kind) for kind in self.kinds])
        self.areas = masks.sum((1, 2))
        centred = np.roll(masks, (-SIZE // 2, -SIZE // 2), (1, 2))
        self.spectra = fft.rfft2(centred.astype(np.float32)).conj()

    def correlate(self, mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Overlap with every template of ``rows`` at every centre: (len(rows), y, x)."""
        spectrum = fft.rfft2(mask.astype(np.float32))
        return fft.irfft2(spectrum * self.spectra[rows], s=mask.shape)


@cache
def _templates() -> _Bank:
    return _Bank()


def _template(shape: str, radius: float, dx: float, dy: float) -> np.ndarray:
    """Pixels that are at least half covered by a thing at the picture's centre plus an offset."""
    thing = Thing(0, SIZE / 2 + dx, SIZE / 2 + dy, radius)
    picture = render(Scene("sand", (Group(shape, "black", 1),), None, (thing,)))
    sand, black = np.array(BACKGROUNDS["sand"]), np.array(COLOURS["black"])
    cover = (np.asarray(picture) - sand) @ (black - sand) / ((black - sand) ** 2).sum()
    return cover >= 0.5
