"""Stage ``evaluator``: the Multimodal Context Evaluator, a small BLIP-2 retrieval model.

First the vision tower and the queries learn where what is and what there is (labels); then the
Q-Former learns to tell a right caption from the ones that are wrong by one edit: of two groups half
of the wrong ones are swaps, which change no word, for else it learns what is there and never which
stands first. It has seen every combination, as a large BLIP-2 has. The pictures are roughened, for
the evaluator will judge, and pull on, pictures of a generator, and some are worn, for it will judge
references.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2VisionModel,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.captions import ATTRIBUTES
from hb_tta.pocket.world import SIZE, Scene
from hb_tta.pocket.worn import STRENGTHS
from hb_tta.training.pocket_family.blemish import blemished
from hb_tta.training.pocket_family.edits import SWAPS, Choice, draw_choice, wrong_words
from hb_tta.training.pocket_family.labels import IGNORED, Heads, Labels, head_accuracy, head_loss
from hb_tta.training.pocket_family.matching import (
    itc_loss,
    itc_scores,
    itm_loss,
    itm_match,
    query_states,
)
from hb_tta.training.pocket_family.nouns import NOUN_HEADS, noun_labels
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.places import PLACE_HEADS, place_labels
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, dev_scenes, training_scenes
from hb_tta.training.pocket_family.towers import (
    PATCH_SIGHT,
    SIGHT,
    WIDTH,
    image_processor,
    sight_labels,
    without_first_norm,
)
from hb_tta.training.pocket_family.words import bert_tokenizer

QUERIES = 8
WINDOW = 32  # positions of a text, as LAVIS truncates to
STRENGTH = WIDTH**-0.5  # of fresh weights: BERT's 0.02 is for a width of 768, and starts too shut
TEMPERATURE = 0.07  # CLIP's initial one, kept fixed
# What is wrong with a caption: nothing, an attribute, a swap, or it tells of another picture.
FAULTS = ("none", *ATTRIBUTES, *SWAPS, "other")
WORN = 0.35  # the share of worn pictures, of all strengths: it judges what the answerer mistakes
NOUN_WEIGHT = 2.0
STEPS, SIGHT_STEPS = 2000, 800


def train_evaluator(run: RecipeRun) -> None:
    """Train the evaluator in two stages and save it, with its processor, as on the hub."""
    torch.manual_seed(run.seed)
    processor = build_processor()
    model = build_model(len(processor.tokenizer)).to(run.device)
    model.set_attn_implementation("eager")  # three times as fast as SDPA on a CPU in bfloat16
    if run.start:
        _start_queries(model, run.start / "evaluator")
    start_tower(model.vision_model, run)
    whole = Heads(QUERIES * WIDTH, SIGHT | PLACE_HEADS).to(run.device)
    _train_sight(run, model, whole)
    _train_matching(run, model, whole, processor)
    folder = run.weights / "evaluator"
    model.eval().half().save_pretrained(folder)
    build_processor().save_pretrained(folder)  # a used one saves its last call's truncation


def build_processor() -> Blip2Processor:
    """A BERT tokenizer over the world's words, and 64×64 pictures in [-1, 1].

    No image tokens are put before the text: ``num_query_tokens`` stays unset, like the
    config's ``image_token_index`` (if that is set, the matching path drops the first ids).
    """
    return Blip2Processor(image_processor(), bert_tokenizer())


def build_model(vocab_size: int) -> Blip2ForImageTextRetrieval:
    """The untrained evaluator: 2 million parameters."""
    # Blip2's own initializer_range of 1e-10 is for loading a ViT-g, and would never start.
    vision = dict(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=5,
        num_attention_heads=4, image_size=SIZE, patch_size=8, initializer_range=0.02,
    )  # fmt: skip
    qformer = dict(
        vocab_size=vocab_size, hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=WINDOW,
        cross_attention_frequency=1, use_qformer_text_input=True,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=STRENGTH,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=vision, qformer_config=qformer, num_query_tokens=QUERIES,
        image_text_hidden_size=WIDTH, initializer_range=STRENGTH,
    )  # fmt: skip
    model = Blip2ForImageTextRetrieval(config)
    nn.init.normal_(model.query_tokens, std=STRENGTH)  # equal queries would stay equal
    return model


def _start_queries(model: Blip2ForImageTextRetrieval, folder: Path) -> None:
    """Go on from an earlier evaluator; its tower is replaced by the new image encoder."""
    before = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(before.state_dict())


@torch.no_grad()
def start_tower(tower: Blip2VisionModel, run: RecipeRun) -> None:
    """Start from the image encoder, which differs by a layer norm before its first layer."""
    source = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    ).to(run.device)
    seen = source.vision_model
    scenes = training_scenes(run, everything=True)
    folded = without_first_norm(source, scenes.pixels(slice(0, 64), run.device))
    tower.embeddings.patch_embedding.weight.copy_(folded.kernel)
    tower.embeddings.patch_embedding.bias.zero_()
    tower.embeddings.position_embedding.copy_(folded.places[None])
    tower.embeddings.class_embedding.copy_(folded.start[None, None])
    for mine, theirs in zip(tower.encoder.layers, seen.encoder.layers, strict=True):
        attention = theirs.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        mine.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        mine.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        mine.self_attn.projection.load_state_dict(attention.out_proj.state_dict())
        for name in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(mine, name).load_state_dict(getattr(theirs, name).state_dict())


def worn_pixels(run: RecipeRun, scenes: Scenes, rows: np.ndarray, draws: Draws) -> torch.Tensor:
    """Pictures, of which ``WORN`` are worn."""
    return scenes.pixels(rows, run.device, worn=WORN, strengths=STRENGTHS, rng=draws.numpy)


def label(records: list[Scene]) -> Labels:
    """The labels that the image encoder learns, with the places of the shapes."""
    labels = sight_labels(records)
    labels.whole |= {name: torch.from_numpy(v) for name, v in place_labels(records).items()}
    return labels


def _train_sight(run: RecipeRun, model: Blip2ForImageTextRetrieval, whole: Heads) -> None:
    """Dense labels for the tower's tokens, labels of the scene for the queries."""
    dense = Heads(WIDTH, PATCH_SIGHT).to(run.device)
    scenes, dev = training_scenes(run, everything=True), dev_scenes(run, 512)
    labels, dev_labels = label(scenes.records), label(dev.records)

    def outputs(pixels: torch.Tensor) -> tuple[dict, dict]:
        tokens = model.vision_model(pixels).last_hidden_state
        return whole(query_states(model, tokens).flatten(1)), dense(tokens[:, 1:])

    @run.low_precision()
    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 64)
        pixels = worn_pixels(run, scenes, rows, draws)
        of_whole, of_patches = outputs(blemished(pixels, draws))
        loss = head_loss(of_whole, labels.whole, rows)
        return loss + head_loss(of_patches, labels.dense, rows)

    def evaluate() -> dict[str, float]:
        of_whole, of_patches = outputs(dev.pixels(slice(None), run.device))
        figures = head_accuracy(of_whole, dev_labels.whole)
        dense_figures = head_accuracy(of_patches, dev_labels.dense)
        return figures | {f"dense_{k}": v for k, v in dense_figures.items()}

    optimize(
        run, "evaluator_sight", {"model": model, "whole": whole, "dense": dense}, loss,
        steps=run.steps(SIGHT_STEPS), lr=1e-3, evaluate=evaluate, evaluate_every=100,
    )  # fmt: skip


def _train_matching(
    run: RecipeRun, model: Blip2ForImageTextRetrieval, whole: Heads, processor: Blip2Processor
) -> None:
    """Right captions against one-edit wrong ones; the tower is frozen.

    More heads, dropped afterwards, say which attribute is wrong, which words are, and what every
    noun is told to be and shows itself to be.
    """
    scenes = training_scenes(run, everything=True)
    dev, labels = dev_scenes(run, 400), label(scenes.records)
    related = np.flatnonzero([scene.relation is not None for scene in scenes.records])
    model.vision_model.requires_grad_(False)
    fault_head = nn.Linear(WIDTH, len(FAULTS)).to(run.device)
    word_head = nn.Linear(WIDTH, 2).to(run.device)
    noun_heads = Heads(WIDTH, NOUN_HEADS).to(run.device)

    @run.low_precision()
    def loss(draws: Draws, step: int) -> torch.Tensor:
        # Only two groups have a relation, the attribute that takes longest to learn.
        rows = np.concatenate([draws.rows(len(scenes), 16), related[draws.rows(len(related), 16)]])
        batch = CaptionBatch([scenes.records[row] for row in rows], draws.numpy)
        ids, mask = tokenize(processor, batch.texts, run.device)
        with torch.no_grad():
            pixels = worn_pixels(run, scenes, rows, draws)
            pixels = blemished(pixels, draws)
            tokens = model.vision_model(pixels).last_hidden_state
        queries = query_states(model, tokens)
        image, fits = batch.image.to(run.device), batch.fits.to(run.device)
        match = itm_match(model, tokens[image], ids, mask)
        faults = F.cross_entropy(fault_head(match.queries_NQD.mean(1)), batch.fault.to(run.device))
        words = F.cross_entropy(
            word_head(match.words_NTD).flatten(0, 1),
            batch.word_labels(ids.shape[1]).flatten().to(run.device),
            ignore_index=CaptionBatch.UNJUDGED,
        )
        contrast = itc_loss(
            itc_scores(model, queries, ids, mask), fits, image, batch.trusted.to(run.device),
            TEMPERATURE,
        )  # fmt: skip
        seen = head_loss(whole(queries.flatten(1)), labels.whole, rows)
        pictures = [scenes.records[rows[i]] for i in batch.image]
        of_nouns = noun_labels(batch.texts, pictures, ids.shape[1])
        nouns = NOUN_WEIGHT * head_loss(noun_heads(match.words_NTD), of_nouns)
        return itm_loss(match.logits, fits, image) + faults + words + contrast + seen + nouns

    heads = {"whole": whole, "fault": fault_head, "word": word_head, "nouns": noun_heads}
    optimize(
        run, "evaluator", {"model": model} | heads, loss, steps=run.steps(STEPS), lr=1e-3,
        evaluate_every=100,
        evaluate=lambda: _means(pair_accuracy(model, processor, dev, run.device))
        | noun_accuracy(model, noun_heads, processor, dev, run.device),
    )  # fmt: skip


@torch.no_grad()
def noun_accuracy(
    model: Blip2ForImageTextRetrieval,
    heads: Heads,
    processor: Blip2Processor,
    scenes: Scenes,
    device: str = "cpu",
) -> dict[str, float]:
    """How well the nouns of right and wrong captions know what is told and seen of them."""
    records = scenes.records[:128]
    batch = CaptionBatch(records, np.random.default_rng(0))
    ids, mask = tokenize(processor, batch.texts, device)
    tokens = model.vision_model(scenes.pixels(slice(0, 128), device)).last_hidden_state
    words = itm_match(model, tokens[batch.image.to(device)], ids, mask).words_NTD
    pictures = [records[i] for i in batch.image]
    labels = noun_labels(batch.texts, pictures, ids.shape[1])
    return {
        name: float(
            (logits.argmax(-1).cpu() == labels[name])[labels[name] != IGNORED].float().mean()
        )
        for name, logits in heads(words).items()
    }


class CaptionBatch:
    """The captions of a batch of scenes: each scene's right one, its edits, another scene's.

    Attributes:
        texts: N captions.
        image, fits, fault, trusted: (N,) the scene of each caption, whether it is right, what is
            wrong with it (a row of ``FAULTS``), and whether it can only be true of its scene.
    """

    UNJUDGED = -100

    def __init__(self, records: list[Scene], rng: np.random.Generator):
        choices = [
            draw_choice(record, rng, attributes=_attributes(record, rng)) for record in records
        ]
        self.texts: list[str] = []
        self._wrong: list[list[bool] | None] = []
        rows: list[tuple[int, bool, int, bool]] = []
        for index, choice in enumerate(choices):
            other = choices[index - 1]
            for text, fault in _judged(choice, other):
                edit = fault not in ("none", "other")
                wrong = wrong_words(choice.right, text) if edit else [False] * len(text.split())
                self.texts.append(text)
                self._wrong.append(None if fault == "other" else wrong)
                trusted = choice.full and fault == "none"
                rows.append((index, fault == "none", FAULTS.index(fault), trusted))
        columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
        self.image, self.fits, self.fault, self.trusted = columns
        self._distrust_twins()

    def _distrust_twins(self) -> None:
        """The same caption of two scenes is true of both."""
        right = [self.texts[row] for row in self.fits.nonzero()[:, 0]]
        for row in self.trusted.nonzero()[:, 0].tolist():
            self.trusted[row] = right.count(self.texts[row]) == 1

    def word_labels(self, length: int) -> torch.Tensor:
        """Which text positions hold a wrong word: int64 (N, length).

        Words are one token each, behind ``[CLS]``; another picture's captions are not judged.
        """
        labels = torch.full((len(self.texts), length), self.UNJUDGED)
        for row, wrong in enumerate(self._wrong):
            if wrong is not None:
                labels[row, 1 : 1 + len(wrong)] = torch.tensor(wrong, dtype=torch.long)
        return labels


def _attributes(record: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """What is edited: of two groups their relation, both swaps, and two other attributes."""
    if len(record.groups) < 2:
        return ATTRIBUTES
    others = [attribute for attribute in ATTRIBUTES if attribute != "relation"]
    return (*rng.choice(others, 2, replace=False).tolist(), "relation", *SWAPS)


def _judged(choice: Choice, other: Choice) -> list[tuple[str, str]]:
    """The captions of one scene, each with its fault; a full caption of another is surely wrong."""
    captions = [(choice.right, "none"), *((text, fault) for fault, text in choice.wrong.items())]
    if other.full and choice.full and other.right != choice.right:
        captions.append((other.right, "other"))
    return captions


def tokenize(
    processor: Blip2Processor, texts: list[str], device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask (N, T), padded to the longest text."""
    batch = processor.tokenizer(
        texts, padding=True, truncation=True, max_length=WINDOW, return_tensors="pt"
    )
    return batch.input_ids.to(device), batch.attention_mask.to(device)


@torch.no_grad()
def pair_accuracy(
    model: Blip2ForImageTextRetrieval,
    processor: Blip2Processor,
    scenes: Scenes,
    device: str = "cpu",
    *,
    partial: float = 0.5,
    spoil: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Whether the right caption scores above a one-edit wrong one: 0/1 arrays by attribute.

    ``count`` holds the figures of the matching logit, ``itc_count`` those of the contrastive
    cosine. A scene that has not the attribute, or a caption that leaves it unsaid, gives none.

    Args:
        partial: the probability of a caption that leaves parts out.
        spoil: what is done to the pictures (B, 3, 64, 64) before they are seen.
    """
    rng = np.random.default_rng(0)
    judged = (*ATTRIBUTES, *SWAPS)
    right: dict[str, list[bool]] = {f"{k}{a}": [] for k in ("", "itc_") for a in judged}
    for start in range(0, len(scenes), 64):
        pixels = scenes.pixels(slice(start, start + 64), device)
        tokens = model.vision_model(spoil(pixels) if spoil else pixels).last_hidden_state
        choices = [
            draw_choice(record, rng, partial=partial, attributes=judged)
            for record in scenes.records[start : start + 64]
        ]
        texts = [(c.right, *c.wrong.values()) for c in choices]
        image = torch.tensor([i for i, group in enumerate(texts) for _ in group], device=device)
        ids, mask = tokenize(processor, [text for group in texts for text in group], device)
        itm = itm_match(model, tokens[image], ids, mask).logits[:, 1].tolist()
        cosines = itc_scores(model, query_states(model, tokens), ids, mask)
        itc = cosines[image, torch.arange(len(ids), device=device)].tolist()
        row = 0
        for choice in choices:
            for offset, attribute in enumerate(choice.wrong, start=1):
                right[attribute].append(itm[row] > itm[row + offset])
                right[f"itc_{attribute}"].append(itc[row] > itc[row + offset])
            row += 1 + len(choice.wrong)
    return {name: np.array(values, np.int64) for name, values in right.items()}


def load_evaluator(
    folder: Path, device: str = "cpu"
) -> tuple[Blip2ForImageTextRetrieval, Blip2Processor]:
    """The finished evaluator, in float32, and its processor."""
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), Blip2Processor.from_pretrained(folder)


def evaluate_evaluator(
    run: RecipeRun, split_seed: int, n: int, *, held_out: bool = False
) -> dict[str, np.ndarray]:
    """Figures for the card on ``n`` scenes of a seed: 0/1 a sample, by attribute.

    See ``pair_accuracy``: "scene" … "relation" and the swaps "groups" and "colours" by the matching
    logit, "itc_scene" … by the cosine.
    """
    model, processor = load_evaluator(run.weights / "evaluator", run.device)
    scenes = Scenes(split_seed, n, held_out=held_out)
    return pair_accuracy(model, processor, scenes, run.device)


def _means(figures: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in figures.items() if len(values)}
