"""The ablation of the paper's table 5 at pocket scale, and the fidelity of its table 12.

    python -m hb_tta.experiments.ablation --out DIR [--split dev|sealed] [--set KEY=VALUE …]

Arms: no tuning, only the global reward, only the fine-grained one, both, and a control: an equal
LoRA on the plain denoising loss with as much work. Every arm is trained from the same samples and
noises, then judged by the reader, which no training has seen: how often it gives the same answer
about the view as about the reference (fidelity), and how far the views of a context spread
(diversity). All is kept in DIR; the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import Family
from hb_tta.generators.hummingbird import HummingbirdSpec
from hb_tta.metrics import bootstrap_interval, diversity, paired_test
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import answer
from hb_tta.pocket.tasks import CATEGORIES, SPLITS, question_pairs
from hb_tta.pocket.world import Scene, render, sample_scenes
from hb_tta.report.cells import NOTHING, Cell, Comparison, Table
from hb_tta.rewards.pixels import pixels_of

if TYPE_CHECKING:
    from hb_tta.training.recipes import Settings

SEEDS = 20  # views a context whose spread is measured, as in table 4
ARMS: dict[str, list[str]] = {
    "global": ["rewards=fine_grained:0,global:1"],
    "fine_grained": ["rewards.global=0"],
    "both": [],
    "control": ["objective=denoising"],
}


def _check_recipe() -> None:
    """Raises UserError where the pocket recipe, whose reading of spread is used, is not there."""
    if find_spec("hb_tta.training.pocket_family") is None:
        raise UserError(
            "the spread of views is read by training/pocket_family, which no wheel holds: install "
            "hb-tta from a checkout, with pip install -e ."
        )


def main() -> None:
    """Trains and measures what is missing, and prints the tables."""
    options = _options()
    _check_recipe()
    torch.set_num_threads(options.threads)
    text = ""
    for figures in carry_out(plan(options)):
        text = write_tables(options.out / f"table.{options.split}.md", tables(figures))
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run an arm: its training and its measurement."""
    from hb_tta.training.recipes import get_recipe, with_changes

    base = with_changes(get_recipe("pocket"), [f"cache={options.out}/cache", *options.changes])
    for arm in ("none", *options.arms):
        yield PlannedRun(arm, lambda arm=arm: train_and_measure(arm, base, options))  # type: ignore[misc]


def train_and_measure(arm: str, base: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """What ``measure`` gives of an arm; only what is missing is done."""
    from hb_tta.training.train import train

    lora = None if arm == "none" else options.out / arm
    if lora is not None:
        train(settings_of(arm, base), lora)
    decided_by = {
        "split": options.split,
        "images": options.images,
        "contexts": options.contexts,
        "lora_scale": None if lora is None else options.lora_scale,
    }
    path = options.out / f"{arm}.{options.split}.json"
    return kept(path, decided_by, lambda: measure(base, lora, options))


def settings_of(arm: str, base: Settings) -> Settings:
    """An arm's settings; the control's batches are larger, so that its work is equal."""
    from hb_tta.training.recipes import with_changes

    settings = with_changes(base, ARMS[arm])
    if arm != "control":
        return settings
    # In passes of the UNet: two a step of a guided sample, and on each step with gradient twice as
    # many back and two more for the drift; a denoising sample is one there and two back.
    each = 6 if base.drift_weight else 4
    more = round((2 * base.num_inference_steps + each * base.gradient_steps) / 3)
    sizes = [f"{n}={getattr(base, n) * more}" for n in ("batch_size", "micro_batch_size")]
    return with_changes(settings, sizes)


# ── Measuring ───────────────────────────────────────────────────────────────────────────────────


def measure(settings: Settings, lora: Path | None, options: Any) -> dict[str, Any]:
    """Fidelity by category, 0/1 a question, two in a row of one image; diversity a context."""
    from hb_tta.training.frozen import family_of

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
    from hb_tta.training.pocket_family.evaluate_views import UNASKED, spread

    scenes = list(islice(_simple_scenes(SPLITS[options.split]), options.contexts))
    contexts = [DescribedContext(render(s), caption(s, Mention(background=False))) for s in scenes]
    made = generator.generate(contexts, [list(range(SEEDS))] * len(contexts))
    features = _clip_features(family, [view for views in made for view in views])
    spreads = [spread(reader, np.stack([np.asarray(view) for view in views])) for views in made]
    result = {"clip": diversity(features.reshape(len(made), SEEDS, -1)).tolist()}
    return result | {name: [s[name] for s in spreads] for name in UNASKED}


def _simple_scenes(seed: int) -> Iterator[Scene]:
    for scene in sample_scenes(seed):
        if _is_simple(scene):
            yield scene


def _is_simple(scene: Scene) -> bool:
    return len(scene.groups) == 1 and scene.groups[0].count <= 2


@torch.no_grad()
def _clip_features(family: Family, images: Sequence[Any]) -> np.ndarray:
    from hb_tta.rewards.clip import CLIPReward

    clip = CLIPReward.from_pretrained(family.weights("clip"))
    rows = [
        clip.features(pixels_of(images[first : first + 64], clip.size))
        for first in range(0, len(images), 64)
    ]
    return torch.cat(rows).double().numpy()


# ── The tables ──────────────────────────────────────────────────────────────────────────────────


def tables(figures: dict[str, Any]) -> list[Table]:
    """Fidelity and diversity; every figure with its 95 % interval over images or contexts."""
    return [fidelity_table(figures), diversity_table(figures)]


def fidelity_table(figures: dict[str, Any]) -> Table:
    """A row an arm, a column a category."""
    base = figures["none"]
    images = len(next(iter(base["fidelity"].values()))) // 2
    title = (
        f"Fidelity, %: the reader's answer is the same for view and reference; {images} images a "
        "category. *Closed*: of the untuned generator's error."
    )
    rows: list[list[Cell | str]] = [
        [
            arm,
            *(_share(np.array(found["fidelity"][name])) for name in CATEGORIES),
            _share(_all(found)),
            _closed(base, found),
        ]
        for arm, found in figures.items()
    ]
    return Table(["tuned on", *CATEGORIES, "average", "closed, %"], rows, title)


def diversity_table(figures: dict[str, Any]) -> Table:
    """A row an arm, a column a measure."""
    base = figures["none"]["diversity"]
    title = (
        f"Diversity over {SEEDS} seeds, % of the untuned generator's; {len(base['clip'])} contexts."
    )
    rows: list[list[Cell | str]] = [
        [arm, *(_ratio(found["diversity"][name], base[name]) for name in base)]
        for arm, found in figures.items()
    ]
    return Table(["tuned on", *base], rows, title)


def _groups(values: np.ndarray) -> np.ndarray:
    return np.arange(len(values)) // 2


def _share(values: np.ndarray) -> Cell:
    return Cell.of(bootstrap_interval(values, groups=_groups(values)))


def _all(found: dict[str, Any]) -> np.ndarray:
    return np.concatenate([found["fidelity"][name] for name in CATEGORIES])


def _closed(base: dict[str, Any], found: dict[str, Any]) -> Cell | str:
    """How much of the untuned error is gone, and whether that can be chance."""
    before, after = _all(base), _all(found)
    if base is found:
        return NOTHING
    test = paired_test(after, before, groups=_groups(after))
    error = 1 - before.mean()
    low, middle, high = (part / error for part in (test.low, test.difference, test.high))
    return Cell(middle, low, high, test.n, Comparison(test.p_value, "none"))


def _ratio(values: Sequence[float], base: Sequence[float]) -> Cell | str:
    """Of the means over contexts, resampled together; contexts without a value are left out."""
    pairs = np.array([values, base], np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if not pairs[1].any():
        return NOTHING  # the base does not vary it
    draw = np.random.default_rng(0)
    picks = draw.integers(0, pairs.shape[1], (10_000, pairs.shape[1]))
    means = pairs[:, picks].mean(-1)
    low, high = np.percentile(means[0] / means[1], [2.5, 97.5])
    return Cell(float(pairs[0].mean() / pairs[1].mean()), float(low), float(high), pairs.shape[1])


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
