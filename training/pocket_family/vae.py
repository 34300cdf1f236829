"""Stage ``vae``: a KL autoencoder with factor 8, as SDXL's, and 8 latent channels.

Encoder and decoder learn together, first on crops; then the encoder is frozen, so that the
denoiser may start, and the decoder alone learns to be crisp under a little latent noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import Run, dev_scenes, training_scenes

LATENT_NOISE = 0.06  # of each channel's standard deviation: what the denoiser leaves


def train_encoder(run: Run) -> AutoencoderKL:
    """Train encoder and decoder together; the latents' statistics go into the config."""
    torch.manual_seed(run.seed)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
    ).to(run.device)
    scenes, dev = training_scenes(run), dev_scenes(run, 256)
    steps = run.steps(3600)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        full = step >= 0.85 * steps
        pixels = scenes.pixels(draws.rows(len(scenes), 16 if full else 48), run.device)
        if not full:
            top, left = draws.numpy.integers(0, 33, 2)
            pixels = pixels[:, :, top : top + 32, left : left + 32]
        posterior = vae.encode(pixels).latent_dist
        noise = draws.normal(*posterior.mean.shape, device=run.device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return _reconstruction(decoded, pixels) + 1e-3 * kl

    optimize(
        run, "vae_encoder", {"vae": vae}, loss, steps=steps, lr=2e-3,
        evaluate=lambda: {"psnr": psnr(vae, dev.pixels(slice(None), run.device))},
    )  # fmt: skip
    vae.eval()
    means = torch.cat(
        [encode(vae, scenes.pixels(slice(i, i + 64), run.device)) for i in range(0, 2048, 64)]
    )
    vae.register_to_config(
        latents_mean=means.mean((0, 2, 3)).tolist(), latents_std=means.std((0, 2, 3)).tolist()
    )
    vae.save_pretrained(run.work / "vae_encoder")
    return vae


def train_decoder(run: Run) -> AutoencoderKL:
    """Train the decoder alone, on noisy latents of the frozen encoder; save the finished VAE."""
    vae = AutoencoderKL.from_pretrained(run.work / "vae_encoder").to(run.device)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    scenes, dev = training_scenes(run), dev_scenes(run, 256)
    std = torch.tensor(vae.config.latents_std, device=run.device).view(1, -1, 1, 1)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        pixels = scenes.pixels(draws.rows(len(scenes), 16), run.device)
        with torch.no_grad():
            latents = encode(vae, pixels)
        noise = draws.normal(*latents.shape, device=run.device)
        return _reconstruction(vae.decode(latents + LATENT_NOISE * std * noise).sample, pixels)

    optimize(
        run, "vae_decoder", {"vae": vae}, loss, steps=run.steps(1600), lr=1e-3, ema=0.995,
        evaluate=lambda: {"psnr": psnr(vae, dev.pixels(slice(None), run.device))},
    )  # fmt: skip
    vae.eval().half().save_pretrained(run.weights / "generator" / "vae")
    return vae


def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Mean latents (N, 8, 8, 8), not normalised, of pixels (N, 3, 64, 64) in [-1, 1]."""
    with torch.no_grad():
        return vae.encode(pixels).latent_dist.mean


def psnr(vae: AutoencoderKL, pixels: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of round trips in dB, the mean over images."""
    errors = []
    with torch.no_grad():
        for batch in pixels.split(64):
            decoded = vae.decode(encode(vae, batch)).sample.clamp(-1, 1)
            errors.append(((decoded - batch) / 2).square().mean((1, 2, 3)))
    return float((-10 * torch.cat(errors).log10()).mean())


def _reconstruction(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(decoded, pixels) + 2 * F.mse_loss(decoded, pixels)
