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

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
)

from hb_tta.detect.detector import Detector
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import SIZE
from hb_tta.training.pocket_family.detector_figures import dev_parts, figures_by_part
from hb_tta.training.pocket_family.detector_pictures import LOOKS, PATCH, Batch, make_batch
from hb_tta.training.pocket_family.labels import Heads, head_loss
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, training_scenes
from hb_tta.training.pocket_family.words import clip_tokenizer

WINDOW = 16  # tokens of a phrase, as OWL-ViT has
WIDTH, TEXT_WIDTH = 96, 64
STEPS, BATCH, RATE = 8000, 32, 1e-3
FOCUS, POSITIVE = 2.0, 0.5  # the focal loss: how little the easy weighs; how much what is there


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

    def evaluate() -> dict[str, float]:
        figures = figures_by_part(Detector(model, make_processor()), parts)
        model.train()
        return figures

    optimize(
        run, "detector", {"detector": model, "heads": heads}, loss, steps=run.steps(STEPS), lr=RATE,
        evaluate_every=500, evaluate=evaluate,
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
