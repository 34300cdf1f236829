"""What can be set about a training, and the named recipes: functions that return settings.

A recipe names its data where it can. ``--set key=value`` changes any setting.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, get_type_hints

from hb_tta.device import DTYPES
from hb_tta.errors import UserError, choose_from, shown
from hb_tta.families import list_families
from hb_tta.training.ranges import OneOf, Within, check

MEMORY_PRESETS = ("none", "block", "step+block")
OBJECTIVES = ("rewards", "denoising")
GRADIENT_AT = ("end", "anywhere")  # the last K steps; one from each of K parts (DRTune)
PROMPTS = ("own", "task", "generic")
OPTIMIZERS = ("adamw", "sgd")
TRACKERS = (  # that accelerate has
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip


def _own_rewards() -> list[str]:
    from hb_tta.rewards.registry import REWARDS

    return list(REWARDS.built_in)


def _all_rewards() -> list[str]:
    from hb_tta.rewards import list_rewards

    return list_rewards()


_FROM_1 = Within(least=1, most=10**9)
_REWARDS = OneOf(_own_rewards, more=_all_rewards)  # of other packages too, a slow look


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training. The comments say where a default comes from.

    What changes nothing but speed, memory and what is written (``FREE``) may change when a run is
    resumed; the rest may not. Of models and data it is the content that may not.
    """

    # ── Models ──
    family: Annotated[str, OneOf(list_families)] = "sdxl"
    generator: str | None = None  # a folder or hub id in the place of the family's
    evaluator: str | None = None
    mllm: str | None = None
    reward_weights: Annotated[Mapping[str, str], _REWARDS] = field(
        default_factory=dict
    )  # reward → folder or hub id
    dtype: Annotated[str | None, OneOf(DTYPES)] = None  # of frozen weights; None: the device's

    # ── Data ──
    data: str | None = None  # a name of training/data.py's table, or a path
    data_format: str | None = None  # the layout of a folder; None: a file of rows lies in it
    image_column: str | None = None  # of your own rows; None: one of the usual names
    question_column: str | None = None
    samples: Annotated[int | None, _FROM_1] = None  # rows of the data that are read; None: all
    # Rows at the beginning kept for evaluation; None: 64, of fewer than 320 good rows a fifth
    held_out: Annotated[int | None, _FROM_1] = None
    # Of the descriptions: the data's own where there are some, else by the row's task; always the
    # describer's by that task; or a generic caption of everything (table 6)
    prompt: Annotated[str, OneOf(PROMPTS)] = "own"
    max_new_tokens: Annotated[int, Within(least=1, most=4096)] = (
        75  # of a description: the released code in training
    )

    # ── The objective: −Σ λ·reward (equation 6) ──
    objective: Annotated[str, OneOf(OBJECTIVES)] = (
        "rewards"  # "denoising": the control, plain noise prediction on the references
    )
    rewards: Annotated[Mapping[str, float], _REWARDS, Within(least=-1e6, most=1e6)] = field(
        default_factory=lambda: {"global": 1.0, "fine_grained": 0.1}
    )
    # A reward that is not followed: it says which LoRA is best and when to stop; None: those that
    # are followed
    judge: Annotated[str | None, _REWARDS] = None
    # β of β·(squared distance to the untuned generator's predictions): holds what no reward asks
    # for, such as a background that the description does not name
    drift_weight: Annotated[float, Within(least=0, most=1e6)] = 0.0
    loss_scale: Annotated[float, Within(above=0, most=1e6)] = 1.0

    # ── Sampling (section 4.2, algorithm 1) ──
    num_inference_steps: Annotated[int, Within(least=1, most=1000)] = 25  # T
    guidance_scale: Annotated[float | None, Within(least=0, most=1000)] = None  # None: the family's
    gradient_steps: Annotated[int, Within(least=1, most=1000)] = 5  # K, the released code's
    random_gradient_steps: bool = False  # AlignProp: K drawn anew every step, 1 to 2K - 1
    gradient_at: Annotated[str, OneOf(GRADIENT_AT)] = "end"  # the last K
    # Norm of what one sample's loss sends back into its latents, before the mean over samples is
    # clipped by max_gradient_norm; None: as it is
    max_sample_gradient: Annotated[float | None, Within(above=0)] = None
    image_size: Annotated[int | None, Within(least=8, most=8192)] = None  # None: the generator's
    memory: Annotated[str, OneOf(MEMORY_PRESETS)] = "block"

    # ── The LoRA (appendix Q; alpha of the released configuration) ──
    lora_rank: Annotated[int, Within(least=1, most=4096)] = 8
    lora_alpha: Annotated[float, Within(above=0, most=1e6)] = 32.0
    lora_dropout: Annotated[float, Within(least=0, below=1)] = 0.0
    target_modules: tuple[str, ...] = ("to_q", "to_v", "query", "value", "ff.net.0.proj")

    # ── Optimisation ──
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"
    learning_rate: Annotated[float, Within(above=0, most=1)] = 5e-6  # appendix Q
    weight_decay: Annotated[float, Within(least=0, most=1)] = 1e-2  # PyTorch's default of AdamW
    beta_2: Annotated[float, Within(least=0, below=1)] = 0.999
    warmup_steps: Annotated[int, Within(least=0, most=10**9)] = 0
    # The step at which the rate has fallen to 0, in a line; None: it stays
    decay_steps: Annotated[int | None, _FROM_1] = None
    max_gradient_norm: Annotated[float, Within(above=0, most=1e6)] = 1.0
    # Samples an optimizer step, over all processes and micro-batches
    batch_size: Annotated[int, Within(least=1, most=2**20)] = 64
    micro_batch_size: Annotated[int, Within(least=1, most=2**20)] = 1  # on a device at once
    max_steps: Annotated[int, _FROM_1] = 50_000  # appendix O: the rewards level off there
    seed: Annotated[int, Within(least=0, below=2**63)] = 0

    # ── Watching ──
    save_steps: Annotated[int, _FROM_1] = 250
    evaluate_steps: Annotated[int, _FROM_1] = 250
    # Noises a held-out context: their spread is the diversity
    evaluate_seeds: Annotated[int, Within(least=1, most=1000)] = 2
    sample_contexts: Annotated[int, Within(least=1, most=1000)] = 4  # rows of the sample grids
    # Of the untuned generator's; below it the training stops
    min_diversity: Annotated[float, Within(least=0, most=1)] = 0.85
    # Evaluations without a better held-out reward before it stops
    patience: Annotated[int | None, _FROM_1] = None
    trackers: Annotated[tuple[str, ...] | None, OneOf(TRACKERS)] = ("tensorboard",)
    cache: str | None = None  # of descriptions and embeddings; None: in the run's folder

    def __post_init__(self) -> None:
        for name, hint in _HINTS.items():
            check(name, hint, getattr(self, name))
        _check_together(self)


FREE = frozenset(
    {
        "generator", "evaluator", "mllm", "reward_weights", "data", "data_format",  # by content
        "image_column", "question_column", "prompt",
        "memory", "micro_batch_size", "max_steps", "save_steps", "patience",
        "evaluate_steps", "evaluate_seeds", "sample_contexts", "min_diversity", "trackers", "cache",
    }
)  # fmt: skip


_HINTS = {f.name: get_type_hints(Settings, include_extras=True)[f.name] for f in fields(Settings)}


def _check_together(s: Settings) -> None:
    """Raises UserError for settings that do not go together."""
    if s.gradient_steps > s.num_inference_steps:
        raise UserError(
            f"gradient_steps={s.gradient_steps} is more than the {s.num_inference_steps} steps of "
            "a sample: use at most num_inference_steps"
        )
    if s.decay_steps is not None and s.decay_steps < s.max_steps:
        raise UserError(
            f"decay_steps={s.decay_steps} leaves nothing to learn until max_steps={s.max_steps}: "
            "use as many or more, or none"
        )
    if None not in (s.samples, s.held_out) and s.samples <= s.held_out:  # type: ignore[operator]
        raise UserError(
            f"samples={s.samples} leaves nothing to train on beside held_out={s.held_out}: use more"
        )
    if s.judge in s.rewards:
        raise UserError(
            f"judge={s.judge} is a reward that is followed, which tells nothing of what it is "
            "fooled by: name another, or none"
        )
    if s.objective == "rewards" and not any(s.rewards.values()):
        raise UserError("all rewards have the weight 0: give one, as in --set rewards.global=1")


# ── Recipes ─────────────────────────────────────────────────────────────────────────────────────


def pocket() -> Settings:
    """The bundled family on a CPU, within an hour on two cores."""
    return Settings(
        family="pocket",
        data="pocket",
        samples=4096,
        judge="clip_text",
        patience=3,
        # All measured (docs/LOG.md). Single samples have a hundred times the usual gradient: a step
        # would follow them alone without max_sample_gradient. Things are placed in early steps, and
        # counting needs those. Sampling in 12 steps, judged in 25: twice the samples a minute.
        rewards={"global": 1.0, "fine_grained": 0.3},
        num_inference_steps=12,
        gradient_steps=3,
        gradient_at="anywhere",
        max_sample_gradient=0.1,
        learning_rate=2e-4,
        batch_size=32,
        micro_batch_size=16,
        max_steps=250,
        warmup_steps=20,
        decay_steps=250,
        save_steps=25,
        evaluate_steps=50,
        memory="none",
    )


def pocket_hoi() -> Settings:
    """As ``pocket``, for ``pocket_hoi``: relations of the agent to one thing."""
    return replace(pocket(), data="pocket-hoi")


def pocket_object() -> Settings:
    """As ``pocket``, for ``pocket_objects``: one coloured shape."""
    return replace(pocket(), data="pocket-object")


def _paper(data: str, samples: int | None) -> Settings:
    """Appendix Q: 8 GPUs and 8 accumulated samples each make 64 a step.

    The paper gives no λ. An untuned generator's ITM logits spread about ten times as far as its
    ITC cosines, so λ of 1 and 0.1 let both rewards pull about as hard; only their ratio counts,
    for AdamW does not see the loss's scale.
    """
    return Settings(data=data, samples=samples)


def paper_vqa() -> Settings:
    """VQAv2 and GQA, for MME."""
    return _paper("vqav2+gqa", 400_000)


def paper_hoi() -> Settings:
    """Bongard-HOI's training split (a local copy: --data)."""
    return _paper("bongard-hoi", None)


def paper_object() -> Settings:
    """ImageNet's training split, for ImageNet and its variants."""
    return _paper("imagenet", 400_000)


def released() -> Settings:
    """The hyper-parameters of the authors' code, without its bugs.

    Softmaxed matching, accumulation 16, dropout, the loss times 100, more rewards at their
    weights. PickScore and the CLIP come from the hub; HPSv2 and aesthetics are published as
    pickles, and join once they are converted (``--set rewards.aesthetic=1
    --set reward_weights.aesthetic=FOLDER``).
    """
    return replace(
        _paper("vqav2+gqa", 400_000),
        rewards={"global": 1.0, "match_probability": 1.0, "clip_image": 0.5, "pickscore": 1.0},
        lora_dropout=0.1,
        loss_scale=100.0,
        batch_size=128,
    )


RECIPES: dict[str, Callable[[], Settings]] = {
    "pocket": pocket,
    "pocket-hoi": pocket_hoi,
    "pocket-object": pocket_object,
    "paper-vqa": paper_vqa,
    "paper-hoi": paper_hoi,
    "paper-object": paper_object,
    "released": released,
}


def get_recipe(name: str) -> Settings:
    """The settings of a recipe.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}{choose_from(name, RECIPES)}")
    return RECIPES[name]()


# ── key=value ───────────────────────────────────────────────────────────────────────────────────


def with_changes(settings: Settings, changes: Iterable[str]) -> Settings:
    """Settings with ``key=value`` texts applied: ``learning_rate=1e-4``, ``rewards.global=0``.

    Raises:
        UserError: a key is unknown or a value is not of its kind.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"--set {shown(change)} has no '=': write key=value")
        name, _, part = key.strip().partition(".")
        if name not in _HINTS or (part and name not in _MAPPINGS):
            raise UserError(f"there is no setting {shown(key)}{choose_from(name, sorted(_HINTS))}")
        if part:
            old = values.get(name, getattr(settings, name))
            values[name] = {**old, part: _converted(key, text, _MAPPINGS[name])}
        else:
            values[name] = _converted(key, text, _PLAIN_HINTS[name])
    return replace(settings, **values)


_PLAIN_HINTS = get_type_hints(Settings)
_MAPPINGS: dict[str, Any] = {"rewards": float, "reward_weights": str}


def _converted(key: str, text: str, hint: Any) -> Any:
    """The text as a value of the setting's type."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    optional = type(None) in typing.get_args(hint)
    if optional and text.lower() in ("none", ""):
        return None
    kind = kinds[0] if optional else hint
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if key in _MAPPINGS:
            return _mapping(text, _MAPPINGS[key])
        return tuple(part for part in text.split(",") if part)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise UserError(f"--set {key}={shown(text)}: that is no {name}") from error


def _mapping(text: str, kind: Callable[[Any], Any]) -> dict[str, Any]:
    """``{"global": 1}`` or ``global:1,fine_grained:0.1``."""
    if text.startswith("{"):
        return {name: kind(value) for name, value in json.loads(text).items()}
    pairs = (part.partition(":") for part in text.split(",") if part)
    return {name: kind(value) for name, _, value in pairs}


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON."""
    return json.loads(
        json.dumps({f.name: _plain(getattr(settings, f.name)) for f in fields(settings)})
    )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
