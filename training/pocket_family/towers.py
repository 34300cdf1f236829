"""Stage ``image_encoder``: a CLIP vision tower that knows where what is.

It learns dense labels at the layer that a LLaVA reads, and global labels from the projected
embedding, which is what the generator is conditioned on. Contrastive training alone leaves so
small a tower blind to shapes, and labels of what a patch shows alone let it forget where it is.
A third of the pictures are worn. Held-out combinations it never sees: the MLLM reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from hb_tta.pocket.world import SIZE, Scene
from hb_tta.training.pocket_family.labels import (
    DENSE_HEADS,
    HEADS,
    Heads,
    Labels,
    head_accuracy,
    head_loss,
)
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.places import (
    BEARING_HEADS,
    PATCH_BEARING_HEADS,
    PATCH_HEADS,
    bearing_labels,
    patch_bearing_labels,
    patch_labels,
)
from hb_tta.training.pocket_family.run import RecipeRun, dev_scenes, training_scenes

WIDTH = 128
WORN = 0.35  # the share of worn pictures
STEPS, GO_ON_STEPS, LONGER_STEPS = 2400, 1300, 1200
# What a tower is asked: of the whole picture, and of every patch.
SIGHT = HEADS | BEARING_HEADS
PATCH_SIGHT = DENSE_HEADS | PATCH_HEADS | PATCH_BEARING_HEADS


def image_processor() -> CLIPImageProcessor:
    """64×64, [-1, 1]: nothing is resized or cropped away."""
    return CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def train_image_encoder(run: RecipeRun) -> None:
    """Train the tower and save it, with its processor, into the generator's folder."""
    torch.manual_seed(run.seed)
    tower = _start(run).to(run.device)
    whole, dense = (Heads(WIDTH, sizes).to(run.device) for sizes in (SIGHT, PATCH_SIGHT))
    scenes, dev = training_scenes(run), dev_scenes(run, 512)
    labels, dev_labels = sight_labels(scenes.records), sight_labels(dev.records)

    def outputs(pixels: torch.Tensor) -> tuple[dict, dict]:
        seen = tower(pixels, output_hidden_states=True)
        return whole(seen.image_embeds), dense(seen.hidden_states[-2][:, 1:])

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 64)
        pixels = scenes.pixels(rows, run.device, worn=WORN, rng=draws.numpy)
        with run.low_precision():
            of_whole, of_patches = outputs(pixels)
        loss = head_loss(of_whole, labels.whole, rows)
        return loss + head_loss(of_patches, labels.dense, rows)

    def evaluate() -> dict[str, float]:
        of_whole, of_patches = outputs(dev.pixels(slice(None), run.device))
        figures = head_accuracy(of_whole, dev_labels.whole)
        dense_figures = head_accuracy(of_patches, dev_labels.dense)
        figures |= {f"dense_{k}": v for k, v in dense_figures.items()}
        worn = dev.pixels(slice(None), run.device, worn=1.0, rng=np.random.default_rng(0))
        return figures | {
            f"worn_{k}": v for k, v in head_accuracy(outputs(worn)[0], dev_labels.whole).items()
        }

    trainings = {"image_encoder": GO_ON_STEPS, "image_longer": LONGER_STEPS}
    for stage, steps in trainings.items() if run.start else (("image_encoder", STEPS),):
        optimize(
            run, stage, {"tower": tower, "whole": whole, "dense": dense}, loss,
            steps=run.steps(steps), lr=1e-3, evaluate=evaluate, evaluate_every=250,
        )  # fmt: skip
    _unit_embeddings(tower, scenes.pixels(slice(0, 512), run.device))
    tower.eval().half().save_pretrained(run.weights / "generator" / "image_encoder")
    image_processor().save_pretrained(run.weights / "generator" / "feature_extractor")


def _start(run: RecipeRun) -> CLIPVisionModelWithProjection:
    """An untrained tower, or an earlier family's."""
    if run.start:
        folder = run.start / "generator" / "image_encoder"
        # The plain attention: in bfloat16 the fused one's gradient is slow on a CPU.
        return CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=5, projection_dim=WIDTH,
        num_attention_heads=4, image_size=SIZE, patch_size=8, hidden_act="gelu",
        attn_implementation="eager",
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config)


class Embeddings(NamedTuple):
    """A CLIP tower's embeddings for a tower without a layer norm before its first layer.

    Attributes:
        kernel: of the patch embedding, (D, 3, P, P); its bias is zero.
        places: of the class token and the patches, (1 + patches, D).
        start: the class token, (D,).
    """

    kernel: torch.Tensor
    places: torch.Tensor
    start: torch.Tensor


@torch.no_grad()
def without_first_norm(source: CLIPVisionModelWithProjection, pixels: torch.Tensor) -> Embeddings:
    """Fold the norm before the first layer into the embeddings before it.

    Its mean is linear, and its deviation is taken to be the average one of some pictures. What
    this gets wrong is trained away.
    """
    seen = source.vision_model
    deviation = seen.embeddings(pixels)[:, 1:].std(-1, correction=0).mean()
    norm = seen.pre_layrnorm

    def folded(vectors: torch.Tensor) -> torch.Tensor:  # (..., D)
        return (vectors - vectors.mean(-1, keepdim=True)) / deviation * norm.weight

    kernel = seen.embeddings.patch_embedding.weight
    return Embeddings(
        folded(kernel.movedim(0, -1)).movedim(-1, 0),
        folded(seen.embeddings.position_embedding.weight) + norm.bias,
        folded(seen.embeddings.class_embedding),
    )


def sight_labels(records: list[Scene]) -> Labels:
    """The labels of ``SIGHT`` and ``PATCH_SIGHT``."""
    labels = Labels.of(records)
    shapes = labels.dense["shape"].numpy()
    dense = patch_labels(len(records)) | patch_bearing_labels(records, shapes)
    labels.dense |= {name: torch.from_numpy(values) for name, values in dense.items()}
    whole = bearing_labels(records)
    labels.whole |= {name: torch.from_numpy(values) for name, values in whole.items()}
    return labels


@torch.no_grad()
def _unit_embeddings(tower: CLIPVisionModelWithProjection, pixels: torch.Tensor) -> None:
    """Scale the projection to embeddings of deviation 1: what a denoiser learns from best."""
    tower.visual_projection.weight /= tower(pixels).image_embeds.std()
