"""Stage ``detector``: a tiny OWL-ViT that finds the pocket world's words in its pictures.

The real class at tiny size, from nothing. The library has no loss for it, so here is one: a thing
belongs to the patch of its centre, which says its box and is told from the others by every phrase
that names it. No boxes are matched to queries, which is what takes long in training the DETR kind.
Held-out combinations it has seen, as whatever draws and judges pictures has.

Shape suffixes: B pictures, P patches, T things of a picture at most, Q phrases of the whole batch,
D the width of the texts' embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
)

from hb_tta.detect.boxes import overlap
from hb_tta.detect.detector import Corners, Detector
from hb_tta.pocket.boxes import corners
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import COLOURS, MAX_THINGS, SHAPES, SIZE, Scene
from hb_tta.pocket.worn import TRAINED, crop_box, some_kind, wear
from hb_tta.training.pocket_family.labels import Heads, head_loss
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.phrases import (
    draw_asked,
    draw_for_scene,
    look_of,
    named_by,
)
from hb_tta.training.pocket_family.run import (
    RecipeRun,
    Scenes,
    dev_scenes,
    to_pixels,
    training_scenes,
)
from hb_tta.training.pocket_family.words import clip_tokenizer

PATCH = 8
WINDOW = 16  # tokens of a phrase, as OWL-ViT has
WIDTH, TEXT_WIDTH = 96, 64
STEPS, BATCH, RATE = 8000, 32, 1e-3
PHRASES = 128  # of a batch: every picture is asked for all of them
WORN = 0.25  # the share of worn pictures
FOCUS, POSITIVE = 2.0, 0.5  # the focal loss: how little the easy weighs; how much what is there
WHOLE: Corners = (0.0, 0.0, float(SIZE), float(SIZE))
LOOKS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "filling": len(FILLINGS) + 1}


def train_detector(run: RecipeRun) -> None:
    """Trains the detector and saves it with its processor."""
    torch.manual_seed(run.seed)
    tokenizer = make_tokenizer()
    model = build_model(tokenizer).to(run.device)
    heads = Heads(WIDTH, LOOKS).to(run.device)  # dropped afterwards: what looks like what, directly
    scenes, parts = training_scenes(run, everything=True), dev_parts(run)

    def loss(draws: Draws, step: int) -> Tensor:
        rows = draws.rows(len(scenes), BATCH)
        return batch_loss(model, heads, tokenizer, make_batch(scenes, rows, draws.numpy))

    optimize(
        run, "detector", {"detector": model, "heads": heads}, loss, steps=run.steps(STEPS), lr=RATE,
        evaluate_every=500, evaluate=lambda: figures_by_part(model, parts),
    )  # fmt: skip
    folder = run.weights / "detector"
    model.eval().half().save_pretrained(folder)
    make_processor().save_pretrained(folder)  # a fresh one: a used one saves its last padding


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The words of captions and of fillings; what is longer than the window loses its end."""
    return clip_tokenizer(WINDOW, FILLINGS)


def make_processor() -> OwlViTProcessor:
    """Phrases, and pictures of the world's size in [-1, 1]."""
    half = [0.5, 0.5, 0.5]
    pictures = OwlViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half
    )
    return OwlViTProcessor(pictures, make_tokenizer())


def build_model(tokenizer: PreTrainedTokenizerFast) -> OwlViTForObjectDetection:
    """The detector with random weights, which finds nothing as yet."""
    config = OwlViTConfig(
        text_config=dict(
            **_layers(TEXT_WIDTH, 2), vocab_size=len(tokenizer), max_position_embeddings=WINDOW,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        vision_config=dict(**_layers(WIDTH, 4), image_size=SIZE, patch_size=PATCH),
        projection_dim=TEXT_WIDTH,
    )  # fmt: skip
    # The plain attention: in bfloat16 the fused one's gradient is slow on a CPU.
    model = OwlViTForObjectDetection._from_config(config, attn_implementation="eager")
    start_eyes(model)
    start_heads(model)
    return model


def _layers(width: int, number: int) -> dict[str, int | str]:
    return dict(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=number,
        num_attention_heads=4, hidden_act="gelu",
    )  # fmt: skip


@torch.no_grad()
def start_eyes(model: OwlViTForObjectDetection) -> None:
    """First weights of the embeddings, from which a small tower learns sooner where what is.

    Places are waves (arXiv 2205.01580), as strong as what the patches show. Every patch is
    multiplied by the class token: that of signs alone takes no feature away.
    """
    seen = model.owlvit.vision_model.embeddings
    torch.nn.init.normal_(seen.patch_embedding.weight, std=(3 * PATCH**2) ** -0.5)
    waves = place_waves(SIZE // PATCH, WIDTH)
    seen.position_embedding.weight.copy_(torch.cat([torch.zeros(1, WIDTH), waves]))
    signs = torch.randint(2, (WIDTH,)).float() * 2 - 1
    seen.class_embedding.copy_(signs)


def place_waves(side: int, width: int) -> Tensor:
    """Sines and cosines of the rows and columns of a square of patches: (side², width)."""
    places = torch.arange(float(side))
    turns = places[:, None] * 20.0 ** -torch.linspace(0, 1, width // 4)
    waves = torch.cat([turns.sin(), turns.cos()], 1)
    return torch.cat([waves.repeat(side, 1), waves.repeat_interleave(side, 0)], 1)


def start_heads(model: OwlViTForObjectDetection) -> None:
    """First weights of the heads: the library's, for which it names no size, are far too large.

    Every patch begins with its own place as its box, and with a scale at which a cosine of 1 and
    one of 0.8 are different answers.
    """
    heads, init = (model.class_head, model.box_head), torch.nn.init
    for layer in [layer for head in heads for layer in head.children()]:
        if isinstance(layer, torch.nn.Linear):
            init.normal_(layer.weight, std=layer.in_features**-0.5)
    for layer in (
        model.box_head.dense2,
        model.class_head.logit_scale,
        model.class_head.logit_shift,
    ):
        init.zeros_(layer.weight)
    init.constant_(model.class_head.logit_scale.bias, 10.0)
    init.constant_(model.class_head.logit_shift.bias, -0.8)


# ── The loss ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Batch:
    """Pictures, and phrases that all of them are asked for.

    Attributes:
        pixels_BCHW: in [-1, 1].
        texts: Q phrases.
        boxes_BT4: centre and size of the things, from 0 to 1.
        patch_BT: the patch of each.
        there_BT: whether there is one: pictures have different numbers of things.
        named_BTQ: whether a phrase names the thing.
        looks: of each patch the shape, colour and filling of what covers it, 0: nothing does;
            int64 (B, P).
    """

    pixels_BCHW: Tensor
    texts: list[str]
    boxes_BT4: Tensor
    patch_BT: Tensor
    there_BT: Tensor
    named_BTQ: Tensor
    looks: dict[str, Tensor]


def batch_loss(
    model: OwlViTForObjectDetection,
    heads: Heads,
    tokenizer: PreTrainedTokenizerFast,
    batch: Batch,
) -> Tensor:
    """Of every patch's logit for every phrase, of the boxes where the things are, and of looks."""
    logits_BPQ, boxes_BP4, seen_BPD = look(model, tokenizer, batch.pixels_BCHW, batch.texts)
    rows, things = batch.there_BT.nonzero(as_tuple=True)
    patches = batch.patch_BT[rows, things]
    wanted_BPQ = torch.zeros_like(logits_BPQ)
    device = logits_BPQ.device
    wanted_BPQ[rows, patches] = batch.named_BTQ[rows, things].to(device).float()
    told = focal_loss(logits_BPQ, wanted_BPQ).sum() / wanted_BPQ.sum().clamp(min=1)
    found, real = boxes_BP4[rows, patches], batch.boxes_BT4[rows, things].to(device)
    placed = 5 * (found - real).abs().sum(1) + 2 * (1 - generalised_overlap(found, real))
    return told + placed.mean() + head_loss(heads(seen_BPD), batch.looks)


def look(
    model: OwlViTForObjectDetection,
    tokenizer: PreTrainedTokenizerFast,
    pixels_BCHW: Tensor,
    texts: Sequence[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """All pictures with all phrases, which the model's own ``forward`` does not ask.

    Returns:
        Logits (B, P, Q); centre and size of each patch's box (B, P, 4), from 0 to 1; what the heads
        see (B, P, D).
    """
    device = model.device
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, return_tensors="pt"
    ).to(device)  # fmt: skip
    with torch.autocast(device.type, torch.bfloat16, enabled=model.training):
        phrases_QD = model.owlvit.get_text_features(
            tokens.input_ids, tokens.attention_mask
        ).pooler_output
        places_BHWD, _ = model.image_embedder(pixels_BCHW.to(device))
    places_BHWD = places_BHWD.float()
    seen_BPD = places_BHWD.flatten(1, 2)
    logits_BPQ, _ = model.class_predictor(seen_BPD, phrases_QD.float())
    return logits_BPQ, model.box_predictor(seen_BPD, places_BHWD), seen_BPD


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy of which what is told well already counts for little; of each logit."""
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    weight = wanted * POSITIVE + (1 - wanted) * (1 - POSITIVE)
    return weight * (1 - torch.exp(-plain)) ** FOCUS * plain


def generalised_overlap(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """Generalised intersection over union (arXiv 1902.09630) of pairs of boxes, centre and size."""
    (a0, a1), (b0, b1) = _ends(a_N4), _ends(b_N4)
    both = (torch.minimum(a1, b1) - torch.maximum(a0, b0)).clamp(min=0).prod(1)
    hull = (torch.maximum(a1, b1) - torch.minimum(a0, b0)).prod(1)
    either = a_N4[:, 2:].prod(1) + b_N4[:, 2:].prod(1) - both
    return both / either - (hull - either) / hull


def _ends(boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
    centre, size = boxes_N4[:, :2], boxes_N4[:, 2:]
    return centre - size / 2, centre + size / 2


# ── Pictures and where their things are ─────────────────────────────────────────────────────────


def make_batch(scenes: Scenes, rows: np.ndarray, rng: np.random.Generator) -> Batch:
    """Pictures of these rows, of which ``WORN`` are worn, and phrases for them."""
    records = [scenes.records[row] for row in rows]
    pictures, boxes_BT4 = [], np.zeros((len(rows), MAX_THINGS, 4), np.float32)
    for number, (row, scene) in enumerate(zip(rows, records, strict=True)):
        picture, whole = scenes.pictures[row], WHOLE
        if rng.random() < WORN:
            picture, whole = worn_picture(picture, rng)
        pictures.append(picture)
        boxes_BT4[number, : len(scene.things)] = boxes_within(scene, whole)
    asked = draw_asked(records, PHRASES, rng)
    there_BT = boxes_BT4[:, :, 2] > 0
    return Batch(
        to_pixels(np.stack(pictures)),
        [one.text for one in asked],
        torch.from_numpy(boxes_BT4),
        torch.from_numpy(np.stack([patches_of(boxes) for boxes in boxes_BT4])),
        torch.from_numpy(there_BT),
        torch.from_numpy(named_by(asked, records)),
        looks_of(boxes_BT4, records),
    )


def worn_picture(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Corners]:
    """The picture worn as little as answering models see it in training, and what is left of it."""
    kind, strength = some_kind(rng), int(rng.choice(TRAINED))
    seed = int(rng.integers(2**62))
    worn = wear(picture, kind, strength, np.random.default_rng(seed))
    # The same draws again: a crop moves the things, and ``wear`` does not say where to.
    left = crop_box(SIZE, SIZE, strength, np.random.default_rng(seed))
    return worn, left if kind == "crop" else WHOLE


def boxes_within(scene: Scene, whole: Corners) -> np.ndarray:
    """Centre and size (T, 4) of the things, from 0 to 1 of what is left of the picture.

    A thing whose centre is cut off has zeros: it is not there.
    """
    x0, y0, x1, y1 = whole
    found = np.zeros((len(scene.things), 4), np.float32)
    for number, thing in enumerate(scene.things):
        if x0 < thing.x < x1 and y0 < thing.y < y1:
            a, b, c, d = corners(thing)
            left, right = (min(1.0, max(0.0, (x - x0) / (x1 - x0))) for x in (a, c))
            top, low = (min(1.0, max(0.0, (y - y0) / (y1 - y0))) for y in (b, d))
            found[number] = (left + right) / 2, (top + low) / 2, right - left, low - top
    return found


def looks_of(boxes_BT4: np.ndarray, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Of each patch the shape, colour and filling, from 1, of the smallest thing over it."""
    xs, ys = patch_middles()
    looks = np.zeros((3, len(scenes), len(xs)), np.int64)
    for row, (boxes_T4, scene) in enumerate(zip(boxes_BT4, scenes, strict=True)):
        for place in np.argsort(-boxes_T4[: len(scene.things), 2], kind="stable"):
            x, y, width, height = boxes_T4[place]
            inside = (abs(xs - x) < width / 2) & (abs(ys - y) < height / 2)
            group = scene.groups[scene.things[place].group]
            looks[:, row, inside] = 1 + np.array(look_of(group))[:, None]
    return dict(zip(LOOKS, map(torch.from_numpy, looks), strict=True))


def patch_middles() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the patches' middles (P,), row by row, from 0 to 1."""
    side = SIZE // PATCH
    middles = (np.arange(side) + 0.5) / side
    ys, xs = np.meshgrid(middles, middles, indexing="ij")
    return xs.ravel(), ys.ravel()


def patches_of(boxes_T4: np.ndarray) -> np.ndarray:
    """The patch of each thing's centre, int64 (T,); of two in one place the smaller's.

    A thing around another has about the same centre: it has the patch above the inner one's.
    """
    side = SIZE // PATCH
    patches = np.zeros(len(boxes_T4), np.int64)
    taken: list[tuple[float, float, int]] = []
    for thing in np.argsort(boxes_T4[:, 2], kind="stable"):
        x, y, width, _ = boxes_T4[thing]
        if width > 0:
            inner = [p for a, b, p in taken if max(abs(x - a), abs(y - b)) < 1 / side]
            own = min(int(y * side), side - 1) * side + min(int(x * side), side - 1)
            patches[thing] = max(inner[0] - side, 0) if inner else own
            taken.append((x, y, int(patches[thing])))
    return patches


# ── Figures ─────────────────────────────────────────────────────────────────────────────────────


def dev_parts(run: RecipeRun) -> dict[str, tuple[Scenes, bool]]:
    """Dev scenes by part, and whether they are worn: clean, with what answers never sees, worn."""
    clean, held_out = dev_scenes(run, 128), dev_scenes(run, 128, held_out=True)
    return {"": (clean, False), "held_out_": (held_out, False), "worn_": (clean, True)}


def figures_by_part(
    model: OwlViTForObjectDetection, parts: dict[str, tuple[Scenes, bool]]
) -> dict[str, float]:
    """``found_rate`` of every part."""
    detector = Detector(model, make_processor())
    figures = {
        f"{part}{name}": value
        for part, (scenes, worn) in parts.items()
        for name, value in found_rate(detector, scenes, worn=worn).items()
    }
    model.train()
    return figures


def found_rate(detector: Detector, scenes: Scenes, *, worn: bool = False) -> dict[str, float]:
    """How well a detector finds what phrases name, at its usual thresholds.

    Args:
        worn: whether the pictures are worn, as strongly as in training.

    Returns:
        "found": of the phrases that name something, those whose best box is that of such a thing;
        "all": those of which every thing has its box, and no box is of anything else;
        "of_nothing": of the phrases that name nothing, those with a box.
    """
    rng = np.random.default_rng(0)
    judged: list[tuple[list[Corners], list[Corners]]] = []
    for picture, scene in zip(scenes.pictures, scenes.records, strict=True):
        seen, whole = worn_picture(picture, rng) if worn else (picture, WHOLE)
        judged += _found_and_real(detector, seen, scene, whole, rng)
    named = [(found, real) for found, real in judged if real]
    return {
        "found": _mean([bool(found) and _all_near(found[:1], real) for found, real in named]),
        "all": _mean([_all_near(real, found) and _all_near(found, real) for found, real in named]),
        "of_nothing": _mean([bool(found) for found, real in judged if not real]),
    }


def _found_and_real(
    detector: Detector, picture: np.ndarray, scene: Scene, whole: Corners, rng: np.random.Generator
) -> list[tuple[list[Corners], list[Corners]]]:
    """Of each phrase for a scene the boxes that are found, best first, and those of its things."""
    asked = draw_for_scene(scene, rng)
    (found,) = detector.find([Image.fromarray(picture)], [[one.text for one in asked]])
    boxes_T4 = boxes_within(scene, whole)
    groups = [scene.groups[thing.group] for thing in scene.things]
    return [
        (
            [box.box for box in found if box.phrase == place],
            pixel_boxes(boxes_T4[[one.names(group) for group in groups] & (boxes_T4[:, 2] > 0)]),
        )
        for place, one in enumerate(asked)
    ]


def _all_near(boxes: Sequence[Corners], others: Sequence[Corners]) -> bool:
    return all(any(overlap(box, other) > 0.5 for other in others) for box in boxes)


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else 0.0


def pixel_boxes(boxes_T4: np.ndarray) -> list[Corners]:
    """Centres and sizes from 0 to 1 as corners in pixels."""
    return [
        (SIZE * (x - w / 2), SIZE * (y - h / 2), SIZE * (x + w / 2), SIZE * (y + h / 2))
        for x, y, w, h in boxes_T4.tolist()
    ]
