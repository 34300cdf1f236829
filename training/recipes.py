"""What can be set about a training on rewards, and all named recipes: functions that give settings.

A recipe names its data where it can. ``--set key=value`` changes any setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from hb_tta.errors import UserError, choose_from
from hb_tta.training.mumu.recipes import MUMU_RECIPES
from hb_tta.training.ranges import OneOf, Within
from hb_tta.training.settings import Common, to_json, with_changes

__all__ = ["FREE", "RECIPES", "Settings", "get_recipe", "to_json", "with_changes"]

MEMORY_PRESETS = ("none", "block", "step+block")
OBJECTIVES = ("rewards", "denoising")
GRADIENT_AT = ("end", "anywhere")  # the last K steps; one from each of K parts (DRTune)
PROMPTS = ("own", "task", "generic")
OPTIMIZERS = ("adamw", "sgd")


def _own_rewards() -> list[str]:
    from hb_tta.rewards.registry import REWARDS

    return list(REWARDS.built_in)


def _all_rewards() -> list[str]:
    from hb_tta.rewards import list_rewards

    return list_rewards()


_REWARDS = OneOf(_own_rewards, more=_all_rewards)  # of other packages too, a slow look


@dataclass(frozen=True)
class Settings(Common):
    """Everything that decides a training on rewards (Hummingbird, algorithm 1).

    The comments say where a default comes from.
    """

    free: ClassVar[frozenset[str]] = Common.free | {
        "evaluator", "mllm", "reward_weights", "data_format", "question_column",  # by content
        "prompt",
        "memory", "evaluate_seeds", "min_diversity",
    }  # fmt: skip
    mappings: ClassVar[Mapping[str, type]] = {"rewards": float, "reward_weights": str}

    # ── Models ──
    evaluator: str | None = None
    mllm: str | None = None
    reward_weights: Annotated[Mapping[str, str], _REWARDS] = field(
        default_factory=dict
    )  # reward → folder or hub id

    # ── Data ──
    data_format: str | None = None  # the layout of a folder; None: a file of rows lies in it
    question_column: str | None = None
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

    # ── Sampling (section 4.2, algorithm 1), in num_inference_steps (T) ──
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

    # ── Watching ──
    # Noises a held-out context: their spread is the diversity
    evaluate_seeds: Annotated[int, Within(least=1, most=1000)] = 2
    # Of the untuned generator's; below it the training stops
    min_diversity: Annotated[float, Within(least=0, most=1)] = 0.85

    def check_together(self) -> None:
        """See ``Common.check_together``."""
        if self.gradient_steps > self.num_inference_steps:
            raise UserError(
                f"gradient_steps={self.gradient_steps} is more than the "
                f"{self.num_inference_steps} steps of a sample: use at most num_inference_steps"
            )
        super().check_together()
        if self.judge in self.rewards:
            raise UserError(
                f"judge={self.judge} is a reward that is followed, which tells nothing of what it "
                "is fooled by: name another, or none"
            )
        if self.objective == "rewards" and not any(self.rewards.values()):
            raise UserError("all rewards have the weight 0: give one, as in --set rewards.global=1")

    def less_memory(self) -> str:
        """See ``Common.less_memory``."""
        stronger = MEMORY_PRESETS[MEMORY_PRESETS.index(self.memory) + 1 :]
        if self.micro_batch_size > 1:
            return super().less_memory()
        if stronger:
            return f"--set memory={stronger[0]}"
        return "a smaller gradient_steps or image_size in a new --out"


FREE = Settings.free


# ── Recipes ─────────────────────────────────────────────────────────────────────────────────────


def pocket() -> Settings:
    """The bundled family on a CPU, in ten minutes of one core."""
    return Settings(
        family="pocket",
        data="pocket",
        samples=768,
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
        learning_rate=1e-4,
        batch_size=32,
        micro_batch_size=16,
        max_steps=90,
        warmup_steps=20,
        decay_steps=90,
        save_steps=18,
        evaluate_steps=18,
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


RECIPES: dict[str, Callable[[], Common]] = {
    "pocket": pocket,
    "pocket-hoi": pocket_hoi,
    "pocket-object": pocket_object,
    "paper-vqa": paper_vqa,
    "paper-hoi": paper_hoi,
    "paper-object": paper_object,
    "released": released,
    **MUMU_RECIPES,
}


def get_recipe(name: str) -> Any:
    """The settings of a recipe: ``Settings`` of rewards, ``MumuSettings`` of MUMU.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}{choose_from(name, RECIPES)}")
    return RECIPES[name]()
