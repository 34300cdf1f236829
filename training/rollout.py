"""DDIM sampling that gradients flow through: some of its steps, and the VAE's decoder.

Section 4.2 and algorithm 1 of Hummingbird: the last K of T steps carry gradient, the others run
without gradient, dropout or recomputation. Or, as in DRTune (Wu et al., ECCV 2024), steps anywhere
carry it: the UNet's input is then detached, and the reward reaches each of its predictions along
the scheduler's sums alone, so that early steps can be trained at the price of late ones.
Classifier-free guidance is as at inference, so what is trained is what is used. The stock UNet,
scheduler and VAE do all the work: the latents are those of the stock pipeline.

Shape suffixes: B samples, C latent channels, h w latent height and width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hb_tta.training.recipes import MEMORY_PRESETS


@dataclass(frozen=True)
class Rollout:
    """Conditions and noise in, pixels out.

    Attributes:
        unet, vae, scheduler: diffusers' own, the scheduler a ``DDIMScheduler``.
        num_inference_steps: T, at least 1.
        guidance_scale: classifier-free guidance; off at 1 or less.
        gradient_steps: the steps that carry gradient, numbered from 0 (all noise) to T - 1.
        detach: cuts the gradient at the UNet's input. Without it, the steps are the last ones.
        max_sample_gradient: the largest norm of what a sample's loss sends back into its final
            latents; a larger gradient is scaled down. ``None``: as it is.
        size: of the images in pixels; ``None``: the generator's own.
        memory: one of ``MEMORY_PRESETS``: what is recomputed in the backward pass. Nothing; every
            block of the UNet and of the VAE's decoder; besides, every sampling step as a whole.
            From the fastest to the smallest.
    """

    unet: Any
    vae: Any
    scheduler: Any
    num_inference_steps: int = 25
    guidance_scale: float = 15.0
    gradient_steps: Sequence[int] = ()
    detach: bool = False
    max_sample_gradient: float | None = None
    memory: str = "block"
    size: int | None = None

    def __post_init__(self) -> None:
        assert self.memory in MEMORY_PRESETS, self.memory
        self._check(self.gradient_steps)
        for model in (self.unet, self.vae):  # blocks look at it only where gradients are recorded
            set_block_checkpointing(model, self.memory != "none")

    def __call__(
        self,
        conditions: dict[str, Tensor],
        noise_BChw: Tensor,
        *,
        gradient_steps: Sequence[int] | None = None,
    ) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1], clamped without stopping the gradient.

        Args:
            conditions: the stock pipeline's arguments, rows of one length, see ``Conditions``.
            noise_BChw: standard normal.
            gradient_steps: others for this call.
        """
        return self.sample(conditions, noise_BChw, gradient_steps=gradient_steps)[0]

    def sample(
        self,
        conditions: dict[str, Tensor],
        noise_BChw: Tensor,
        *,
        gradient_steps: Sequence[int] | None = None,
        with_drift: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Pixels as by a plain call, and how far tuning has moved the generator, (B,).

        The drift is the mean, over the steps with gradient and the elements of their predictions,
        of the squared distance to what the UNet says there without its LoRA: what a KL penalty
        holds small (DPOK, Fan et al., NeurIPS 2023). Without ``with_drift`` it is 0.
        """
        latents, drift_B = self._trajectory(conditions, noise_BChw, gradient_steps, with_drift)
        if self.max_sample_gradient is not None and latents.requires_grad:
            latents.register_hook(partial(clip_samples, most=self.max_sample_gradient))
        return soft_clamp((self.decode(latents) + 1) / 2), drift_B

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a sample."""
        config = self.unet.config
        side = self.size // self._vae_scale if self.size else config.sample_size
        return config.in_channels, side, side

    @cached_property
    def _lora_layers(self) -> list[LoraLayer]:
        """Looked up once: SDXL has thousands of modules, and every step asks."""
        return [module for module in self.unet.modules() if isinstance(module, LoraLayer)]

    @property
    def _vae_scale(self) -> int:
        """Pixels a latent."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def predict(self, conditions: dict[str, Tensor], latents_BChw: Tensor, t_B: Tensor) -> Tensor:
        """What the UNet says of noisy latents, without guidance."""
        plain = {name: part for name, part in conditions.items() if "negative" not in name}
        inputs = self._inputs(plain, latents_BChw, guided=False)
        return self.unet(latents_BChw.to(self.unet.dtype), t_B, return_dict=False, **inputs)[0]

    def latents(
        self,
        conditions: dict[str, Tensor],
        noise_BChw: Tensor,
        *,
        gradient_steps: Sequence[int] | None = None,
    ) -> Tensor:
        """What the stock pipeline gives as ``output_type="latent"``."""
        return self._trajectory(conditions, noise_BChw, gradient_steps, with_drift=False)[0]

    def _trajectory(
        self,
        conditions: dict[str, Tensor],
        noise_BChw: Tensor,
        gradient_steps: Sequence[int] | None,
        with_drift: bool,
    ) -> tuple[Tensor, Tensor]:
        """Final latents, and the drift."""
        carried = self.gradient_steps if gradient_steps is None else gradient_steps
        self._check(carried)
        self.scheduler.set_timesteps(self.num_inference_steps, device=noise_BChw.device)
        guided = self.guidance_scale > 1
        predict = partial(self._predict, self._inputs(conditions, noise_BChw, guided=guided))
        latents = noise_BChw * self.scheduler.init_noise_sigma
        drift_B = torch.zeros(len(latents), device=latents.device)
        for place, t in enumerate(self.scheduler.timesteps):
            if place in carried:
                prediction = self._carry(predict, latents, t)
                if with_drift:
                    moved = prediction - self._untuned(predict, latents, t)
                    drift_B = drift_B + moved.float().square().flatten(1).mean(1) / len(carried)
            else:
                with torch.no_grad(), without_dropout(self._lora_layers):
                    prediction = predict(latents, t)
            stepped = self.scheduler.step(prediction, t, latents, return_dict=False)[0]
            latents = stepped.to(latents.dtype)
        return latents, drift_B

    def decode(self, latents_BChw: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), about [-1, 1], by the VAE's decoder, recomputed unless "none"."""
        latents = unscaled(self.vae.config, latents_BChw).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0].to(latents_BChw.dtype)

    def _inputs(
        self, conditions: dict[str, Tensor], noise: Tensor, *, guided: bool
    ) -> dict[str, Any]:
        """The UNet's arguments beside latents and time; the negative rows first, as stock."""
        text, pooled = conditions["prompt_embeds"], conditions["pooled_prompt_embeds"]
        if guided:
            text = torch.cat([conditions["negative_prompt_embeds"], text])
            pooled = torch.cat([conditions["negative_pooled_prompt_embeds"], pooled])
        height, width = (side * self._vae_scale for side in noise.shape[-2:])
        size = torch.tensor([[height, width, 0, 0, height, width]], dtype=text.dtype)
        return {
            "encoder_hidden_states": text,
            "added_cond_kwargs": {
                "text_embeds": pooled,
                "time_ids": size.to(noise.device).repeat(len(text), 1),
            },
        }

    def _predict(self, inputs: dict[str, Any], latents: Tensor, t: Tensor) -> Tensor:
        """What the UNet says, with guidance."""
        guided = self.guidance_scale > 1
        rows = torch.cat([latents, latents]) if guided else latents
        rows = self.scheduler.scale_model_input(rows, t)
        prediction = self.unet(rows, t, return_dict=False, **inputs)[0]
        if guided:
            negative, positive = prediction.chunk(2)
            prediction = negative + self.guidance_scale * (positive - negative)
        return prediction

    def _carry(
        self, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, t: Tensor
    ) -> Tensor:
        """The prediction of a step that carries gradient."""
        seen = latents.detach() if self.detach else latents
        if self.memory == "step+block" and torch.is_grad_enabled():
            return checkpoint(predict, seen, t, use_reentrant=False)
        return predict(seen, t)

    @torch.no_grad()
    def _untuned(
        self, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, t: Tensor
    ) -> Tensor:
        """The prediction without the LoRA."""
        with without_lora(self._lora_layers):
            return predict(latents, t)

    def _check(self, gradient_steps: Sequence[int]) -> None:
        """Without ``detach`` a gap would cut the gradient of the steps before it, unnoticed."""
        steps, total = sorted(gradient_steps), self.num_inference_steps
        assert all(0 <= step < total for step in steps), steps
        assert self.detach or steps == [*last_steps(len(steps), total)], steps


def unscaled(config: Any, latents_BChw: Tensor) -> Tensor:
    """Latents as the VAE knows them, by its configuration, as the stock pipeline does it."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    latents = latents_BChw / config.scaling_factor
    if mean is None or std is None:
        return latents
    mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return latents * std + mean


def scaled(config: Any, latents_BChw: Tensor) -> Tensor:
    """The inverse of ``unscaled``."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (latents_BChw.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        latents_BChw = (latents_BChw - mean) / std
    return latents_BChw * config.scaling_factor


def last_steps(carried: int, total: int) -> range:
    """The places of the last ``carried`` of ``total`` steps."""
    return range(total - carried, total)


def set_block_checkpointing(model: Any, on: bool) -> None:
    """Turns diffusers' recomputation of blocks on or off."""
    if on:
        recompute = partial(checkpoint, use_reentrant=False)
        model.enable_gradient_checkpointing(recompute)
    else:
        model.disable_gradient_checkpointing()


@contextmanager
def without_dropout(layers: Sequence[LoraLayer]) -> Iterator[None]:
    """A LoRA's dropout rests inside, as it does at inference.

    Outside it works where the trainer has turned it on, also while the backward pass recomputes.
    """
    working = [
        dropout for layer in layers for dropout in layer.lora_dropout.values() if dropout.training
    ]
    for dropout in working:
        dropout.eval()
    try:
        yield
    finally:
        for dropout in working:
            dropout.train()


@contextmanager
def without_lora(layers: Sequence[LoraLayer]) -> Iterator[None]:
    """The untuned UNet, inside; without its dropout too."""
    adapted = [(layer, name) for layer in layers for name in layer.lora_A]
    for layer, name in adapted:
        layer.set_scale(name, 0)
    try:
        with without_dropout(layers):
            yield
    finally:
        for layer, name in adapted:
            layer.set_scale(name, 1)


def soft_clamp(pixels: Tensor) -> Tensor:
    """Clamped to [0, 1], with the gradient of the identity.

    A plain clamp stops the gradient of every saturated pixel, and guided samples have many.
    """
    return pixels + (pixels.clamp(0, 1) - pixels).detach()


def clip_samples(gradient_BX: Tensor, most: float) -> Tensor:
    """Every row scaled down to a norm of at most ``most``.

    A judge's gradient is a hundred times the usual in single images. They would be all that a step
    follows, and clipping their mean comes too late for that.
    """
    norms = gradient_BX.flatten(1).float().norm(dim=1)
    factors = (most / norms.clamp(min=most)).to(gradient_BX.dtype)
    return gradient_BX * factors.view(-1, *[1] * (gradient_BX.ndim - 1))


def draw_noise(seed: int, epoch: int, indices: list[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, a row a sample, float32 on the CPU.

    A row depends on (seed, epoch, index) alone: not on the batch, the process or what was drawn
    before.
    """
    rows = []
    for index in indices:
        state = np.random.SeedSequence([seed, epoch, index]).generate_state(2, np.uint32)
        generator = torch.Generator("cpu").manual_seed(int(state[0]) << 32 | int(state[1]))
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows)
