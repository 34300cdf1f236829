"""Pixels as the judges' vision towers take them.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL.Image import Image


class Normalize(nn.Module):
    """(pixels - mean) / std, by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Pixels in [0, 1] as a vision tower wants them."""
        return (pixels_BCHW - self.mean.to(pixels_BCHW)) / self.std.to(pixels_BCHW)


def resized(pixels_BCHW: Tensor, side: int) -> Tensor:
    """Pixels at side × side, by the bicubic filter of the processors; differentiable."""
    if pixels_BCHW.shape[-2:] == (side, side):
        return pixels_BCHW
    return F.interpolate(
        pixels_BCHW, (side, side), mode="bicubic", antialias=True, align_corners=False
    )


def pixels_of(images: Sequence[Image], side: int) -> Tensor:
    """Images of any size as pixels (B, 3, side, side) in [0, 1]."""
    from torchvision.transforms.functional import pil_to_tensor

    rows = [pil_to_tensor(image.convert("RGB"))[None].float() / 255 for image in images]
    return torch.cat([resized(row, side).clamp(0, 1) for row in rows])
