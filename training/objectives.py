"""The two losses: rewards through the sampler (equation 6), and plain denoising, the control.

A loss gives one number a sample, so that a step's gradient is the same however its samples are
spread over micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hb_tta.rewards import Judge
from hb_tta.training.rollout import Rollout, draw_noise
from hb_tta.training.trained import Key


class Objective(Protocol):
    """What a training step minimises."""

    def __call__(
        self, batch: dict[str, Tensor], keys: Sequence[Key], gradient_steps: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,) and, detached, figures (B,) to log."""
        ...


@dataclass(frozen=True)
class RewardObjective:
    """−Σ λ·reward of the sampled images, and what holds the generator where it was.

    Attributes:
        rollout: samples.
        rewards: judge.
        weights: reward → λ.
        scale: multiplies the loss.
        seed: of the noise.
        drift_weight: of ``Rollout.sample``'s drift.
    """

    rollout: Rollout
    rewards: Sequence[Judge]
    weights: Mapping[str, float]
    scale: float
    seed: int
    drift_weight: float = 0.0

    def __call__(
        self, batch: dict[str, Tensor], keys: Sequence[Key], gradient_steps: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Objective``; the figures are all rewards that the judges give."""
        noise = noise_of(self.rollout, self.seed, keys).to(batch["prompt_embeds"].device)
        pixels, drift = self.rollout.sample(
            conditions_in(batch), noise, gradient_steps=gradient_steps,
            with_drift=self.drift_weight > 0,
        )  # fmt: skip
        scores = judge(self.rewards, pixels, batch)
        losses = self.drift_weight * drift
        for name, weight in self.weights.items():
            losses = losses - weight * scores[name]
        figures = {name: score.detach() for name, score in scores.items()}
        return self.scale * losses, figures | (
            {"drift": drift.detach()} if self.drift_weight else {}
        )


@dataclass(frozen=True)
class DenoisingObjective:
    """The squared error of the noise (or velocity) prediction on the reference images.

    The control: an equal LoRA on the loss that the generator itself was trained with. One in ten
    samples has its text, and another its image embedding, left out, as guidance needs.
    """

    rollout: Rollout
    seed: int
    drop: float = 0.1

    def __call__(
        self, batch: dict[str, Tensor], keys: Sequence[Key], gradient_steps: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Objective``."""
        rollout = self.rollout
        latents = batch["latents"].float()
        noise = noise_of(rollout, self.seed, keys).to(latents.device)
        draws = [np.random.default_rng([self.seed, *key, 1]) for key in keys]
        steps = rollout.scheduler.config.num_train_timesteps
        t_B = torch.tensor([int(d.integers(steps)) for d in draws], device=latents.device)
        noisy = rollout.scheduler.add_noise(latents, noise, t_B)
        prediction = rollout.predict(self._dropped(batch, draws), noisy, t_B)
        if rollout.scheduler.config.prediction_type == "v_prediction":
            wanted = rollout.scheduler.get_velocity(latents, noise, t_B)
        else:
            wanted = noise
        losses = (prediction.float() - wanted).square().flatten(1).mean(1)
        return losses, {"denoising_loss": losses.detach()}

    def _dropped(
        self, batch: dict[str, Tensor], draws: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        given = conditions_in(batch)
        for name in ("prompt_embeds", "pooled_prompt_embeds"):
            gone = torch.tensor([d.random() < self.drop for d in draws], device=given[name].device)
            shape = (-1,) + (1,) * (given[name].ndim - 1)
            given[name] = torch.where(gone.view(shape), given[f"negative_{name}"], given[name])
        return given


def judge(rewards: Sequence[Judge], pixels: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every reward of images, (B,)."""
    return {name: score for reward in rewards for name, score in reward(pixels, batch).items()}


def conditions_in(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sampler's part of a batch."""
    return {name: part for name, part in batch.items() if name.endswith("prompt_embeds")}


def noise_of(rollout: Rollout, seed: int, keys: Sequence[Key]) -> Tensor:
    """First noise, a row a key."""
    rows = [draw_noise(seed, epoch, [index], rollout.latent_shape) for epoch, index in keys]
    return torch.cat(rows).to(rollout.unet.dtype)
