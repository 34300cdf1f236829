"""Settings by name: of a training (``--set``), of views (``--augment_args``), of prompt tuning."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from fuzz import Part, Trial
from fuzz.commands import told_by
from fuzz.mutating import NUMBERS, hostile_texts, hostile_values, text_of
from hb_tta.generators.registry import list_methods
from hb_tta.settings import OPTIONS, ViewSettings, own_settings
from hb_tta.training.recipes import RECIPES, Settings, get_recipe, to_json, with_changes

FIELDS = tuple(field.name for field in dataclasses.fields(Settings))
PARTS = ("rewards.global", "rewards.fine_grained", "rewards.x", "reward_weights.global")
USUAL = (
    "none", "true", "false", "1", "2", "8", "64", "1e-4", "0.5", "pocket", "sdxl", "float32",
    "block", "end", "adamw", "to_q,to_v", "tensorboard", "global:1", '{"global": 1}', "denoising",
)  # fmt: skip
# What no run can do with: name → whether a value is sound. Written down apart from the code.
SOUND: dict[str, Callable[[Any], bool]] = {
    "learning_rate": lambda value: 0 < value <= 1,
    "weight_decay": lambda value: 0 <= value <= 1,
    "beta_2": lambda value: 0 <= value < 1,
    "lora_dropout": lambda value: 0 <= value < 1,
    "lora_alpha": lambda value: value > 0,
    "seed": lambda value: 0 <= value < 2**63,
    "num_inference_steps": lambda value: 1 <= value <= 1000,
    "image_size": lambda value: value is None or value >= 8,
    "warmup_steps": lambda value: value >= 0,
    "family": lambda value: value in ("pocket", "sdxl"),
    "rewards": lambda value: any(value.values()) or value == {},
    "target_modules": lambda value: bool(value) and all(value),
    **{
        name: lambda value: value >= 1
        for name in (
            "batch_size", "max_steps", "save_steps", "evaluate_steps", "lora_rank",
            "gradient_steps", "max_new_tokens",
        )
    },
    # None: decided when the data and the memory are known; for patience, never.
    **{
        name: lambda value: value is None or value >= 1
        for name in ("micro_batch_size", "held_out", "patience")
    },
}  # fmt: skip
TUNING = ("--lr", "--selection", "--generated-selection", "--steps", "--crops", "--limit",
          "--batch-size", "--prompt", "--filter", "--views-of", "-n", "--seed")  # fmt: skip


def values() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(USUAL), st.sampled_from(NUMBERS).map(str), hostile_texts())


@st.composite
def changes(draw: DrawFn) -> tuple[str, Any]:
    recipe = draw(st.sampled_from(sorted(RECIPES)))
    keys = st.one_of(st.sampled_from(FIELDS), st.sampled_from(PARTS), hostile_texts())
    texts = [f"{draw(keys)}={draw(values())}" for _ in range(draw(st.integers(1, 3)))]
    return "train", (recipe, texts)


@st.composite
def views(draw: DrawFn) -> tuple[str, Any]:
    method = draw(st.sampled_from(sorted(list_methods())))
    known = [*OPTIONS, *own_settings(method), "steps", "guidance"]
    keys = st.one_of(st.sampled_from(known), hostile_texts())
    if draw(st.booleans()):
        pairs = [f"{draw(keys)}={draw(values())}" for _ in range(draw(st.integers(1, 3)))]
        return "views", (method, ",".join(pairs))
    asked = {draw(keys): draw(hostile_values()) for _ in range(draw(st.integers(1, 2)))}
    return "views", (method, text_of(asked))


@st.composite
def tuning(draw: DrawFn) -> tuple[str, Any]:
    flags = [
        f"{draw(st.sampled_from(TUNING))}={draw(values())}" for _ in range(draw(st.integers(1, 2)))
    ]
    return "tpt", flags


def lay(given: tuple[str, Any], folder: Path) -> Trial:
    door, what = given
    if door == "train":
        recipe, texts = what
        return Trial(
            lambda: with_changes(get_recipe(recipe), texts),
            lambda found: _wrong_training(get_recipe(recipe), texts, found),
        )
    if door == "views":
        method, text = what
        return Trial(lambda: ViewSettings.parse(method, text), _wrong_views)
    # A task that is not there: settings are checked before it is looked for.
    line = ["tpt", "--family", "pocket", "--task", "nothing", *what]
    return Trial(lambda: told_by(line), lambda _: "a task that is not there was evaluated")


def _wrong_training(before: Settings, texts: list[str], found: Settings) -> str | None:
    written = to_json(found)
    if json.loads(json.dumps(written, allow_nan=False)) != written:
        return "it is no plain JSON"
    named = {text.partition("=")[0].strip().partition(".")[0] for text in texts}
    for name, value in written.items():
        if name not in named and value != to_json(before)[name]:
            return f"{name} changed, which nobody named"
        if name in SOUND and not SOUND[name](value):
            return f"{name}={value!r} was accepted"
    return None


def _wrong_views(found: ViewSettings) -> str | None:
    if not (1 <= found.n and 0 <= found.seed < 2**63):
        return f"n={found.n}, seed={found.seed} were accepted"
    for name, value in found.settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name}={value} was accepted"
    again = ViewSettings.from_json(json.loads(json.dumps(found.to_json())))
    same = all(
        getattr(again, name) == getattr(found, name)
        for name, option in OPTIONS.items()
        if not option.running
    )
    return None if same and again.settings == found.settings else "it is another when written down"


def warm() -> None:
    import hb_tta.rewards
    import hb_tta.tpt.evaluate  # noqa: F401


PART = Part(
    "settings", count=3000, inputs=st.one_of(changes(), views(), tuning()), lay=lay, warm=warm
)
