"""Features of images for distances between them and between sets of them (tables 4 and 9).

Each is a module that torchmetrics takes as ``feature=``: pixels in, a row of numbers an image out.

Shape suffixes: B images, C channels, H height, W width, D feature dimensions.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from hb_tta.device import default_device
from hb_tta.errors import UserError
from hb_tta.families import Family
from hb_tta.images import load_image
from hb_tta.rewards.clip import CLIPReward
from hb_tta.rewards.pixels import pixels_of

INCEPTION_SIDE = 299
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names it


class Features(nn.Module):
    """A frozen image model.

    Args:
        model: pixels (B, 3, side, side) in [0, 1] → (B, D).
        side: of the pictures it takes.
        width: D.
    """

    def __init__(self, model: Any, side: int, width: int, device: str | None = None) -> None:
        super().__init__()
        self._model, self.side, self.num_features = model, side, width
        self._device = device or default_device()

    @torch.no_grad()
    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, D), unnormalised."""
        return self._model(pixels_BCHW.to(self._device))

    def of(self, images: Sequence[Any], batch_size: int = 64) -> np.ndarray:
        """The features of images or image files, (N, D) in float64."""
        rows = []
        for first in range(0, len(images), batch_size):
            read: list[Image] = [load_image(one) for one in images[first : first + batch_size]]
            rows.append(self(pixels_of(read, self.side)).double().cpu())
        return torch.cat(rows).numpy()


class ClipFeatures(Features):
    """Embeddings of a family's CLIP; for table 4 the paper's, ViT-bigG/14 in family sdxl."""

    @classmethod
    def of_family(cls, family: Family, device: str | None = None) -> Self:
        """See ``Family.weights("clip")``."""
        device = device or default_device()
        clip = CLIPReward.from_pretrained(family.weights("clip")).to(device)
        blank = torch.zeros(1, 3, clip.size, clip.size, device=device)
        with torch.no_grad():
            width = clip.embeddings(blank).shape[-1]
        return cls(clip.embeddings, clip.size, width, device)


class InceptionFeatures(Features):
    """The pooled features of FID's own Inception, as torch-fidelity has it."""

    @classmethod
    def load(cls, device: str | None = None, weights: str | Path | None = None) -> Self:
        """Its weights from torch's own cache, or a file, of which tensors alone are read.

        Raises:
            UserError: torch-fidelity is not installed, or its weights are not on this machine.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise UserError(
                "FID's Inception needs torch-fidelity: pip install 'hb-tta[reproduce]', or use the "
                "family's CLIP"
            ) from None
        path = Path(weights or Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE))
        device = device or default_device()
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=_tensors_of(path)
        ).to(device)

        def pooled(pixels_BCHW: Tensor) -> Tensor:
            return network((pixels_BCHW * 255).round().to(torch.uint8))[0]

        return cls(pooled, INCEPTION_SIDE, 2048, device)


def _tensors_of(path: Path) -> io.BytesIO:
    """A state dict as torch-fidelity reads it, which would open any pickle."""
    if not path.is_file():
        raise UserError(
            f"the weights of FID's Inception are not at {str(path)!r}: fetch torch-fidelity's "
            f"{INCEPTION_FILE} there, or use the family's CLIP"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{str(path)!r} is no file of weights: fetch it anew") from error
    safe = io.BytesIO()
    torch.save(tensors, safe)
    safe.seek(0)
    return safe
