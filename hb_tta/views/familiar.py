"""Whether an image is like those that a family's models were made of.

A model that knows one kind of image makes something of every other, too, and nothing in it says
that it is nonsense. So a family may bring statistics of its image encoder's features over images
that it was trained on: an image that lies further from their mean than those ever do, measured by
their covariance (Mahalanobis' distance, as in Lee et al. 2018), is told before anything is made
of it. A family without them says nothing. training/image_statistics.py makes them.

The features are mean and deviation, over the patches, of the encoder's last layer. Its embedding
will not do: it was trained to tell images of its world apart, and leaves out what all of them have
in common (docs/pocket/STATISTICS.md has the figures). Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FILE = "image_statistics.safetensors"
AT_ONCE = 64  # images


@dataclass(frozen=True)
class FamiliarSpec:
    """Where the statistics are, and the encoder that they are of."""

    statistics: Weights
    image_encoder: Weights

    def load(self, device: str) -> Familiar:
        """Both, on a device.

        Raises:
            UserError: they are missing or damaged, or do not fit each other.
        """
        from hb_tta.generators.loading import load_image_encoder

        parts = load_image_encoder(self.image_encoder, "float32")
        encoder = Encoder(parts["image_encoder"].to(device).eval(), parts["feature_extractor"])
        return Familiar(encoder, *_read(self.statistics, self.image_encoder.fingerprint()))


class Encoder:
    """The features of images by a CLIP vision tower.

    Args:
        tower: transformers' own, on its device.
        preprocess: its image processor.
    """

    def __init__(self, tower: Any, preprocess: Any) -> None:
        self._tower, self._preprocess = tower, preprocess

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """(N, 2 × hidden size), float32, on the CPU."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(images), AT_ONCE):
                some = list(images[start : start + AT_ONCE])
                pixels = self._preprocess(images=some, return_tensors="pt").pixel_values
                states = self._tower(pixels.to(self._tower.device)).last_hidden_state
                patches_BPD = states[:, 1:].float()
                both = torch.cat([patches_BPD.mean(1), patches_BPD.std(1)], -1)
                found.append(both.cpu())
        return torch.cat(found)


class Familiar:
    """Tells how far images lie from those that a family was trained on.

    Attributes:
        limit: a distance that none of those reaches.
        trained_on: what they are, in words.
    """

    def __init__(
        self, encoder: Encoder, mean_D: Tensor, whitening_DD: Tensor, limit: float, trained_on: str
    ) -> None:
        self._encoder, self._mean_D, self._whitening_DD = encoder, mean_D, whitening_DD
        self.limit, self.trained_on = limit, trained_on

    def distances(self, images: Sequence[Image]) -> list[float]:
        """One an image; about 1 on average of those that the statistics are of."""
        return distances(self._encoder(images), self._mean_D, self._whitening_DD).tolist()

    def note(self, distance: float) -> str | None:
        """What is to be said of an image at that distance; ``None``: nothing."""
        if distance <= self.limit:
            return None
        return f"{self.sentence} (distance {distance:.2f}, theirs is below {self.limit:.2f})"

    @property
    def sentence(self) -> str:
        """What is said of such images in general."""
        return (
            f"an image is unlike {self.trained_on}, on which this family's models were trained: "
            "what they make of it means nothing; photographs want --family sdxl"
        )


def distances(features_ND: Tensor, mean_D: Tensor, whitening_DD: Tensor) -> Tensor:
    """Mahalanobis' distances (N), divided by the root of the number of features."""
    return ((features_ND - mean_D) @ whitening_DD.T).norm(dim=-1) / len(mean_D) ** 0.5


def _read(statistics: Weights, encoder: str) -> tuple[Tensor, Tensor, float, str]:
    from safetensors import SafetensorError, safe_open

    path = Path(statistics.local_folder()) / FILE
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            mean, whitening = (file.get_tensor(name).float() for name in ("mean", "whitening"))
            limit = float(file.get_tensor("limit"))
        if told["image_encoder"] != encoder:
            raise ValueError("they are another image encoder's")
        if whitening.shape != (len(mean), len(mean)):
            raise ValueError(f"its parts are {tuple(mean.shape)} and {tuple(whitening.shape)}")
        return mean, whitening, limit, told["trained_on"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"the image statistics in {str(path)!r} cannot be read ({error}): make them again, or "
            "leave the role empty"
        ) from error
