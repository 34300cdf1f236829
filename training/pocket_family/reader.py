"""Stage ``reader``: the network that judges.

It learns from rendered scenes alone, roughened as a decoder may roughen them (blur, noise, bent
edges, shifted colours), never from a generator's pictures. Half of its scenes are scattered: up to
three groups anywhere, so that it reads what is there and not what the world would have drawn. Some
are worn, for a reference may be.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hb_tta.pocket.edition import FILLINGS, THIRD
from hb_tta.pocket.reader import COUNT_HEADS, FILLING_HEADS, HEADS, MOST_READ, Reader
from hb_tta.pocket.reading import fillings_kept, judge, places_of, relations_between
from hb_tta.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZE,
    Group,
    Scene,
    Thing,
    render_batch,
    sample_scene,
    with_unnamed,
)
from hb_tta.pocket.worn import wear_some
from hb_tta.training.pocket_family.labels import DENSE_HEADS, dense_labels, head_loss
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, dev_scenes, to_pixels

BATCH = 64
WORN = 0.15  # the share of worn pictures
STEPS, GO_ON_STEPS = 2000, 1200
READ_HEADS = HEADS | COUNT_HEADS | FILLING_HEADS
UNSURE = -1.0  # a relation whose margin is too small to be taught


def train_reader(run: RecipeRun) -> Reader:
    """Train the reader on fresh scenes every step and save it."""
    torch.manual_seed(run.seed)
    reader = _start(run).to(run.device)
    width = reader.places.in_channels
    dense = nn.ModuleDict({name: nn.Conv2d(width, n, 1) for name, n in DENSE_HEADS.items()})
    dense.to(run.device)
    dev = dev_scenes(run, 1000)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        scenes = draw_scenes(draws.numpy, BATCH)
        pictures = wear_some(render_batch(scenes), draws.numpy, WORN)
        pixels = roughen(to_pixels(pictures, run.device), draws)
        maps = reader.features(pixels)
        whole = reading_loss(reader.read_features(maps), reading_labels(scenes))
        return whole + 0.5 * _dense_loss(dense, maps, scenes)

    def evaluate() -> dict[str, float]:
        reader.eval()
        pairs = list(zip(reader.read(dev.pictures), dev.records, strict=True))
        verdicts = [judge(*pair) | {"filling": fillings_kept(*pair)} for pair in pairs]
        reader.train()
        names = ("scene", "colour", "existence", "count", "position", "filling")
        return {n: float(np.mean([v[n] for v in verdicts if n in v])) for n in names}

    optimize(
        run, "reader", {"reader": reader, "dense": dense}, loss,
        steps=run.steps(GO_ON_STEPS if run.start else STEPS), lr=2e-3, weight_decay=0.02,
        evaluate=evaluate, evaluate_every=250,
    )  # fmt: skip
    reader.eval().half().save_pretrained(run.weights / "reader")
    return reader


def _start(run: RecipeRun) -> Reader:
    """An untrained reader, or an earlier family's with heads for what it did not know."""
    reader = Reader(heads=READ_HEADS)
    if run.start:
        now = reader.state_dict()
        for name, value in Reader.from_pretrained(run.start / "reader").state_dict().items():
            # Of a head with more answers than before the new ones come last, and are untrained.
            now[name] = torch.cat([value, now[name][len(value) :]]) if value.ndim else value
        reader.load_state_dict(now)
    return reader


def _dense_loss(dense: nn.ModuleDict, maps: torch.Tensor, scenes: list[Scene]) -> torch.Tensor:
    logits = {name: head(maps).flatten(2).transpose(1, 2) for name, head in dense.items()}
    return head_loss(logits, {k: torch.from_numpy(v) for k, v in dense_labels(scenes).items()})


def reading_labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Targets of every head: class numbers (N,); for "relation" floats (N, 7).

    A relation is 1 where it holds, 0 where it does not, and ``UNSURE`` where its margin is small
    or where there are not two groups.
    """
    labels = {name: np.zeros(len(scenes), np.int64) for name in READ_HEADS if name != "relation"}
    relation = np.full((len(scenes), len(RELATIONS)), UNSURE, np.float32)
    for row, scene in enumerate(scenes):
        labels["background"][row] = list(BACKGROUNDS).index(scene.background)
        for group in scene.groups:
            labels[f"count_{group.shape}"][row] = group.count
            labels[f"colour_{group.shape}"][row] = 1 + list(COLOURS).index(group.colour)
            labels[f"filling_{group.shape}"][row] = 1 + FILLINGS.index(group.filling)
        if len(scene.groups) == 2:
            relation[row] = _relation_targets(scene)
    targets = {name: torch.from_numpy(values) for name, values in labels.items()}
    return targets | {"relation": torch.from_numpy(relation)}


def _relation_targets(scene: Scene) -> np.ndarray:
    ranks = [SHAPES.index(group.shape) for group in scene.groups]
    first, second = (places_of(scene)[i] for i in np.argsort(ranks))
    narrow, wide = (
        relations_between(first, second, slack=slack) - {"inside"}
        | relations_between(second, first, slack=slack) & {"inside"}
        for slack in (-1.0, 1.0)
    )
    return np.array(
        [1.0 if r in narrow else UNSURE if r in wide else 0.0 for r in RELATIONS], np.float32
    )


def reading_loss(logits: dict, labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean cross-entropy over heads; a relation is taught only where it is sure."""
    losses = []
    for name, values in logits.items():
        target = labels[name].to(values.device)
        if name == "relation":
            known = target != UNSURE
            losses.append(F.binary_cross_entropy_with_logits(values[known], target[known]))
        else:
            losses.append(F.cross_entropy(values, target))
    return torch.stack(losses).mean()


def draw_scenes(rng: np.random.Generator, number: int) -> list[Scene]:
    """Half of the world's scenes, half scattered ones.

    The combinations that are held out are among them: they tell composition from memory in the
    models that are judged, and a judge that had never seen them would misread them.
    """
    scenes: list[Scene] = []
    while len(scenes) < number:
        scene = sample_scene(rng) if len(scenes) % 2 else scattered_scene(rng)
        if scene is not None:
            scenes.append(with_unnamed(scene, rng, THIRD))
    return scenes


def scattered_scene(rng: np.random.Generator) -> Scene | None:
    """One to three groups of different shapes anywhere, up to six things; colours may repeat.

    So one shape may be there oftener than the world has it.

    ``relation`` is left None. Returns None where the things did not fit.
    """
    number = int(rng.integers(1, 4))
    shapes = rng.choice(SHAPES, number, replace=False)
    counts = rng.integers(1, {1: MOST_READ + 1, 2: 6, 3: 3}[number], number)
    if counts.sum() > MOST_READ:
        return None
    groups = tuple(
        Group(str(shape), str(rng.choice(list(COLOURS))), int(count))
        for shape, count in zip(shapes, counts, strict=True)
    )
    things: list[Thing] = []
    for index in np.repeat(np.arange(number), counts):
        thing = _scattered_thing(rng, int(index), things)
        if thing is None:
            return None
        things.append(thing)
    return Scene(str(rng.choice(list(BACKGROUNDS))), groups, None, tuple(things))


def _scattered_thing(rng, index: int, things: list[Thing]) -> Thing | None:
    radius = float(rng.uniform(7.4, 10.8) if len(things) < 3 else rng.uniform(7.4, 9.0))
    for _ in range(20):
        x, y = (float(v) for v in rng.uniform(radius, SIZE - radius, 2))
        if all(_apart(x - t.x, y - t.y, radius + t.radius) for t in things):
            return Thing(index, x, y, radius)
    return None


def _apart(dx: float, dy: float, reach: float) -> bool:
    # Closer than the world allows: generated things may nearly touch.
    return np.hypot(dx, dy) >= 1.04 * reach and max(abs(dx), abs(dy)) >= 0.9 * reach


def roughen(pixels: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Pictures as a decoder might give them: bent, blurred, off in colour, and noisy.

    Args:
        pixels: (N, 3, 64, 64) in [-1, 1]. A quarter of the rows stay as they are.
    """
    number, device = len(pixels), pixels.device
    strength = draws.numpy.uniform(0, 1, (number, 4)).astype(np.float32)
    strength[: number // 4] = 0.0
    bend, blur, tint, noise = (
        torch.from_numpy(strength).to(device).view(number, 4, 1, 1, 1).unbind(1)
    )
    rough = _bend(pixels, 0.7 * bend[:, 0], draws)
    rough = rough.lerp(F.avg_pool2d(rough, 3, 1, 1, count_include_pad=False), blur)
    rough = rough + 0.05 * tint * draws.normal(number, 3, 1, 1, device=device)
    patches = draws.normal(number, 3, 16, 16, device=device)
    rough = rough + 0.06 * noise * F.interpolate(patches, scale_factor=4, mode="bilinear")
    rough = rough + 0.06 * noise * draws.normal(*rough.shape, device=device)
    return rough.clamp(-1, 1)


def _bend(pixels: torch.Tensor, amount: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Move every pixel by a smooth random offset; ``amount`` (N, 1, 1): its deviation in pixels."""
    number, device = len(pixels), pixels.device
    coarse = draws.normal(number, 2, 12, 12, device=device)
    offsets = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").permute(0, 2, 3, 1)
    identity = torch.eye(2, 3, device=device).expand(number, 2, 3)
    grid = F.affine_grid(identity, [number, 3, SIZE, SIZE], align_corners=False)
    moved = grid + amount[..., None] * offsets * (2 / SIZE)
    return F.grid_sample(pixels, moved, padding_mode="border", align_corners=False)
