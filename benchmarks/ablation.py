"""The ablation of the paper's table 5 at pocket scale, and the fidelity of its table 12.

    python benchmarks/ablation.py --out DIR [--split dev|sealed] [--set KEY=VALUE …]

Arms: no tuning, only the global reward, only the fine-grained one, both, and a control: an equal
LoRA on the plain denoising loss with as much work. Every arm is trained from the same samples and
noises, then judged by the reader, which no training has seen: how often it gives the same answer
about the view as about the reference (fidelity), and how far the views of a context spread
(diversity). All is kept in DIR; the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hb_tta.training.pocket_family.evaluate_views import UNASKED, spread
from hb_tta.training.recipes import Settings, get_recipe, with_changes
from hb_tta.training.train import family_of, train

from hb_tta.context import DescribedContext
from hb_tta.disk import write_aside
from hb_tta.families import Family
from hb_tta.generators.specs import HummingbirdSpec
from hb_tta.metrics import bootstrap_interval, diversity, paired_test
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import answer
from hb_tta.pocket.tasks import CATEGORIES, SPLITS, question_pairs
from hb_tta.pocket.world import Scene, render, sample_scenes
from hb_tta.rewards.evaluator import pixels_of

SEEDS = 20  # views a context whose spread is measured, as in table 4
ARMS: dict[str, list[str]] = {
    "global": ["rewards=fine_grained:0,global:1"],
    "fine_grained": ["rewards.global=0"],
    "both": [],
    "control": ["objective=denoising"],
}


def main() -> None:
    """Trains and measures what is missing, and prints the table."""
    options = _options()
    torch.set_num_threads(options.threads)
    base = with_changes(get_recipe("pocket"), [f"cache={options.out}/cache", *options.changes])
    figures: dict[str, Any] = {}
    for arm in ("none", *options.arms):
        lora = None
        if arm != "none":
            lora = options.out / arm
            train(settings_of(arm, base), lora)
        figures[arm] = _kept_on_disk(
            options.out / f"{arm}.{options.split}.json",
            {
                "split": options.split,
                "images": options.images,
                "contexts": options.contexts,
                "lora_scale": None if lora is None else options.lora_scale,
            },  # fmt: skip
            lambda lora=lora: measure(base, lora, options),  # type: ignore[misc]
        )
        text = table(figures)
        write_aside(options.out / f"table.{options.split}.md", text.encode())
    print(text)


def settings_of(arm: str, base: Settings) -> Settings:
    """An arm's settings; the control's batches are larger, so that its work is equal."""
    settings = with_changes(base, ARMS[arm])
    if arm != "control":
        return settings
    # In passes of the UNet: two a step of a guided sample, and on each step with gradient twice as
    # many back and two more for the drift; a denoising sample is one there and two back.
    each = 6 if base.drift_weight else 4
    more = round((2 * base.num_inference_steps + each * base.gradient_steps) / 3)
    sizes = [f"{n}={getattr(base, n) * more}" for n in ("batch_size", "micro_batch_size")]
    return with_changes(settings, sizes)


def _kept_on_disk(path: Path, key: dict[str, Any], make: Callable[[], dict]) -> dict[str, Any]:
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return kept["figures"]
    figures = make()
    write_aside(path, json.dumps({"key": key, "figures": figures}).encode())
    return figures


# ── Measuring ───────────────────────────────────────────────────────────────────────────────────


def measure(settings: Settings, lora: Path | None, options: Any) -> dict[str, Any]:
    """Fidelity by category, 0/1 a question, two in a row of one image; diversity a context."""
    family = family_of(settings)
    spec = HummingbirdSpec.from_family(family, lora=None if lora is None else str(lora))
    generator = replace(spec, lora_scale=options.lora_scale).load(batch_size=32)
    reader = Reader.from_pretrained(family.weights("reader"))
    fidelity = {
        category: _fidelity(generator, reader, category, options.split, options.images)
        for category in CATEGORIES
    }
    return {"fidelity": fidelity, "diversity": _diversity(generator, reader, family, options)}


def _fidelity(
    generator: Any, reader: Reader, category: str, split: str, images: int
) -> list[float]:
    pairs = list(islice(question_pairs(category, SPLITS[split]), images))
    references = [render(pair.told) for pair in pairs]
    contexts = [DescribedContext(i, p.description) for i, p in zip(references, pairs, strict=True)]
    made = generator.generate(contexts, [[0]] * len(contexts))
    seen = reader.read([views[0] for views in made])
    right = reader.read(references)
    return [
        float(
            answer(view, question) is not None and answer(view, question) == answer(ref, question)
        )
        for pair, view, ref in zip(pairs, seen, right, strict=True)
        for question in (pair.yes, pair.no)
    ]


def _diversity(
    generator: Any, reader: Reader, family: Family, options: Any
) -> dict[str, list[float]]:
    """Spread of ``SEEDS`` views of each of some contexts that leave the background unsaid."""
    scenes = list(islice(_simple_scenes(SPLITS[options.split]), options.contexts))
    contexts = [DescribedContext(render(s), caption(s, Mention(background=False))) for s in scenes]
    made = generator.generate(contexts, [list(range(SEEDS))] * len(contexts))
    features = _clip_features(family, [view for views in made for view in views])
    spreads = [spread(reader, np.stack([np.asarray(view) for view in views])) for views in made]
    result = {"clip": diversity(features.reshape(len(made), SEEDS, -1)).tolist()}
    return result | {name: [s[name] for s in spreads] for name in UNASKED}


def _simple_scenes(seed: int):
    for scene in sample_scenes(seed):
        if _is_simple(scene):
            yield scene


def _is_simple(scene: Scene) -> bool:
    return len(scene.groups) == 1 and scene.groups[0].count <= 2


@torch.no_grad()
def _clip_features(family: Family, images: Sequence[Any]) -> np.ndarray:
    from hb_tta.rewards.extra import CLIPReward

    clip = CLIPReward.from_pretrained(family.weights("clip"))
    rows = [
        clip.features(pixels_of(images[first : first + 64], clip.size))
        for first in range(0, len(images), 64)
    ]
    return torch.cat(rows).double().numpy()


# ── The table ───────────────────────────────────────────────────────────────────────────────────


def table(figures: dict[str, Any]) -> str:
    """In Markdown; every figure with its 95 % interval over images or contexts."""
    base = figures["none"]
    images = len(next(iter(base["fidelity"].values()))) // 2
    lines = [
        f"Fidelity, %: the reader's answer is the same for view and reference; {images} images a "
        f"category. *Closed*: of the untuned generator's error.",
        "",
        "| tuned on | " + " | ".join(CATEGORIES) + " | average | closed, % |",
        "| --- |" + " --- |" * (len(CATEGORIES) + 2),
    ]
    for arm, found in figures.items():
        cells = [_percent(np.array(found["fidelity"][name])) for name in CATEGORIES]
        lines.append(
            f"| {arm} | " + " | ".join([*cells, _average(found), _closed(base, found)]) + " |"
        )
    names = list(base["diversity"])
    lines += [
        "",
        f"Diversity over {SEEDS} seeds, % of the untuned generator's; "
        f"{len(base['diversity']['clip'])} contexts.",
        "",
        "| tuned on | " + " | ".join(f"{name} " for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for arm, found in figures.items():
        cells = [_ratio(found["diversity"][name], base["diversity"][name]) for name in names]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _groups(values: np.ndarray) -> np.ndarray:
    return np.arange(len(values)) // 2


def _percent(values: np.ndarray) -> str:
    found = bootstrap_interval(values, groups=_groups(values))
    return f"{100 * found.estimate:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _all(found: dict[str, Any]) -> np.ndarray:
    return np.concatenate([found["fidelity"][name] for name in CATEGORIES])


def _average(found: dict[str, Any]) -> str:
    return _percent(_all(found))


def _closed(base: dict[str, Any], found: dict[str, Any]) -> str:
    """How much of the untuned error is gone, and whether that can be chance."""
    before, after = _all(base), _all(found)
    if base is found:
        return "–"
    test = paired_test(after, before, groups=_groups(after))
    error = 1 - before.mean()
    low, middle, high = (100 * x / error for x in (test.low, test.difference, test.high))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}], p = {test.p_value:.3g}"


def _ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """Of the means over contexts, resampled together; contexts without a value are left out."""
    pairs = np.array([values, base], np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if not pairs[1].any():
        return "–"  # the base does not vary it
    draw = np.random.default_rng(0)
    picks = draw.integers(0, pairs.shape[1], (10_000, pairs.shape[1]))
    means = pairs[:, picks].mean(-1)
    low, high = np.percentile(100 * means[0] / means[1], [2.5, 97.5])
    return f"{100 * pairs[0].mean() / pairs[1].mean():.1f} [{low:.1f}, {high:.1f}]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--images", type=int, default=100, help="a category")
    parser.add_argument("--contexts", type=int, default=24, help="of the diversity")
    parser.add_argument("--lora-scale", type=float, default=0.5, help="as the bundled one's")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], dest="changes", metavar="KEY=VALUE"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
