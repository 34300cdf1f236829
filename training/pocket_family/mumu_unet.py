"""Stage ``mumu_unet``: MUMU's denoising goes on in large batches, until it draws what crops show.

What the recipe leaves short are the fillings: no text encoder ever named one, so the UNet's LoRA
and the connector must learn them from the crops alone, as the generator learnt them from the image
embedding, and that took it 14,000 steps of 256. No crop is altered: with the paper's 20 % of
altered ones 57 % of fillings are drawn, without 86 (docs/results/mumu.md). The VLM is frozen and
has read every prompt beforehand; what is left of a step fits into a CUDA graph.

Shape suffixes: B prompts, L tokens, D the VLM's width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hb_tta.datasets.pocket import TRAINING_SEED
from hb_tta.generators.mumu.encoder import Encoder
from hb_tta.generators.mumu.generator import pooled_zeros
from hb_tta.pocket.boxes import word_boxes
from hb_tta.pocket.captions import draw_caption
from hb_tta.pocket.world import SIZE, Scene, render_batch, sample_scenes
from hb_tta.pocket.worn import TRAINED, Picture, wear
from hb_tta.training.mumu.data import Captioned, told
from hb_tta.training.mumu.models import family_of, load
from hb_tta.training.mumu.prompts import draw_prompt
from hb_tta.training.mumu.recipes import MumuSettings
from hb_tta.training.mumu.states import padded
from hb_tta.training.pocket_family.mumu import recipe_settings, ship
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, to_pixels
from hb_tta.training.pocket_family.unet import draw_timesteps, graphed, noised, scheduler
from hb_tta.training.pocket_family.vae import encode

STEPS, EVALUATIONS = 8_000, 4
ROWS, HELD_OUT = 48_000, 512
BATCH = 64
CHUNK = 64  # prompts that are read together
FORMED = 0.5  # of the captions: in a form that describers write; the others say everything
WORN = 0.25  # of the pictures that crops are cut of; the target is the clean one
STILL = ("blur", "noise", "occlusion")  # wear that leaves things where they are
FOLDER = "mumu_unet"


def train_mumu_unet(run: RecipeRun) -> None:
    """Train the connector and the UNet's LoRA on, and write ``weights/mumu``."""
    settings = replace(
        recipe_settings(run), align_steps=0, augmented_share=0.0, start=str(run.work / "mumu")
    )
    models = load(settings, family_of(settings), torch.device(run.device))
    models.encoder.requires_grad_(False)
    data, size = _TrainingSet(run, settings, models.encoder, models.pipe.vae), run.batches * BATCH
    models.unet.set_attn_processor(AttnProcessor())
    denoiser = _Denoiser(models.connector, models.unet)
    call: Any = graphed(denoiser, data.like(size)) if run.device == "cuda" else denoiser
    alphas, steps = scheduler().alphas_cumprod.to(run.device), run.steps(STEPS)

    def loss(draws: Draws, rows: np.ndarray, network: Any) -> Tensor:
        latents, states, mask = data.rows(rows)
        noise = draws.normal(*latents.shape, device=run.device)
        timesteps = draw_timesteps(draws, len(latents)).to(run.device)
        said = torch.from_numpy(draws.numpy.random(len(rows)) >= settings.drop_share)
        noisy, target = noised(latents, noise, alphas[timesteps])
        drawn = network(noisy, timesteps, states, mask, said.to(run.device))
        return F.mse_loss(drawn, target)

    def held_out() -> dict[str, float]:
        denoiser.eval()  # the graph is of training alone, and of whole batches
        losses = [
            loss(Draws(0, "held out", number), rows, denoiser).item()
            for number, rows in enumerate(data.held_out(size))
        ]
        denoiser.train()
        return {"held_out": float(np.mean(losses))}

    optimize(
        run, FOLDER, {"connector": models.connector, "unet": models.unet},
        lambda draws, _: loss(draws, draws.rows(data.size, size), call),
        steps=steps, lr=1e-3, ema=0.999,
        evaluate=held_out, evaluate_every=max(1, steps // EVALUATIONS),
    )  # fmt: skip
    models.write(models.tensors(), run.work / FOLDER, settings)
    ship(run, FOLDER)


class _Denoiser(nn.Module):
    """Connector and UNet as a function of tensors alone, in bfloat16.

    (B, 8, 8, 8) noisy latents, (B,) times, (B, L, D) states, (B, L) mask, (B,) whether anything is
    said → (B, 8, 8, 8).
    """

    time_ids: Tensor
    pooled: Tensor

    def __init__(self, connector: nn.Module, unet: Any) -> None:
        super().__init__()
        self.connector, self.unet = connector, unet
        time_ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], device=unet.device).float()
        self.register_buffer("time_ids", time_ids)
        self.register_buffer("pooled", pooled_zeros(unet, time_ids)[None])

    def forward(
        self, noisy: Tensor, timesteps: Tensor, states: Tensor, mask: Tensor, said: Tensor
    ) -> Tensor:
        size = len(noisy)
        added = {
            "text_embeds": self.pooled.expand(size, -1),
            "time_ids": self.time_ids.expand(size, -1),
        }
        with torch.autocast(noisy.device.type, torch.bfloat16, cache_enabled=False):
            context = self.connector(states.float(), mask) * said[:, None, None]
            return self.unet(
                noisy, timesteps, context, encoder_attention_mask=mask, added_cond_kwargs=added
            ).sample.float()


class _TrainingSet:
    """Latents, and what the frozen VLM says of one prompt of each, on the device.

    Attributes:
        size: rows to train on; ``HELD_OUT`` more stand behind them.
    """

    def __init__(self, run: RecipeRun, settings: MumuSettings, encoder: Encoder, vae: Any) -> None:
        rows = run.examples(ROWS)
        number = rows + run.examples(HELD_OUT, least=8)
        prompts = _Prompts(settings, encoder, number, run.seed)
        latents, states = [], []
        for inputs, pixels in prompts.read():
            with torch.no_grad():
                latents.append(encode(vae, pixels.to(run.device)))  # in [-1, 1]
                said = encoder(**{name: it.to(run.device) for name, it in inputs.items()}).half()
            counts = inputs["attention_mask"].sum(1)
            states += [row[:count] for row, count in zip(said, counts.tolist(), strict=True)]
        self._latents, self.size = torch.cat(latents), rows
        self._states_BLD, self._mask_BL = padded(states)

    def rows(self, numbers: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, states and mask of rows."""
        rows = torch.from_numpy(numbers).to(self._latents.device)
        return self._latents[rows], self._states_BLD[rows], self._mask_BL[rows]

    def held_out(self, size: int) -> list[np.ndarray]:
        """The held-out rows in batches."""
        rows = np.arange(self.size, len(self._latents))
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def like(self, size: int) -> tuple[Tensor, ...]:
        """What the denoiser is given, as far as a graph asks."""
        latents, states, mask = self.rows(np.zeros(size, int))
        times = torch.zeros(size, dtype=torch.long, device=latents.device)
        return latents, times, states, mask, torch.ones_like(times, dtype=torch.bool)


class _Prompts(Dataset):
    """Prompts as the encoder takes them, and their targets' pixels, ``CHUNK`` by ``CHUNK``."""

    def __init__(self, settings: MumuSettings, encoder: Encoder, rows: int, seed: int) -> None:
        self._settings, self._encoder, self._seed = settings, encoder, seed
        self._scenes = list(islice(sample_scenes(TRAINING_SEED), rows))

    def read(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """All chunks in order; several processes draw and tokenise."""
        workers = min(16, os.cpu_count() or 1) if len(self._scenes) > 10 * CHUNK else 0
        yield from DataLoader(self, batch_size=None, num_workers=workers)

    def __len__(self) -> int:
        return -(-len(self._scenes) // CHUNK)

    def __getitem__(self, chunk: int) -> tuple[dict[str, Tensor], Tensor]:
        rng = np.random.default_rng([self._seed, chunk, 11])
        scenes = self._scenes[chunk * CHUNK : (chunk + 1) * CHUNK]
        pictures = render_batch(scenes)
        prompts = [
            draw_prompt(_row(*its, rng), self._settings, {}, rng).prompt
            for its in zip(scenes, pictures, strict=True)
        ]
        return self._encoder.inputs(prompts, self._settings.tokens), to_pixels(pictures)


def _row(scene: Scene, picture: Picture, rng: np.random.Generator) -> Captioned:
    """A caption, full or in a form that describers write, and the picture that crops are cut of."""
    if rng.random() < FORMED:
        text = draw_caption(scene, rng)[1]
        row = Captioned(scene, text, word_boxes(scene, text, rng))
    else:
        row = told(scene, rng)
    if rng.random() < WORN:
        picture = wear(picture, str(rng.choice(STILL)), int(rng.choice(TRAINED)), rng)
    return replace(row, image=Image.fromarray(picture))
