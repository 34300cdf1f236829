"""Stage ``detector``: a tiny GroundingDINO that finds the pocket world's words in its pictures.

The real class at tiny size, trained with the library's own loss. GroundingDINO has BERT's ids of
"[CLS]", "[SEP]", "." and "?" written into it: the tokenizer has them where BERT has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerFast,
    ResNetConfig,
)

from hb_tta.detect.boxes import overlap
from hb_tta.detect.detector import Corners, Detector, as_text
from hb_tta.pocket.captions import NUMBERS, plural
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, SHAPES, SIZE, Scene
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, dev_scenes, training_scenes

SIDE = 128  # of the picture that it sees: its levels need as much
STEPS, BATCH = 2000, 16
WIDTH = 64  # 32 groups are normalised, of two channels or more
ABSENT = 2  # phrases of a text, at most, that the picture does not show
BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


def train_detector(run: RecipeRun) -> None:
    """Trains the detector and saves it with its processor."""
    torch.manual_seed(run.seed)
    processor = make_processor()
    model = build_model(processor).to(run.device)
    scenes, dev = training_scenes(run, 24_000), dev_scenes(run, 128)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        batch = make_batch(scenes, draws.rows(len(scenes), BATCH), processor, draws.numpy)
        return model(**{n: _moved(v, run.device) for n, v in batch.items()}).loss

    optimize(
        run, "detector", {"detector": model}, loss, steps=run.steps(STEPS), lr=5e-4,
        evaluate_every=200, evaluate=lambda: found_rate(model, processor, dev),
    )  # fmt: skip
    model.eval().half().save_pretrained(run.weights / "detector")
    processor.save_pretrained(run.weights / "detector")


def make_processor() -> GroundingDinoProcessor:
    """Words of the world, lower case, and pictures at ``SIDE``."""
    vocabulary = dict(BERT)
    nouns = [form for shape in (*SHAPES, "shape") for form in (shape, plural(shape, 2))]
    for word in (*nouns, *COLOURS, *BACKGROUNDS, *FILLINGS, *NUMBERS, "a", "the"):
        vocabulary.setdefault(word, len(vocabulary) - len(BERT) + 1)
    for number in set(range(max(vocabulary.values()))) - set(vocabulary.values()):
        vocabulary[f"[unused{number}]"] = number
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=64,
    )  # fmt: skip
    pictures = GroundingDinoImageProcessor(
        size={"shortest_edge": SIDE, "longest_edge": SIDE}, do_pad=False
    )
    return GroundingDinoProcessor(pictures, tokenizer)


def build_model(processor: GroundingDinoProcessor) -> GroundingDinoForObjectDetection:
    """The detector with random weights."""
    heads = dict(num_attention_heads=4, intermediate_size=2 * WIDTH)
    config = GroundingDinoConfig(
        backbone_config=ResNetConfig(
            embedding_size=24, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 1, 1],
            layer_type="basic", out_features=["stage2", "stage3"],
        ),
        text_config=dict(
            model_type="bert", vocab_size=len(processor.tokenizer), hidden_size=WIDTH,
            num_hidden_layers=2, max_position_embeddings=64, **heads,
        ),
        d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH, encoder_attention_heads=4, decoder_attention_heads=4,
        num_queries=16, num_feature_levels=2, encoder_n_points=2, decoder_n_points=2,
        max_text_len=64, dropout=0.0, auxiliary_loss=True, fusion_dropout=0.0,
        fusion_droppath=0.0,
    )  # fmt: skip
    return GroundingDinoForObjectDetection(config)


# ── Pictures, phrases, boxes ────────────────────────────────────────────────────────────────────


def make_batch(
    scenes: Scenes, rows: np.ndarray, processor: GroundingDinoProcessor, rng: np.random.Generator
) -> dict[str, Any]:
    """What the model takes, with labels: pictures, one text each, boxes of its phrases."""
    texts, labels = [], []
    for row in rows:
        phrases, boxes, of = draw_phrases(scenes.records[row], rng)
        texts.append(as_text(phrases)[0])
        labels.append(
            {
                "class_labels": torch.tensor(of),
                "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            }
        )
    tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
    pictures = [scenes.pictures[row] for row in rows]
    pixels = processor.image_processor(pictures, return_tensors="pt")
    return {**pixels, **tokens, "labels": labels}


def draw_phrases(
    scene: Scene, rng: np.random.Generator
) -> tuple[list[str], list[list[float]], list[int]]:
    """Phrases that the scene shows and some that it does not, in any order.

    Returns:
        The phrases; centre and size of all things of those that are there, from 0 to 1; of each
        box its phrase.
    """
    shown = {
        _phrase(group.shape, group.colour, group.count, rng): number
        for number, group in enumerate(scene.groups)
    }
    absent = [_absent(scene, rng) for _ in range(int(rng.integers(0, ABSENT + 1)))]
    phrases = list(dict.fromkeys([*shown, *absent]))
    rng.shuffle(phrases)
    boxes, of = [], []
    for thing in scene.things:
        for place, phrase in enumerate(phrases):
            if shown.get(phrase) == thing.group:
                side = 2 * thing.radius / SIZE
                boxes.append([thing.x / SIZE, thing.y / SIZE, side, side])
                of.append(place)
    return phrases, boxes, of


def _phrase(shape: str, colour: str, count: int, rng: np.random.Generator) -> str:
    noun = plural(shape, count if rng.random() < 0.7 else int(rng.integers(1, 3)))
    return f"{colour} {noun}" if rng.random() < 0.6 else noun


def _absent(scene: Scene, rng: np.random.Generator) -> str:
    """A phrase of what is not there: another shape, a colour that its shape has not, a ground."""
    here = {group.shape: group.colour for group in scene.groups}
    draw = rng.random()
    if draw < 0.25:
        return str(rng.choice(list(BACKGROUNDS)))
    shape = str(rng.choice(SHAPES))
    others = [colour for colour in COLOURS if colour != here.get(shape)]
    noun = plural(shape, int(rng.integers(1, 3)))
    return noun if shape not in here and draw < 0.5 else f"{rng.choice(others)} {noun}"


def found_rate(model: Any, processor: Any, dev: Scenes) -> dict[str, float]:
    """Of the things that are named: found by their first box; of what is not there: found too."""
    rng, detector = np.random.default_rng(0), Detector(model, processor)
    hits, named, wrong, absent = 0, 0, 0, 0
    for number, scene in enumerate(dev.records):
        phrases, boxes, of = draw_phrases(scene, rng)
        found = detector.find([Image.fromarray(dev.pictures[number])], [phrases])[0]
        for place in range(len(phrases)):
            first = next((one.box for one in found if one.phrase == place), None)
            real = [_corners(box) for box, whose in zip(boxes, of, strict=True) if whose == place]
            named, absent = named + bool(real), absent + (not real)
            hits += first is not None and any(overlap(first, box) > 0.5 for box in real)
            wrong += first is not None and not real
    model.train()
    return {"found": hits / max(1, named), "found_of_nothing": wrong / max(1, absent)}


def _corners(box: list[float]) -> Corners:
    x, y, width, height = (SIZE * value for value in box)
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, list):
        return [{name: tensor.to(device) for name, tensor in one.items()} for one in value]
    return value.to(device)
