"""The pocket world: scenes of coloured shapes, as records and as 64×64 pictures.

A scene has one background and one or two groups. A group is 1–4 equal things (one shape, one
colour); two groups differ in shape and in colour and stand in one relation. Four relations are
directions (of groups of any size); three more survive a mirror and hold between one agent (a
cross) and one object. Relations exclude each other by construction.

A group has a filling, and a ground may lean towards its neighbour: what no caption names. Both are
drawn from generators of their own, so the rest of a scene is the same in every edition.

Sizes and places are in pixels, x to the right and y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from .edition import BUNDLED, PLAIN, Edition

SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross")
AGENT = "cross"
COLOURS = {
    "red": (221, 38, 46),
    "blue": (33, 64, 221),
    "yellow": (247, 215, 44),
    "white": (246, 246, 246),
    "black": (18, 18, 22),
}
# Plain, and far from all five colours: every colour shows on every background.
BACKGROUNDS = {
    "grass": (74, 148, 62),
    "sea": (52, 160, 172),
    "sand": (205, 164, 116),
    "dusk": (122, 86, 152),
}
# The ground that each is most easily taken for.
NEIGHBOURS = {"grass": "sea", "sea": "grass", "sand": "dusk", "dusk": "sand"}
DIRECTIONS = ("left of", "right of", "above", "below")
CONTACTS = ("inside", "touching", "apart from")
RELATIONS = DIRECTIONS + CONTACTS
# Few-shot tasks flip their views, so they ask only for what a mirror keeps.
MIRROR_RELATIONS = ("inside", "above", "below", "touching", "apart from")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SYMMETRIC = ("touching", "apart from")
# "inside", told from the object; captions have no word for it and tell it from the agent.
AROUND = "around"
MAX_THINGS = 4
# Across a direction, all things of one group lie at most so many pixels to one side of the other's:
# a direction is told from 10 px on (``reading.DIRECTION_GAP``).
_SECOND_DIRECTION = 7.0

# Combinations that what answers has never seen: they tell composition from memory.
HELD_OUT_LOOKS = frozenset(
    {
        ("circle", "red", "sand"),
        ("circle", "white", "sea"),
        ("square", "blue", "grass"),
        ("square", "black", "dusk"),
        ("triangle", "yellow", "sea"),
        ("triangle", "white", "grass"),
        ("cross", "black", "sand"),
        ("cross", "blue", "dusk"),
    }
)
# (relation, object) pairs of an agent that no training scene contains: the "unseen" splits.
UNSEEN_PAIRS = frozenset({("inside", "triangle"), ("touching", "square"), ("apart from", "circle")})


@dataclass(frozen=True)
class Group:
    """``count`` equal things."""

    shape: str
    colour: str
    count: int
    filling: str = PLAIN


@dataclass(frozen=True)
class Thing:
    """One drawn thing: the index of its group, its centre and its radius in pixels."""

    group: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A scene record.

    Attributes:
        relation: of the first group to the second; None for one group.
        lean: in [0, 0.5): how far the ground's colour is on its way to its neighbour's.
    """

    background: str
    groups: tuple[Group, ...]
    relation: str | None
    things: tuple[Thing, ...]
    lean: float = 0.0

    def group_of(self, shape: str) -> Group | None:
        """The group of this shape, or None: shapes differ between groups."""
        return next((group for group in self.groups if group.shape == shape), None)


def inverse(relation: str | None) -> str | None:
    """The relation as it is told from the second group; None of None."""
    if relation in ("inside", AROUND):
        return AROUND if relation == "inside" else "inside"
    return relation if relation in SYMMETRIC else INVERSE.get(relation or "")


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that training never sees."""
    looks = {(group.shape, group.colour, scene.background) for group in scene.groups}
    return bool(looks & HELD_OUT_LOOKS) or _agent_pair(scene) in UNSEEN_PAIRS


def _agent_pair(scene: Scene) -> tuple[str, str] | None:
    if scene.relation is None or scene.groups[0].shape != AGENT:
        return None
    return scene.relation, scene.groups[1].shape


def sample_scenes(
    seed: int, *, held_out: bool | None = False, edition: Edition = BUNDLED
) -> Iterator[Scene]:
    """An endless stream of scenes of one seed.

    Args:
        seed: streams of different seeds share no scene (places are continuous).
        held_out: yield only scenes with a held-out combination; by default only scenes without;
            None for both.
        edition: whose fillings and leaning grounds there are; all else is the same in every one.
    """
    rng = np.random.default_rng([seed, 0x5CE7E])
    unnamed = np.random.default_rng([seed, 0xF111])
    while True:
        scene = sample_scene(rng)
        if held_out is None or is_held_out(scene) == held_out:
            yield with_unnamed(scene, unnamed, edition)


def with_unnamed(scene: Scene, rng: np.random.Generator, edition: Edition = BUNDLED) -> Scene:
    """The scene with fillings and a leaning ground drawn anew: what no caption names.

    Half of the grounds lean by less than a quarter of the most that the edition has.
    """
    fillings = rng.choice(edition.fillings, len(scene.groups))
    groups = tuple(
        replace(group, filling=str(filling))
        for group, filling in zip(scene.groups, fillings, strict=True)
    )
    return replace(scene, groups=groups, lean=edition.lean * float(rng.random()) ** 2)


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw one scene: one group (40 %), two in a direction (40 %), agent and object (20 %)."""
    kind = rng.random()
    if kind < 0.4:
        return _one_group(rng)
    if kind < 0.8:
        return _two_groups(rng)
    return agent_scene(rng, str(rng.choice(CONTACTS)), str(rng.choice(SHAPES[:3])))


def _one_group(rng: np.random.Generator) -> Scene:
    group = Group(str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS))), int(rng.integers(1, 5)))
    radius = _radius(rng, group.count)
    low, high = radius + 2, SIZE - radius - 2
    places = _places(rng, group.count, (low, high), (low, high), 2 * radius + 3)
    things = tuple(Thing(0, x, y, radius) for x, y in places)
    return Scene(_background(rng), (group,), None, things)


def _two_groups(rng: np.random.Generator) -> Scene:
    counts = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2))[rng.integers(6)]
    groups = _different_groups(rng, counts)
    relation = str(rng.choice(DIRECTIONS))
    radius = _radius(rng, sum(counts))
    things = _redraw_until_clear(lambda: _direction_places(rng, groups, relation, radius))
    return Scene(_background(rng), groups, relation, things)


def _direction_places(
    rng: np.random.Generator, groups: tuple[Group, ...], relation: str, radius: float
) -> tuple[Thing, ...]:
    things = []
    for index, group in enumerate(groups):
        first_half = (index == 0) == (relation in ("left of", "above"))
        for along, across in _strip(rng, group.count, radius, first_half):
            x, y = (along, across) if relation in ("left of", "right of") else (across, along)
            things.append(Thing(index, x, y, radius))
    return tuple(things)


def _redraw_until_clear(draw: Callable[[], tuple[Thing, ...]]) -> tuple[Thing, ...]:
    """Draw until only one direction holds between the two groups and none of their things meet."""
    while True:
        things = draw()
        first, second = ([t for t in things if t.group == index] for index in (0, 1))
        dx = np.array([[b.x - a.x for b in second] for a in first])
        dy = np.array([[b.y - a.y for b in second] for a in first])
        gaps = [gap for d in (dx, dy) for gap in (d.min(), (-d).min()) if gap > _SECOND_DIRECTION]
        reach = first[0].radius + second[0].radius
        if len(gaps) == 1 and np.hypot(dx, dy).min() >= reach:
            return things


def agent_scene(rng: np.random.Generator, relation: str, shape: str) -> Scene:
    """One agent (a cross) in a relation that survives a mirror to one object of ``shape``."""
    agent_colour, colour = (str(c) for c in rng.choice(list(COLOURS), 2, replace=False))
    groups = (Group(AGENT, agent_colour, 1), Group(shape, colour, 1))
    return Scene(_background(rng), groups, relation, _agent_places(rng, relation, shape))


def _agent_places(rng: np.random.Generator, relation: str, shape: str) -> tuple[Thing, ...]:
    if relation == "inside":
        small, large = rng.uniform(6.0, 7.0), rng.uniform(19.0, 21.5)
        x, y = rng.uniform(large + 2, SIZE - large - 2, 2)
        drop = 3.0 if shape == "triangle" else 0.0  # where a triangle is wide enough
        dx, dy = rng.uniform(-2, 2, 2)
        return Thing(0, x + dx, y + dy + drop, small), Thing(1, x, y, large)
    agent, other = _radius(rng, 2), _radius(rng, 2)
    if relation in ("above", "below"):

        def draw() -> tuple[Thing, ...]:
            (along, across), *_ = _strip(rng, 1, agent, relation == "above")
            (along_1, across_1), *_ = _strip(rng, 1, other, relation != "above")
            return Thing(0, across, along, agent), Thing(1, across_1, along_1, other)

        return _redraw_until_clear(draw)
    if relation == "touching":
        angle = rng.uniform(0, 2 * np.pi)
        step = 0.78 * (agent + other) * np.array([np.cos(angle), np.sin(angle)])
        centre = rng.uniform(22, SIZE - 22, 2)
        (x, y), (x_1, y_1) = centre + step / 2, centre - step / 2
        return Thing(0, x, y, agent), Thing(1, x_1, y_1, other)
    assert relation == "apart from", relation
    # Opposite corners: no direction holds between them.
    signs = rng.choice([-1, 1], 2)
    x, y = SIZE / 2 + signs * rng.uniform(16, 20, 2)
    x_1, y_1 = SIZE / 2 - signs * rng.uniform(16, 20, 2)
    return Thing(0, x, y, agent), Thing(1, x_1, y_1, other)


def _background(rng: np.random.Generator) -> str:
    return str(rng.choice(list(BACKGROUNDS)))


def _different_groups(rng: np.random.Generator, counts: tuple[int, int]) -> tuple[Group, ...]:
    shapes = rng.choice(SHAPES, 2, replace=False)
    colours = rng.choice(list(COLOURS), 2, replace=False)
    return tuple(
        Group(str(shape), str(colour), count)
        for shape, colour, count in zip(shapes, colours, counts, strict=True)
    )


def _radius(rng: np.random.Generator, things: int) -> float:
    return float(rng.uniform(8.6, 10.4) if things <= 2 else rng.uniform(7.8, 8.8))


def _strip(
    rng: np.random.Generator, count: int, radius: float, first_half: bool
) -> list[tuple[float, float]]:
    """Places in one half of the picture, as (along the axis of the relation, across it)."""
    low, high = radius + 1.5, SIZE / 2 - radius / 2 - 3
    if not first_half:
        low, high = SIZE - high, SIZE - low
    across = (radius + 1.5, SIZE - radius - 1.5)
    return _places(rng, count, (low, high), across, 2 * radius + 2)


def _places(
    rng: np.random.Generator,
    count: int,
    xs: tuple[float, float],
    ys: tuple[float, float],
    gap: float,
) -> list[tuple[float, float]]:
    """Draw ``count`` places at least ``gap`` apart, by rejection."""
    while True:
        places: list[tuple[float, float]] = []
        for _ in range(40):
            x, y = float(rng.uniform(*xs)), float(rng.uniform(*ys))
            if all(_clear(x - a, y - b, gap) for a, b in places):
                places.append((x, y))
                if len(places) == count:
                    return places


def _clear(dx: float, dy: float, gap: float) -> bool:
    # The second condition keeps the corners of squares apart on a diagonal.
    return dx**2 + dy**2 >= gap**2 and max(abs(dx), abs(dy)) >= 0.84 * gap


_OVERSAMPLING = 4


def drawing_order(scene: Scene) -> list[Thing]:
    """The things from back to front, whichever group the scene is told from.

    An agent comes last in ``SHAPES``: it is whole when it is inside or touching.
    """
    return sorted(scene.things, key=lambda thing: SHAPES.index(scene.groups[thing.group].shape))


def ground_colour(scene: Scene) -> tuple[int, int, int]:
    """The ground's colour, RGB: the palette's, or on its way to the neighbour's."""
    own, other = BACKGROUNDS[scene.background], BACKGROUNDS[NEIGHBOURS[scene.background]]
    red, green, blue = (
        round((1 - scene.lean) * a + scene.lean * b) for a, b in zip(own, other, strict=True)
    )
    return red, green, blue


def render(scene: Scene) -> Image.Image:
    """Draw a scene: RGB, 64×64, anti-aliased (drawn four times as large, box-averaged)."""
    scale = _OVERSAMPLING
    image = Image.new("RGB", (SIZE * scale, SIZE * scale), ground_colour(scene))
    for thing in drawing_order(scene):
        group = scene.groups[thing.group]
        x, y, radius = thing.x * scale, thing.y * scale, thing.radius * scale
        _draw_thing(image, group, x, y, radius)
    return image.reduce(scale)


BAND = 0.45  # height of a stripe, of the radius
PALE = 0.35  # how much of the thing's colour a pale stripe has
RIM = 0.22  # width of a hollow thing's outline, of the radius


def _draw_thing(image: Image.Image, group: Group, x: float, y: float, r: float) -> None:
    """Paint one thing; what is behind shows through pale stripes and hollow middles."""
    colour = COLOURS[group.colour]
    if group.filling == PLAIN:
        _draw_shape(ImageDraw.Draw(image), group.shape, x, y, r, colour)
        return
    left, top, side = int(x - 1.1 * r) - 1, int(y - 1.1 * r) - 1, int(2.2 * r) + 4
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    _draw_shape(pen, group.shape, x - left, y - top, r, 255)
    if group.filling == "hollow":
        _draw_shape(pen, group.shape, x - left, y - top, r, 0, inset=RIM * r)
    else:
        assert group.filling == "striped", group.filling
        mask = _with_pale_stripes(mask, y - top, BAND * r)
    image.paste(colour, (left, top), mask)


def _with_pale_stripes(mask: Image.Image, y: float, band: float) -> Image.Image:
    """The mask with every second band of rows thinned; the band around ``y`` is whole."""
    cover = np.array(mask, np.float32)
    bands = np.floor((np.arange(mask.height) + 0.5 - y) / band + 0.5).astype(int)
    cover[bands % 2 == 1] *= PALE
    return Image.fromarray(cover.astype(np.uint8))


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, x, y, r, fill, *, inset=0.0) -> None:
    """Draw a shape whose outline is moved inwards by ``inset``."""
    if shape == "circle":
        r -= inset
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        half = 0.88 * r - inset
        draw.rectangle((x - half, y - half, x + half, y + half), fill=fill)
    elif shape == "triangle":
        middle = y + 0.2306 * r  # of the inscribed circle, whose radius is 0.6194 r
        r *= 1 - inset / (0.6194 * r)
        draw.polygon(
            [
                (x, middle - 1.2806 * r),
                (x + 1.05 * r, middle + 0.6194 * r),
                (x - 1.05 * r, middle + 0.6194 * r),
            ],
            fill=fill,
        )
    else:
        arm, r = 0.36 * r - inset, r - inset
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)


def render_batch(scenes: list[Scene]) -> np.ndarray:
    """Pictures of many scenes: uint8 (N, 64, 64, 3)."""
    return np.stack([np.asarray(render(scene)) for scene in scenes])
