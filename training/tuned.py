"""What a training on rewards changes: a LoRA of the generator's UNet, and what moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hb_tta.generators.lora import parts_of
from hb_tta.lora import Lora
from hb_tta.lora.plain import DOWN
from hb_tta.training.frozen import Frozen
from hb_tta.training.lora import add_lora, lora_parameters
from hb_tta.training.objectives import DenoisingObjective, Objective, RewardObjective
from hb_tta.training.recipes import Settings
from hb_tta.training.rollout import Rollout
from hb_tta.training.schedule import gradient_steps


@dataclass(frozen=True)
class Tuned:
    """The trained part of the generator.

    Attributes:
        unet: holds the LoRA.
        rollout: samples with it.
        objective: what a step minimises.
        parameters: the LoRA's.
        optimizer: moves them.
    """

    unet: Any
    rollout: Rollout
    objective: Objective
    parameters: list[Any]
    optimizer: torch.optim.Optimizer


def tune(settings: Settings, frozen: Frozen) -> Tuned:
    """Adds a LoRA that changes nothing yet."""
    pipe = frozen.generator.pipe
    add_lora(
        pipe.unet,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        target_modules=settings.target_modules,
        dropout=settings.lora_dropout,
        seed=settings.seed,
    )
    rollout = Rollout(
        pipe.unet, pipe.vae, pipe.scheduler, settings.num_inference_steps,
        frozen.generator.spec.guidance_scale, gradient_steps(settings, 0),
        settings.gradient_at == "anywhere", settings.max_sample_gradient, settings.memory,
        settings.image_size,
    )  # fmt: skip
    parameters = lora_parameters(pipe.unet)
    objective = _objective(settings, rollout, frozen)
    return Tuned(pipe.unet, rollout, objective, parameters, _optimizer(settings, parameters))


def lora_of(settings: Settings, tensors: dict[str, torch.Tensor]) -> Lora:
    """The LoRA of ``lora_tensors``, to be written."""
    parts = parts_of(tensors)
    alphas = {key.removesuffix(DOWN): settings.lora_alpha for key in parts if key.endswith(DOWN)}
    return Lora(parts, alphas, settings.target_modules)


def _objective(settings: Settings, rollout: Rollout, frozen: Frozen) -> Objective:
    if settings.objective == "denoising":
        return DenoisingObjective(rollout, settings.seed)
    return RewardObjective(
        rollout, frozen.judges, settings.rewards, settings.loss_scale, settings.seed,
        settings.drift_weight,
    )  # fmt: skip


def _optimizer(settings: Settings, parameters: list[Any]) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate)
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta_2),
        weight_decay=settings.weight_decay,
    )
