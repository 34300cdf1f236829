"""The generator by form of caption: what a described view keeps, and what only a picture says.

    python -m hb_tta.training.pocket_family.evaluate_forms OUT [--number 60] [--judge strict]

*all*: everything that a caption names is right. *asked*: the questions that it decides are answered
of the picture as of the reference. Beside them, from the embedding of the reference: its filling,
which no caption names, and with no words at all its colours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from hb_tta.pocket.captions import FORMS, Mention, told_from_either
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.reading import Reading, answer, fillings_kept, judge
from hb_tta.pocket.tasks import make_pair, more_first
from hb_tta.pocket.world import CONTACTS, DIRECTIONS, Scene, render, sample_scenes
from hb_tta.training.pocket_family.evaluate import Figures, load_reader
from hb_tta.training.pocket_family.run import DEV_SEED, RecipeRun
from hb_tta.training.pocket_family.strict_reader import read_strictly
from hb_tta.training.pocket_family.unet import build_pipeline, latest_unet

Judge = Callable[[np.ndarray], list[Reading]]
Draw = Callable[[Sequence[str], Sequence[Image]], np.ndarray]
STEPS, GUIDANCE, BATCH = 12, 2.0, 16


def evaluate_forms(
    draw: Draw, read: Judge, seed: int, number: int, *, held_out: bool = False
) -> dict[str, Figures]:
    """Figures of every form on ``number`` scenes of a seed, drawn with the scene's embedding.

    Args:
        draw: from captions and references to pictures, uint8 (N, 64, 64, 3).
        read: from pictures to readings.

    Returns:
        form → ``all``, ``asked``, ``filling``: 0/1 a scene (``asked``: a mean over questions;
        ``filling``: of scenes whose shapes are all there), and what ``judge`` tells. Under
        "embedding alone": with no words.
    """
    stream = sample_scenes(seed, held_out=held_out, edition=THIRD)
    scenes = list(islice(stream, number))
    references = [render(scene) for scene in scenes]
    figures = {}
    for name, form in FORMS.items():
        rng = np.random.default_rng([seed, 0xF0])
        told = [told_from_either(scene, rng) for scene in scenes]
        mentions = [form.mention(scene, rng) for scene in told]
        texts = [form.write(*pair) for pair in zip(told, mentions, strict=True)]
        readings = read(draw(texts, references))
        figures[name] = _judged(readings, told, mentions, rng)
    nothing = read(draw([""] * number, references))
    figures["embedding alone"] = _judged(nothing, scenes, [Mention()] * number, rng)
    return figures


def _judged(
    readings: Sequence[Reading],
    scenes: Sequence[Scene],
    mentions: Sequence[Mention],
    rng: np.random.Generator,
) -> Figures:
    columns: dict[str, list[float]] = {}
    for reading, scene, mention in zip(readings, scenes, mentions, strict=True):
        verdict = judge(reading, scene, mention)
        asked = asked_kept(reading, scene, mention, rng)
        found = {
            "all": float(all(verdict.values())),
            "filling": float(fillings_kept(reading, scene)),
        }
        found |= {name: float(right) for name, right in verdict.items()}
        if asked:
            found["asked"] = float(np.mean(asked))
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}


def asked_kept(
    reading: Reading, scene: Scene, mention: Mention, rng: np.random.Generator
) -> list[bool]:
    """Whether the questions that a caption decides are answered of a picture as of the scene."""
    kept = []
    for category in decided(scene, mention):
        told = more_first(scene) if category == "reasoning" else scene
        assert told is not None
        pair = make_pair(told, category, rng, edition=THIRD)
        kept += [answer(reading, pair.yes) is True, answer(reading, pair.no) is False]
    return kept


def decided(scene: Scene, mention: Mention) -> list[str]:
    """The categories whose questions about the first group the caption decides."""
    whole = all(i in mention.groups for i in range(len(scene.groups)))
    first = 0 in mention.groups and mention.shape
    counts = all(mention.names("count", i) for i in range(len(scene.groups)))
    can = {
        "existence": whole and mention.shape and scene.relation not in CONTACTS,
        "count": first and mention.names("count", 0),
        "position": whole and first and mention.relation and scene.relation in DIRECTIONS,
        "color": first and mention.names("colour", 0),
        "scene": mention.background,
        "reasoning": whole and first and counts and more_first(scene) is not None,
    }
    return [category for category, decides in can.items() if decides]


def drawer(run: RecipeRun, unet) -> Draw:
    """Draws as Hummingbird does: the caption as text, the reference's embedding as pooled."""
    finished, first = run.weights / "generator" / "vae", run.work / "vae_encoder"
    pipeline = build_pipeline(run, unet, finished if finished.exists() else first)
    pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def draw(texts: Sequence[str], references: Sequence[Image]) -> np.ndarray:
        pictures = []
        for start in range(0, len(texts), BATCH):
            some = list(texts[start : start + BATCH])
            seen = pipeline.feature_extractor(
                list(references[start : start + BATCH]), return_tensors="pt"
            ).pixel_values
            pooled = pipeline.image_encoder(seen.to(run.device)).image_embeds
            hidden = pipeline.encode_prompt(some, device=run.device)[0]
            noise = [torch.Generator().manual_seed(start + row) for row in range(len(some))]
            drawn = pipeline(
                prompt_embeds=hidden, pooled_prompt_embeds=pooled,
                negative_prompt_embeds=torch.zeros_like(hidden),
                negative_pooled_prompt_embeds=torch.zeros_like(pooled),
                height=64, width=64, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                generator=noise, output_type="np",
            ).images  # fmt: skip
            pictures.append((drawn * 255).round().astype(np.uint8))
        return np.concatenate(pictures)

    return draw


def table(figures: dict[str, Figures]) -> str:
    """Percentages in Markdown, a form a row."""
    names = ("all", "asked", "filling", "scene", "colour", "existence", "count", "position")
    rows = ["| form | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for form, by_name in figures.items():
        values = [f"{100 * by_name[n].mean():.1f}" if n in by_name else "" for n in names]
        rows.append(f"| {form} | " + " | ".join(values) + " |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table of a run's denoiser, finished or as it stands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the run's folder")
    parser.add_argument("--number", type=int, default=60, help="scenes a form")
    parser.add_argument("--judge", choices=("reader", "strict"), default="reader")
    parser.add_argument("--held-out", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = RecipeRun(options.out / "work", options.out / "weights")
    read = load_reader(run).read if options.judge == "reader" else read_strictly
    draw = drawer(run, latest_unet(run))
    made = evaluate_forms(draw, read, DEV_SEED, options.number, held_out=options.held_out)
    print(table(made))


if __name__ == "__main__":
    main()
