"""Stage ``text_encoders``: a tokenizer and two small CLIP text encoders, trained on the grammar.

Each learns to tell a caption's attributes from the positions that the denoiser will read: the
last token, the padding behind it (the pipeline passes no mask), and every noun, which must know
its own group. The pooled vector of the second is pulled towards the image embedding of the
caption's picture, as in the CLIP that it stands for. Then both are frozen.

All forms of ``hb_tta.pocket.captions.FORMS`` are read. Where the run starts from an earlier
family, what its encoders say of the forms that they knew is held, for a denoiser that goes on.
"""

from __future__ import annotations

import json

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.captions import EDIT, NUMBERS, caption, draw_caption, plural
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, Scene
from hb_tta.pocket.worn import STRENGTHS
from hb_tta.training.pocket_family.labels import Heads, head_accuracy, head_loss
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, dev_scenes, training_scenes

WINDOW = 32  # positions
WIDTH = 128
UNSAID = 0
STEPS, GO_ON_STEPS = 700, 500
HELD_WEIGHT = 5.0
EDIT_WORDS = EDIT.replace("{}", "").split()
OTHER_WORDS = [*" ".join(RELATIONS).split(), "and", "on", "a", "image", "picture", *EDIT_WORDS]
_SLOT = {"count": len(NUMBERS) + 1, "colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1}
HEADS = {
    "background": len(BACKGROUNDS) + 1,
    "relation": len(RELATIONS) + 1,
    **{f"{name}_{slot}": size for slot in (0, 1) for name, size in _SLOT.items()},
}
NOUN_HEADS = {**_SLOT, "slot": 2, "relation": len(RELATIONS) + 1}


def train_tokenizer(run: RecipeRun) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's layout: any text can be read, the world's words are one token."""
    if run.start:
        before = CLIPTokenizer.from_pretrained(run.start / "generator" / "tokenizer")
        return with_words(before, EDIT_WORDS)
    rng = np.random.default_rng(run.seed)
    words = [*BACKGROUNDS, *COLOURS, *NUMBERS, *OTHER_WORDS]
    words += [plural(shape, n) for shape in (*SHAPES, "shape") for n in (1, 2)]
    records = training_scenes(run, everything=True).records[:4000]
    corpus = [draw_caption(record, rng)[1] for record in records]
    trained = CLIPTokenizer().train_new_from_iterator(
        corpus + words * 50, vocab_size=1000, show_progress=False
    )
    vocab, merges = _parts(trained)
    for byte in pre_tokenizers.ByteLevel.alphabet():
        # A byte that never ended a word in the corpus would read as the end of the text.
        for token in (byte, byte + "</w>"):
            vocab.setdefault(token, len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=WINDOW)


def with_words(tokenizer: CLIPTokenizer, words: list[str]) -> CLIPTokenizer:
    """The tokenizer with these words as one token each; all other ids stay as they are."""
    for word in words:
        vocab, merges = _parts(tokenizer)
        first, *others = tokenizer.tokenize(word)
        for piece in others:  # behind all older merges, so that older words are read as before
            merges.append((first, piece))
            first += piece
            vocab.setdefault(first, len(vocab))
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=WINDOW)
    return tokenizer


def _parts(tokenizer: CLIPTokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return dict(model["vocab"]), [tuple(merge) for merge in model["merges"]]


def tokenize(tokenizer: CLIPTokenizer, texts: list[str], device: str = "cpu") -> torch.Tensor:
    """Token ids (N, 32), padded as the pipeline pads them."""
    return tokenizer(
        texts, padding="max_length", max_length=WINDOW, truncation=True, return_tensors="pt"
    ).input_ids.to(device)


def parse(text: str) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Labels of a caption: of the whole, and of every noun with its token's position.

    Words are one token each, behind the start token, so word i stands at position i + 1.
    """
    whole = {head: UNSAID for head in HEADS}
    nouns: list[dict[str, int]] = []
    phrase = {"count": UNSAID, "colour": UNSAID, "shape": UNSAID}
    words = text.split()
    for index, word in enumerate(words):
        if word in NUMBERS:
            phrase["count"] = 1 + NUMBERS.index(word)
        elif word in COLOURS:
            phrase["colour"] = 1 + tuple(COLOURS).index(word)
        elif word in _NOUNS:
            phrase["shape"] = _NOUNS[word]
            nouns.append({**phrase, "slot": len(nouns), "position": index + 1})
            phrase = {"count": UNSAID, "colour": UNSAID, "shape": UNSAID}
        elif word == "on" and words[index + 1] in BACKGROUNDS:
            whole["background"] = 1 + tuple(BACKGROUNDS).index(words[index + 1])
    relations = [i for i, relation in enumerate(RELATIONS) if f" {relation} " in text]
    whole["relation"] = 1 + relations[0] if relations else UNSAID
    for noun in nouns:
        # The encoders are causal: only the second noun has seen the relation.
        noun["relation"] = whole["relation"] if noun["slot"] else UNSAID
        for name in _SLOT:
            whole[f"{name}_{noun['slot']}"] = noun[name]
    return whole, nouns


_NOUNS = {plural(s, n): 1 + SHAPES.index(s) for s in SHAPES for n in (1, 2)}
_NOUNS |= {"shape": UNSAID, "shapes": UNSAID}


def build_encoders(
    tokenizer: CLIPTokenizer,
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Two untrained text encoders of one shape; the second has a projection."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=WINDOW,
        projection_dim=WIDTH, hidden_act="gelu", bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config), CLIPTextModelWithProjection(config)


class _Captions:
    """Captions of scenes in all forms, tokenised and labelled once."""

    def __init__(self, tokenizer: CLIPTokenizer, records: list[Scene], rng: np.random.Generator):
        drawn = [draw_caption(record, rng) for record in records]
        texts = [text for _, text in drawn]
        parsed = [parse(text) for text in texts]
        self.known = torch.tensor([form != "edit" for form, _ in drawn])  # to earlier families
        self.ids = tokenize(tokenizer, texts)
        self.whole = {h: torch.tensor([whole[h] for whole, _ in parsed]) for h in HEADS}
        one = [nouns[rng.integers(len(nouns))] if nouns else None for _, nouns in parsed]
        self.position = torch.tensor([noun["position"] if noun else 0 for noun in one])
        self.noun = {
            h: torch.tensor([noun[h] if noun else UNSAID for noun in one]) for h in NOUN_HEADS
        }


def _encoders(
    run: RecipeRun, tokenizer: CLIPTokenizer
) -> tuple[list[CLIPTextModel | CLIPTextModelWithProjection], list]:
    """The encoders to train, and an earlier family's to stay near (none without ``run.start``)."""
    if not run.start:
        return [encoder.to(run.device) for encoder in build_encoders(tokenizer)], []
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    mine, before = (
        [
            kind.from_pretrained(run.start / "generator" / name, dtype=torch.float32).to(run.device)
            for name, kind in kinds.items()
        ]
        for _ in range(2)
    )
    for encoder in mine:
        encoder.resize_token_embeddings(len(tokenizer))
    return mine, before


def train_text_encoders(run: RecipeRun) -> None:
    """Train the tokenizer and both encoders; save them into the generator's folder."""
    torch.manual_seed(run.seed)
    folder = run.weights / "generator"
    tokenizer = train_tokenizer(run)
    encoders, before = _encoders(run, tokenizer)
    heads = torch.nn.ModuleList(
        [Heads(WIDTH, sizes) for sizes in (HEADS, NOUN_HEADS, HEADS) for _ in encoders]
    ).to(run.device)
    scenes, dev = training_scenes(run, everything=True), dev_scenes(run, 512, held_out=None)
    rng = np.random.default_rng([run.seed, 1])
    captions = _Captions(tokenizer, scenes.records, rng)
    dev_captions = _Captions(tokenizer, dev.records, rng)
    images = image_embeds(run, scenes)
    full = tokenize(tokenizer, [caption(record) for record in scenes.records])

    def outputs(given: _Captions, rows, draws: Draws | None) -> tuple[list[dict], list]:
        ids = given.ids[rows].to(run.device)
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        pads = ends + (draws.numpy.integers(0, 12) if draws else 4)
        pads = pads.clamp(max=WINDOW - 1)
        logits, states = [], []
        for index, encoder in enumerate(encoders):
            seen = encoder(ids, output_hidden_states=True)
            hidden, row = seen.hidden_states[-2], torch.arange(len(ids))
            logits.append(heads[index](hidden[row, ends]))
            logits.append(heads[4 + index](hidden[row, pads]))
            logits.append(heads[2 + index](hidden[row, given.position[rows].to(run.device)]))
            states.append(hidden)
        return logits, states

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 64)
        logits, states = outputs(captions, rows, draws)
        total = sum(
            head_loss(values, captions.noun if index % 3 == 2 else captions.whole, rows)
            for index, values in enumerate(logits)
        )
        for encoder, hidden in zip(before, states, strict=False):
            known = captions.known[rows]
            with torch.no_grad():
                ids = captions.ids[rows][known].to(run.device)
                told = encoder(ids, output_hidden_states=True).hidden_states[-2]
            total = total + HELD_WEIGHT * F.mse_loss(hidden[known], told)
        pooled = encoders[1](full[rows].to(run.device)).text_embeds
        return total + 2 * _contrast(pooled, images[rows].to(run.device))

    def evaluate() -> dict[str, float]:
        logits, states = outputs(dev_captions, slice(None), None)
        figures = head_accuracy(logits[3], dev_captions.whole)
        nouns = head_accuracy(logits[5], dev_captions.noun)
        figures |= {f"noun_{k}": v for k, v in nouns.items()}
        for index, encoder in enumerate(before):
            known = dev_captions.known
            told = encoder(dev_captions.ids[known].to(run.device), output_hidden_states=True)
            drift = F.mse_loss(states[index][known], told.hidden_states[-2])
            figures[f"drift_{index}"] = float(drift)
        return figures

    optimize(
        run, "text_encoders", {"one": encoders[0], "two": encoders[1], "heads": heads}, loss,
        steps=run.steps(GO_ON_STEPS if run.start else STEPS), lr=1e-3, evaluate=evaluate,
        evaluate_every=250,
    )  # fmt: skip
    for encoder in () if before else encoders:
        with torch.no_grad():
            seen = encoder(captions.ids[:1024].to(run.device), output_hidden_states=True)
            scale_residuals(encoder, 1 / float(seen.hidden_states[-2].std()))
    for suffix, encoder in zip(("", "_2"), encoders, strict=True):
        encoder.eval().half().save_pretrained(folder / f"text_encoder{suffix}")
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")


@torch.no_grad()
def scale_residuals(encoder: CLIPTextModel | CLIPTextModelWithProjection, scale: float) -> None:
    """Scale all hidden states exactly: whatever is behind a layer norm stays.

    The denoiser reads them as they are. Left at a deviation of 5 to 6, every step of its optimizer
    moved keys and values as many times too far, and it did not learn to bind and to place.
    """
    text = getattr(encoder, "text_model", encoder)
    for embedding in (text.embeddings.token_embedding, text.embeddings.position_embedding):
        embedding.weight *= scale
    for layer in text.encoder.layers:
        for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
            linear.weight *= scale
            linear.bias *= scale
    encoder.config.layer_norm_eps *= scale**2
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = encoder.config.layer_norm_eps


def _contrast(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """CLIP's loss at temperature 0.1, and the image embeddings' own length."""
    scores = 10 * F.normalize(texts, dim=-1) @ F.normalize(images, dim=-1).T
    target = torch.arange(len(texts), device=texts.device)
    lengths = (texts.norm(dim=-1) / images.norm(dim=-1) - 1).square().mean()
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2 + lengths


@torch.no_grad()
def image_embeds(run: RecipeRun, scenes: Scenes, *, worn: bool = False) -> torch.Tensor:
    """Image embeddings (N, 128) of the finished image encoder.

    Args:
        worn: every picture is worn before it is seen, in any strength.
    """
    tower = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    ).to(run.device)
    rng = np.random.default_rng([run.seed, 3])
    parts = [slice(i, i + 256) for i in range(0, len(scenes), 256)]
    pixels = (
        scenes.pixels(part, run.device, worn=float(worn), strengths=STRENGTHS, rng=rng)
        for part in parts
    )
    return torch.cat([tower(some).image_embeds.cpu() for some in pixels])
