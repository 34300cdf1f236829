"""Stage ``text_encoders``: a tokenizer and two small CLIP text encoders, trained on the grammar.

Each learns to tell a caption's attributes from the positions that the denoiser will read: the
last token, the padding behind it (the pipeline passes no mask), and every noun, which must know
its own group. The pooled vector of the second is pulled towards the image embedding of the
caption's picture, as in the CLIP that it stands for. Then both are frozen.
"""

from __future__ import annotations

import json

import numpy as np
import torch
import torch.nn.functional as F
from hb_tta.training.pocket_family.labels import Heads, head_accuracy, head_loss
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import Run, Scenes, dev_scenes, training_scenes
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.captions import NUMBERS, caption, plural, random_caption
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, RELATIONS, SHAPES

WINDOW = 32  # positions
WIDTH = 128
UNSAID = 0
OTHER_WORDS = [*" ".join(RELATIONS).split(), "and", "on", "a", "image", "picture"]
_SLOT = {"count": len(NUMBERS) + 1, "colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1}
HEADS = {
    "background": len(BACKGROUNDS) + 1,
    "relation": len(RELATIONS) + 1,
    **{f"{name}_{slot}": size for slot in (0, 1) for name, size in _SLOT.items()},
}
NOUN_HEADS = {**_SLOT, "slot": 2, "relation": len(RELATIONS) + 1}


def train_tokenizer(run: Run) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's layout: any text can be read, the world's words are one token."""
    rng = np.random.default_rng(run.seed)
    words = [*BACKGROUNDS, *COLOURS, *NUMBERS, *OTHER_WORDS]
    words += [plural(shape, n) for shape in (*SHAPES, "shape") for n in (1, 2)]
    corpus = [random_caption(record, rng) for record in training_scenes(run).records[:4000]]
    trained = CLIPTokenizer().train_new_from_iterator(
        corpus + words * 50, vocab_size=1000, show_progress=False
    )
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    vocab = dict(model["vocab"])
    for byte in pre_tokenizers.ByteLevel.alphabet():
        # A byte that never ended a word in the corpus would read as the end of the text.
        for token in (byte, byte + "</w>"):
            vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=WINDOW)


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
        elif word == "on":
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
    """Captions of the training scenes, tokenised and labelled once."""

    def __init__(self, tokenizer: CLIPTokenizer, texts: list[str], rng: np.random.Generator):
        parsed = [parse(text) for text in texts]
        self.ids = tokenize(tokenizer, texts)
        self.whole = {h: torch.tensor([whole[h] for whole, _ in parsed]) for h in HEADS}
        one = [nouns[rng.integers(len(nouns))] if nouns else None for _, nouns in parsed]
        self.position = torch.tensor([noun["position"] if noun else 0 for noun in one])
        self.noun = {
            h: torch.tensor([noun[h] if noun else UNSAID for noun in one]) for h in NOUN_HEADS
        }


def train_text_encoders(run: Run) -> None:
    """Train the tokenizer and both encoders; save them into the generator's folder."""
    torch.manual_seed(run.seed)
    folder = run.weights / "generator"
    tokenizer = train_tokenizer(run)
    encoders = [encoder.to(run.device) for encoder in build_encoders(tokenizer)]
    heads = torch.nn.ModuleList(
        [Heads(WIDTH, sizes) for sizes in (HEADS, NOUN_HEADS, HEADS) for _ in encoders]
    ).to(run.device)
    scenes, dev = training_scenes(run), dev_scenes(run, 512)
    rng = np.random.default_rng([run.seed, 1])
    texts = [random_caption(record, rng, partial=0.7) for record in scenes.records]
    captions = _Captions(tokenizer, texts, rng)
    dev_texts = [random_caption(record, rng, partial=0.7) for record in dev.records]
    dev_captions = _Captions(tokenizer, dev_texts, rng)
    images = image_embeds(run, scenes)
    full = tokenize(tokenizer, [caption(record) for record in scenes.records])

    def outputs(given: _Captions, rows, draws: Draws | None) -> list[dict]:
        ids = given.ids[rows].to(run.device)
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        pads = ends + (draws.numpy.integers(0, 12) if draws else 4)
        pads = pads.clamp(max=WINDOW - 1)
        logits = []
        for index, encoder in enumerate(encoders):
            seen = encoder(ids, output_hidden_states=True)
            hidden, row = seen.hidden_states[-2], torch.arange(len(ids))
            logits.append(heads[index](hidden[row, ends]))
            logits.append(heads[4 + index](hidden[row, pads]))
            logits.append(heads[2 + index](hidden[row, given.position[rows].to(run.device)]))
        return logits

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 64)
        logits = outputs(captions, rows, draws)
        total = sum(
            head_loss(values, captions.noun if index % 3 == 2 else captions.whole, rows)
            for index, values in enumerate(logits)
        )
        pooled = encoders[1](full[rows].to(run.device)).text_embeds
        return total + 2 * _contrast(pooled, images[rows].to(run.device))

    def evaluate() -> dict[str, float]:
        logits = outputs(dev_captions, slice(None), None)
        figures = head_accuracy(logits[3], dev_captions.whole)
        nouns = head_accuracy(logits[5], dev_captions.noun)
        return figures | {f"noun_{k}": v for k, v in nouns.items()}

    optimize(
        run, "text_encoders", {"one": encoders[0], "two": encoders[1], "heads": heads}, loss,
        steps=run.steps(700), lr=1e-3, evaluate=evaluate, evaluate_every=250,
    )  # fmt: skip
    for encoder in encoders:
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
def image_embeds(run: Run, scenes: Scenes) -> torch.Tensor:
    """Image embeddings (N, 128) of the finished image encoder."""
    tower = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    ).to(run.device)
    starts = range(0, len(scenes), 256)
    return torch.cat(
        [tower(scenes.pixels(slice(i, i + 256), run.device)).image_embeds.cpu() for i in starts]
    )
