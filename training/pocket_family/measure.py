"""Every figure of the model card, measured once and kept: samples by name, a file a measure.

A measure is made again when the weights that it judges, its size or its seed change, so the card
may be interrupted, and measures may be made in several processes at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hb_tta.disk import write_aside
from hb_tta.training.pocket_family.evaluate import (
    Figures,
    best_guidance,
    evaluate_captions,
    evaluate_embedding,
    evaluate_reader,
    evaluate_vae,
    guidance_figures,
    load_reader,
)
from hb_tta.training.pocket_family.evaluate_views import evaluate_diversity, evaluate_views
from hb_tta.training.pocket_family.mllm_lessons import CATEGORIES
from hb_tta.training.pocket_family.run import DEV_SEED, SEALED_SEED, RecipeRun
from hb_tta.weights import Weights


@dataclass(frozen=True)
class Measure:
    """How figures are made.

    Attributes:
        roles: the folders of the models that they depend on.
        number: samples (scenes, captions, images a category: see the function).
        make: from a run and the number of samples to figures, nested by category or not.
        guided: whether they depend on the guidance scale that was chosen.
        least: samples at the smallest scale; among twelve scenes every attribute comes up.
    """

    roles: tuple[str, ...]
    number: int
    make: Callable[[RecipeRun, int], Mapping[str, Any]]
    guided: bool = False
    least: int = 12


def measured(run: RecipeRun, name: str) -> Figures:
    """The figures of a measure, by "name" or "category/name": made now or read back."""
    measure, path = MEASURES[name], run.work / "figures" / f"{name}.json"
    number = run.examples(measure.number, least=measure.least)
    key = {
        "number": number,
        "seed": run.seed,
        "guidance": chosen_guidance(run) if measure.guided else None,
        "weights": {r: Weights(str(run.weights / r)).fingerprint() for r in measure.roles},
    }
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("key") != key:
        started = time.monotonic()
        figures = {k: values.tolist() for k, values in _flat(measure.make(run, number)).items()}
        kept = {"key": key, "seconds": time.monotonic() - started, "figures": figures}
        write_aside(path, json.dumps(kept).encode())
    return {name: np.array(values) for name, values in kept["figures"].items()}


def missing(run: RecipeRun, *names: str) -> list[str]:
    """The weights that these measures need and the run does not have yet."""
    roles = {role for name in names for role in MEASURES[name].roles}
    return sorted(role for role in roles if not (run.weights / _LAST_FILES[role]).exists())


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Figures:
    flat: Figures = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(value, np.float64)
    return flat


def chosen_guidance(run: RecipeRun) -> float:
    """The guidance scale that is best on the dev seed."""
    by_scale: dict[str, Figures] = {}
    for name, values in measured(run, "guidance").items():
        scale, figure = name.split("/")
        by_scale.setdefault(scale, {})[figure] = values
    return best_guidance(by_scale)


def _mllm(run: RecipeRun, number: int, role: str = "mllm") -> Mapping[str, Any]:
    from hb_tta.training.pocket_family.mllm_evaluate import best_blind_accuracy, evaluate_mllm

    best = {category: np.array([best_blind_accuracy(category)]) for category in CATEGORIES}
    return evaluate_mllm(run, "sealed", number, role=role) | {"best_blind": best}


def _forms(held_out: bool) -> Callable[[RecipeRun, int], Mapping[str, Any]]:
    def make(run: RecipeRun, number: int) -> Mapping[str, Any]:
        from hb_tta.training.pocket_family.evaluate_forms import drawer, evaluate_forms
        from hb_tta.training.pocket_family.unet import latest_unet

        draw = drawer(run, latest_unet(run))
        return evaluate_forms(draw, load_reader(run).read, _sealed(run), number, held_out=held_out)

    return make


def _evaluator(run: RecipeRun, number: int) -> Mapping[str, Any]:
    from hb_tta.training.pocket_family.evaluator import evaluate_evaluator

    return evaluate_evaluator(run, _sealed(run), number)


def _clip(run: RecipeRun, number: int) -> Mapping[str, Any]:
    from hb_tta.training.pocket_family.clip import evaluate_clip

    return evaluate_clip(run, _sealed(run), number)


def _sealed(run: RecipeRun) -> int:
    return SEALED_SEED + 1000 * run.seed


def _reader(**how: bool) -> Callable[[RecipeRun, int], Figures]:
    return lambda run, number: evaluate_reader(run, _sealed(run), number, **how)


def _captions(**how: Any) -> Callable[[RecipeRun, int], Figures]:
    return lambda run, number: evaluate_captions(
        run, _sealed(run), number, chosen_guidance(run), **how
    )


def _views(described: bool) -> Callable[[RecipeRun, int], Mapping[str, Figures]]:
    return lambda run, number: evaluate_views(
        run, "sealed", number, chosen_guidance(run), described=described
    )


# What a stage writes last of a role.
_LAST_FILES = {
    "generator": "generator/model_index.json",
    "generator/vae": "generator/vae/config.json",
    "reader": "reader/model.safetensors",
    "mllm": "mllm/processor_config.json",
    "mllm_two": "mllm_two/processor_config.json",
    "evaluator": "evaluator/processor_config.json",
    "clip": "clip/open_clip_config.json",
}
_VAE, _JUDGED = "generator/vae", ("generator", "reader")
MEASURES = {
    "reader_rendered": Measure(("reader",), 1000, _reader()),
    "reader_held_out": Measure(("reader",), 500, _reader(held_out=True)),
    "reader_round_trips": Measure((_VAE, "reader"), 500, _reader(round_trip=True)),
    "vae": Measure((_VAE,), 1000, lambda run, n: evaluate_vae(run, _sealed(run), n)),
    "mllm": Measure(("mllm",), 200, _mllm),
    "mllm_two": Measure(("mllm_two",), 200, lambda run, n: _mllm(run, n, "mllm_two")),
    "forms": Measure(_JUDGED, 300, _forms(held_out=False)),
    "forms_held_out": Measure(_JUDGED, 150, _forms(held_out=True)),
    "evaluator": Measure(("evaluator",), 500, _evaluator),
    "clip": Measure(("clip",), 500, _clip),
    "guidance": Measure(
        _JUDGED, 128, lambda run, n: guidance_figures(run, DEV_SEED + 1000 * run.seed, n)
    ),
    "captions": Measure(_JUDGED, 300, _captions(), guided=True),
    "captions_held_out": Measure(_JUDGED, 160, _captions(held_out=True), guided=True),
    "captions_and_embedding": Measure(_JUDGED, 160, _captions(method="hummingbird"), guided=True),
    "embedding": Measure(
        _JUDGED,
        160,
        lambda run, n: evaluate_embedding(run, _sealed(run), n, chosen_guidance(run)),
        guided=True,
    ),
    "diversity": Measure(
        _JUDGED,
        8,
        lambda run, n: evaluate_diversity(run, _sealed(run), n, chosen_guidance(run)),
        guided=True,
        least=2,
    ),
    "views": Measure((*_JUDGED, "mllm"), 60, _views(described=True), guided=True, least=2),
    "views_of_records": Measure(_JUDGED, 60, _views(described=False), guided=True, least=2),
}
