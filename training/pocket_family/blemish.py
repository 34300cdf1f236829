"""Training pictures made slightly imperfect, as a decoder or a denoiser leaves them.

References that are worn are another matter: ``hb_tta.pocket.worn``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hb_tta.training.pocket_family.optimize import Draws

MAX_NOISE = 0.15  # of a picture in [-1, 1]; a round trip through the VAE at 30 dB leaves 0.06
MAX_BLUR = 0.9  # pixels


def blemished(pixels: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Blur and noise of random strength on two thirds of the pictures (N, 3, H, W)."""
    strengths = torch.rand(2, len(pixels), 1, 1, 1, generator=draws.torch)
    strengths = (strengths * 1.5 - 0.5).clamp(min=0).to(pixels.device)
    kernel = _gaussian(float(draws.numpy.uniform(0.3, MAX_BLUR))).to(pixels)
    with torch.autocast(pixels.device.type, enabled=False):
        edged = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
        blurred = F.conv2d(edged, kernel.expand(3, 1, 5, 5), groups=3)
    mixed = torch.lerp(pixels, blurred, strengths[0])
    noise = draws.normal(*pixels.shape, device=str(pixels.device))
    return mixed + MAX_NOISE * strengths[1] * noise


def _gaussian(sigma: float) -> torch.Tensor:
    line = torch.exp(-((torch.arange(5.0) - 2) ** 2) / (2 * sigma**2))
    line = line / line.sum()
    return line[:, None] * line
