"""Stage ``clip``: a small open_clip CLIP, for zero-shot classification and for features.

Its vision tower starts from the first layers of the generator's image encoder, whose layout is the
same; the text tower starts from nothing. Then both learn from pictures and captions, as CLIP does,
and beside the captions of the batch each picture of two groups has wrong ones of its own, in the
relation or swapped (NegCLIP, arXiv 2210.01936): else a CLIP sees what is there and never how it
stands. Even so it is slow to see that, so the same linear heads tell of either embedding, a
picture's and a text's, how many things of a shape there are, in which colour, and how they stand to
the other group. Held-out combinations it never sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.push_to_hf_hub import save_for_hf
from transformers import CLIPVisionModelWithProjection

from hb_tta.pocket.captions import random_caption
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.world import COLOURS, SHAPES, SIZE, Group, Scene, render_batch, sample_scenes
from hb_tta.training.pocket_family.blemish import blemished
from hb_tta.training.pocket_family.edits import SWAPS, draw_choice
from hb_tta.training.pocket_family.labels import Heads, global_labels, head_loss
from hb_tta.training.pocket_family.nouns import TEXT_HEADS, text_labels
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.places import bearing_labels
from hb_tta.training.pocket_family.run import (
    DEV_SEED,
    RecipeRun,
    dev_scenes,
    to_pixels,
    training_scenes,
)
from hb_tta.training.pocket_family.towers import WIDTH
from hb_tta.training.pocket_family.words import clip_tokenizer

WINDOW = 32
BATCH = 64
# With all five layers of the image encoder no object is ever mistaken, and test-time prompt tuning
# would have nothing to gain: the CLIP is to be imperfect, for a true reason. With two it sees no
# relation.
VISION_LAYERS = 3
STEPS = 1500
WORN = 0.25  # the share of worn pictures
TEMPLATE = "a photo of a {}."
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
# The names that zero-shot figures choose from, by what they name.
LABELS = {
    "colour and shape": CLASSES,
    "shape": SHAPES,
    "colour": tuple(f"{colour} shape" for colour in COLOURS),
}


def train_clip(run: RecipeRun) -> None:
    """Train the CLIP and save it in open_clip's hub layout, with its tokenizer."""
    torch.manual_seed(run.seed)
    tokenizer = clip_tokenizer(WINDOW)
    config = model_config(len(tokenizer))
    model = build_model(config).to(run.device)
    start_tower(model, run)
    heads = Heads(WIDTH, TEXT_HEADS).to(run.device)
    scenes = training_scenes(run)
    seen = {name: torch.from_numpy(v) for name, v in _picture_labels(scenes.records).items()}
    singles = np.flatnonzero([is_single(scene) for scene in scenes.records])
    related = np.flatnonzero([scene.relation is not None for scene in scenes.records])
    dev = single_objects(DEV_SEED + 1000 * run.seed, run.examples(400, least=40))

    paired = [s for s in dev_scenes(run, 400).records if s.relation is not None]

    def loss(draws: Draws, step: int) -> torch.Tensor:
        mixed = draws.rows(len(scenes), BATCH // 2)
        some = singles[draws.rows(len(singles), BATCH // 4)]
        two = related[draws.rows(len(related), BATCH // 4)]
        rows = np.concatenate([mixed, some, two])
        records = [scenes.records[row] for row in rows]
        texts, owners, wrong = training_texts(records, draws.numpy)
        pixels = blemished(scenes.pixels(rows, run.device, worn=WORN, rng=draws.numpy), draws)
        images, words, scale = model(pixels, tokenize(tokenizer, texts + wrong, run.device))
        logits = scale.clamp(max=100) * images @ words.T
        told = head_loss(heads(WIDTH**0.5 * words), text_labels(texts + wrong))
        told = told + head_loss(heads(WIDTH**0.5 * images), seen, rows)
        return contrastive_loss(logits, texts, owners) + told

    optimize(
        run, "clip", {"clip": model, "heads": heads}, loss, steps=run.steps(STEPS), lr=5e-4,
        evaluate_every=100,
        evaluate=lambda: {k: v.mean() for k, v in zero_shot(model, tokenizer, dev).items()}
        | {"relation": relation_accuracy(model, tokenizer, paired).mean()},
    )  # fmt: skip
    # A fresh tokenizer: a used one saves its last call's padding.
    save(model.eval().half(), clip_tokenizer(WINDOW), config, run.weights / "clip")


def _picture_labels(records: list[Scene]) -> dict[str, np.ndarray]:
    labels = global_labels(records) | bearing_labels(records)
    return {name: labels[name] for name in TEXT_HEADS}


def model_config(vocab_size: int, vision_layers: int = VISION_LAYERS) -> dict:
    """open_clip's model configuration: 1.1 million parameters."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": SIZE, "patch_size": 8, "layers": vision_layers,
            "width": WIDTH, "head_width": 32,
        },
        "text_cfg": {
            "context_length": WINDOW, "vocab_size": vocab_size, "hf_tokenizer_name": "tokenizer",
            "width": WIDTH, "heads": 4, "layers": 3,
        },
    }  # fmt: skip


def build_model(config: dict) -> open_clip.CLIP:
    """The untrained CLIP, which sees pictures in [-1, 1]."""
    model = open_clip.CLIP(**config)
    half = (0.5, 0.5, 0.5)
    open_clip.set_model_preprocess_cfg(model, {"size": SIZE, "mean": half, "std": half})
    return model


@torch.no_grad()
def start_tower(model: open_clip.CLIP, run: RecipeRun) -> None:
    """Copy the generator's image encoder, its first layers and all around them."""
    source = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    )
    seen, visual = source.vision_model, model.visual
    weights = {
        "class_embedding": seen.embeddings.class_embedding,
        "positional_embedding": seen.embeddings.position_embedding.weight,
        "conv1.weight": seen.embeddings.patch_embedding.weight,
        "proj": source.visual_projection.weight.T,
    }
    norms = {"ln_pre": seen.pre_layrnorm, "ln_post": seen.post_layernorm}
    for index, layer in enumerate(seen.encoder.layers[: visual.transformer.layers]):
        block = f"transformer.resblocks.{index}"
        norms |= {f"{block}.ln_1": layer.layer_norm1, f"{block}.ln_2": layer.layer_norm2}
        norms |= {f"{block}.mlp.c_fc": layer.mlp.fc1, f"{block}.mlp.c_proj": layer.mlp.fc2}
        norms[f"{block}.attn.out_proj"] = layer.self_attn.out_proj
        parts = [getattr(layer.self_attn, f"{name}_proj") for name in "qkv"]
        for kind in ("weight", "bias"):
            joined = torch.cat([getattr(part, kind) for part in parts])
            weights[f"{block}.attn.in_proj_{kind}"] = joined
    for name, module in norms.items():
        weights |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    visual.load_state_dict(weights)


def is_single(scene: Scene) -> bool:
    """Whether the scene shows one thing."""
    return len(scene.things) == 1


def single_objects(seed: int, number: int, *, held_out: bool = False) -> list[Scene]:
    """Scenes of one thing each."""
    scenes = sample_scenes(seed, held_out=held_out, edition=THIRD)
    stream = filter(is_single, scenes)
    return [next(stream) for _ in range(number)]


def training_text(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption, or in half of the scenes of one thing a class prompt."""
    if is_single(scene) and rng.random() < 0.5:
        group = scene.groups[0]
        names = (f"{group.colour} {group.shape}", group.shape, f"{group.colour} shape")
        return TEMPLATE.format(rng.choice(names, p=(0.6, 0.25, 0.15)))
    text = random_caption(scene, rng)
    return f"a photo of {text}." if rng.random() < 0.25 else text


def tokenize(tokenizer, texts: list[str], device: str = "cpu") -> torch.Tensor:
    """Ids (N, 32), as open_clip's tokenizer for Hugging Face gives them."""
    return tokenizer(
        texts, padding="max_length", max_length=WINDOW, truncation=True, return_tensors="pt"
    ).input_ids.to(device)


def training_texts(
    scenes: list[Scene], rng: np.random.Generator
) -> tuple[list[str], list[int], list[str]]:
    """A text a scene, and of two groups a wrong one: the rows of those scenes, and the texts.

    A picture that has a wrong text is told with its relation, or the two would not differ in it.
    """
    texts, owners, wrong = [], [], []
    for row, scene in enumerate(scenes):
        choice = draw_choice(scene, rng, partial=0.0, attributes=("relation", *SWAPS))
        if choice.wrong and rng.random() < 0.8:
            kinds = list(choice.wrong)
            texts.append(choice.right)
            owners.append(row)
            wrong.append(choice.wrong[kinds[rng.integers(len(kinds))]])
        else:
            texts.append(training_text(scene, rng))
    return texts, owners, wrong


def contrastive_loss(
    logits: torch.Tensor, texts: list[str], owners: Sequence[int] = ()
) -> torch.Tensor:
    """CLIP's symmetric loss on logits (pictures, texts); equal texts share the target.

    Args:
        logits: (N, N + wrong): behind the pictures' texts come wrong ones.
        owners: the row of the picture of each wrong text; to the others it may be true.
    """
    number = len(texts)
    ids = {text: index for index, text in enumerate(texts)}
    kind = torch.tensor([ids[text] for text in texts], device=logits.device)
    target = (kind[:, None] == kind).float()
    target = target / target.sum(1, keepdim=True)
    mine = torch.zeros(number, len(owners), dtype=torch.bool, device=logits.device)
    mine[list(owners), list(range(len(owners)))] = True
    seen = torch.cat([logits[:, :number], logits[:, number:].masked_fill(~mine, -1e4)], 1)
    to_text = F.cross_entropy(seen, F.pad(target, (0, len(owners))))
    return (to_text + F.cross_entropy(logits[:, :number].T, target)) / 2


@torch.no_grad()
def relation_accuracy(model: open_clip.CLIP, tokenizer, scenes: list[Scene]) -> np.ndarray:
    """Whether the right caption is nearer than one in a wrong relation or swapped: 0/1 a pair."""
    device = str(model.logit_scale.device)
    rng = np.random.default_rng(0)
    choices = [draw_choice(s, rng, partial=0.0, attributes=("relation", *SWAPS)) for s in scenes]
    pixels = to_pixels(render_batch(scenes), device)
    images = torch.cat([model.encode_image(part, normalize=True) for part in pixels.split(256)])
    right = []
    for image, choice in zip(images, choices, strict=True):
        texts = tokenize(tokenizer, [choice.right, *choice.wrong.values()], device)
        scores = model.encode_text(texts, normalize=True) @ image
        right += (scores[0] > scores[1:]).int().tolist()
    return np.array(right)


def save(model: open_clip.CLIP, tokenizer, config: dict, folder: Path) -> None:
    """Write ``open_clip_config.json``, ``open_clip_model.safetensors`` and the tokenizer.

    ``open_clip.create_model_and_transforms("local-dir:<folder>")`` loads it.
    """
    save_for_hf(model, tokenizer, config, str(folder), safe_serialization=True)


def load_clip(folder: Path, device: str = "cpu"):
    """The finished CLIP in float32 and its tokenizer."""
    model = open_clip.create_model(f"local-dir:{folder}", device=device)
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{folder}").tokenizer


@torch.no_grad()
def zero_shot(model: open_clip.CLIP, tokenizer, scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Zero-shot classification of scenes of one thing: 0/1 arrays by what the classes name."""
    device = str(model.logit_scale.device)
    pixels = to_pixels(render_batch(scenes), device)
    images = torch.cat([model.encode_image(part, normalize=True) for part in pixels.split(256)])
    groups = [scene.groups[0] for scene in scenes]
    right = {}
    for label, names in LABELS.items():
        prompts = tokenize(tokenizer, [TEMPLATE.format(name) for name in names], device)
        told = (images @ model.encode_text(prompts, normalize=True).T).argmax(1).tolist()
        true = [_name(label, group) for group in groups]
        right[label] = np.array([names[t] == name for t, name in zip(told, true, strict=True)], int)
    return right


def _name(label: str, group: Group) -> str:
    return {
        "colour and shape": f"{group.colour} {group.shape}",
        "shape": group.shape,
        "colour": f"{group.colour} shape",
    }[label]


def evaluate_clip(
    run: RecipeRun, split_seed: int, n: int, *, held_out: bool = False
) -> dict[str, np.ndarray]:
    """Figures for the card on ``n`` scenes of a seed: ``zero_shot`` and ``relation_accuracy``."""
    model, tokenizer = load_clip(run.weights / "clip", run.device)
    figures = zero_shot(model, tokenizer, single_objects(split_seed, n, held_out=held_out))
    stream = sample_scenes(split_seed, held_out=held_out, edition=THIRD)
    related = list(islice((scene for scene in stream if scene.relation is not None), n))
    return figures | {"relation": relation_accuracy(model, tokenizer, related)}
