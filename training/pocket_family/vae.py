"""Stage ``vae``: a KL autoencoder with factor 8, as SDXL's, and 8 latent channels.

Encoder and decoder learn together, at first nearly free to say what they like (34 dB, 1,100 nats
an image), then under a pressure that leaves the latents what matters (about 300 nats): on the free
latents a denoiser did not learn to place and colour things. Then the encoder is frozen, and the
decoder alone learns to be crisp under a little latent noise.

Where the run starts from an earlier family, its autoencoder learns what is new to it, while the
latents of what it knew, plain things, are held where they were: the denoiser can go on from there.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from hb_tta.pocket.edition import PLAIN
from hb_tta.pocket.world import Scene
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, dev_scenes, training_scenes

LATENT_NOISE = 0.1  # what the denoiser leaves; the latents' deviation is 1
WORN = 0.2  # the share of worn pictures: a view's reference may be encoded too
GO_ON_STEPS, LONGER_STEPS, DECODER_STEPS = 1800, 3500, 1600
HELD_WEIGHT = 0.05


def train_encoder(run: RecipeRun) -> AutoencoderKL:
    """Train encoder and decoder together and normalise the latents."""
    torch.manual_seed(run.seed)
    vae = _go_on(run) if run.start else _from_nothing(run)
    vae.save_pretrained(run.work / "vae_encoder")
    return vae


def build_vae() -> AutoencoderKL:
    """The untrained autoencoder: 1.65 million parameters."""
    return AutoencoderKL(
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
    )


def _from_nothing(run: RecipeRun) -> AutoencoderKL:
    vae = build_vae().to(run.device)
    _train_both(run, "vae_encoder", vae, steps=run.steps(3600), lr=2e-3, pressure=1e-3)
    mean, std, _ = _latent_statistics(run, vae)
    normalise_latents(vae, mean, std)
    _train_both(run, "vae_pressure", vae, steps=run.steps(1000), lr=1.5e-3, pressure=0.05)
    mean, std, said = _latent_statistics(run, vae)
    # What the latents say, their means, is a part of their spread; it is what is to be denoised.
    normalise_latents(vae, mean, std * said)
    return vae


def _go_on(run: RecipeRun) -> AutoencoderKL:
    """The earlier family's, with plain things held: their latents keep place and scale."""
    assert run.start is not None
    folder = run.start / "generator" / "vae"
    vae, before = (
        AutoencoderKL.from_pretrained(folder, dtype=torch.float32).to(run.device) for _ in range(2)
    )
    before.requires_grad_(False).eval()
    _train_both(
        run, "vae_encoder", vae, steps=run.steps(GO_ON_STEPS), lr=1e-3, pressure=0.02, held=before
    )
    before.load_state_dict(vae.state_dict())
    _train_both(
        run, "vae_longer", vae, steps=run.steps(LONGER_STEPS), lr=1e-3, pressure=0.005,
        held=before, ema=0.998, mixed=True,
    )  # fmt: skip
    return vae


def _train_both(
    run: RecipeRun,
    stage: str,
    vae: AutoencoderKL,
    *,
    steps: int,
    lr: float,
    pressure: float,
    held: AutoencoderKL | None = None,
    ema: float | None = None,
    mixed: bool = False,
) -> None:
    """Encoder and decoder, on crops, then (the last 15 %) on full images.

    Args:
        pressure: weight of the KL divergence, a mean over the latents' entries.
        held: an earlier autoencoder, near whose latents those of plain things are to stay.
    """
    scenes, dev = training_scenes(run, everything=True), dev_scenes(run, 256, held_out=None)
    plain = np.array([_is_plain(scene) for scene in scenes.records])

    def loss(draws: Draws, step: int) -> torch.Tensor:
        full = step >= 0.85 * steps or (mixed and step % 4 == 0)
        rows = draws.rows(len(scenes), 16 if full else 48)
        pixels = scenes.pixels(rows, run.device, worn=WORN, rng=draws.numpy)
        if not full:
            top, left = draws.numpy.integers(0, 33, 2)
            pixels = pixels[:, :, top : top + 32, left : left + 32]
        with run.low_precision():
            mean, logvar = vae.encode(pixels).latent_dist.parameters.float().chunk(2, dim=1)
            logvar = logvar.clamp(-30, 20)
            noise = draws.normal(*mean.shape, device=run.device)
            decoded = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total = _reconstruction(decoded, pixels, by_contrast=mixed) + pressure * kl
        if held is not None and plain[rows].any():
            same = torch.from_numpy(plain[rows])
            drift = F.mse_loss(mean[same], encode(held, pixels[same]))
            total = total + HELD_WEIGHT * drift
        return total

    optimize(
        run, stage, {"vae": vae}, loss, steps=steps, lr=lr, ema=ema,
        evaluate=lambda: {"psnr": psnr(vae, dev.pixels(slice(None), run.device))},
    )  # fmt: skip


def _is_plain(scene: Scene) -> bool:
    return all(group.filling == PLAIN for group in scene.groups)


@torch.no_grad()
def _latent_statistics(
    run: RecipeRun, vae: AutoencoderKL
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the posterior: mean and deviation of every channel, and the share of the means.

    Returns:
        mean, std: (C,). said: a scalar, the root mean square over channels of the means' deviation
        in units of ``std``.
    """
    scenes = training_scenes(run, everything=True)
    posteriors = [
        vae.encode(scenes.pixels(slice(i, i + 64), run.device)).latent_dist
        for i in range(0, min(len(scenes), 2048), 64)
    ]
    means = torch.cat([posterior.mean for posterior in posteriors])
    noise = torch.cat([posterior.var for posterior in posteriors]).mean((0, 2, 3))
    # Channels that say little are nearly all noise: by their means alone it would be blown up.
    variance = means.var((0, 2, 3)) + noise
    said = (means.var((0, 2, 3)) / variance).mean().sqrt()
    return means.mean((0, 2, 3)), variance.sqrt(), said


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Make every channel's posterior of mean 0 and deviation 1, folding both into 1×1 convolutions.

    The config's ``latents_mean`` would say the same, but the stock SDXL pipeline reads it for
    four channels only.

    Args:
        mean, std: of each channel: (C,).
    """
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)  # the means' rows; the log-variances' follow
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std.view(1, -1, 1, 1)


def train_decoder(run: RecipeRun) -> AutoencoderKL:
    """Train the decoder alone, on noisy latents of the frozen encoder; save the finished VAE."""
    vae = AutoencoderKL.from_pretrained(run.work / "vae_encoder", dtype=torch.float32).to(
        run.device
    )
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    scenes, dev = training_scenes(run, everything=True), dev_scenes(run, 256, held_out=None)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 16)
        pixels = scenes.pixels(rows, run.device, worn=WORN / 2, rng=draws.numpy)
        with torch.no_grad():
            latents = encode(vae, pixels)
        noise = draws.normal(*latents.shape, device=run.device)
        with run.low_precision():
            decoded = vae.decode(latents + LATENT_NOISE * noise).sample
        return _reconstruction(decoded.float(), pixels, by_contrast=True)

    optimize(
        run, "vae_decoder", {"vae": vae}, loss, steps=run.steps(DECODER_STEPS), lr=1e-3, ema=0.995,
        evaluate=lambda: {"psnr": psnr(vae, dev.pixels(slice(None), run.device))},
    )  # fmt: skip
    vae.eval().half().save_pretrained(run.weights / "generator" / "vae")
    return vae


def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Mean latents (N, 8, 8, 8) of pixels (N, 3, 64, 64) in [-1, 1]."""
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


def _reconstruction(
    decoded: torch.Tensor, pixels: torch.Tensor, *, by_contrast: bool = False
) -> torch.Tensor:
    """Mean error; ``by_contrast``: up to five times as heavy where the picture has edges."""
    if not by_contrast:
        return F.l1_loss(decoded, pixels) + 2 * F.mse_loss(decoded, pixels)
    spread = F.max_pool2d(pixels, 3, 1, 1) + F.max_pool2d(-pixels, 3, 1, 1)
    weight = 1 + 2 * spread.amax(1, keepdim=True)
    error = (decoded - pixels).abs()
    return (weight * (error + 2 * error.square())).mean() / weight.mean()
