"""Statistics of the images that a family was trained on, by which it knows an image it is not for.

    python -m hb_tta.training.image_statistics --family NAME --images FOLDER --out FOLDER \\
        --trained-on "aerial photographs"

writes what the family's role "statistics" reads (hb_tta/views/familiar.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors.torch import save
from torch import Tensor

from hb_tta.datasets.files import images_below
from hb_tta.device import default_device
from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators.loading import load_image_encoder
from hb_tta.images import load_image
from hb_tta.views.familiar import FILE, Encoder, distances
from hb_tta.weights import Weights

SHRINK = 0.01  # of the covariance towards a multiple of the identity: 256 features, few images
SLACK = 1.1  # above the farthest of the images that the statistics have not seen
FARTHEST = 0.999
LEAST = 500  # images: twice as many as the pocket family's encoder has features


def image_statistics(encoder: Encoder, seen: Sequence[Any], unseen: Sequence[Any]) -> dict:
    """Mean, whitening and limit.

    Args:
        encoder: whose features they are.
        seen: RGB images; mean and covariance are theirs.
        unseen: others of the same kind; the limit is theirs.
    """
    features_ND = encoder(seen).double()
    mean_D = features_ND.mean(0)
    covariance_DD = torch.cov((features_ND - mean_D).T)
    spread = covariance_DD.diagonal().mean()
    shrunk_DD = (1 - SHRINK) * covariance_DD + SHRINK * spread * torch.eye(len(mean_D)).double()
    whitening_DD = torch.linalg.inv(torch.linalg.cholesky(shrunk_DD))
    found = {"mean": mean_D.float(), "whitening": whitening_DD.float()}
    farthest = distances(encoder(unseen), found["mean"], found["whitening"]).quantile(FARTHEST)
    return {**found, "limit": SLACK * farthest}


def write_statistics(
    folder: Path, encoder: Weights, seen: Sequence[Any], unseen: Sequence[Any], trained_on: str
) -> Path:
    """The statistics' file, in a folder that is made as needed.

    Args:
        encoder: the family's image encoder.
        seen, unseen: see ``image_statistics``.
        trained_on: what the images are, in words that go behind "unlike".
    """
    parts = load_image_encoder(encoder, "float32")
    tower = parts["image_encoder"].to(default_device()).eval()
    found: dict[str, Tensor] = image_statistics(
        Encoder(tower, parts["feature_extractor"]), seen, unseen
    )
    metadata = {
        "trained_on": trained_on,
        "images": str(len(seen)),
        "image_encoder": encoder.fingerprint(),
    }
    tensors = {name: value.contiguous() for name, value in found.items()}
    write_aside(folder / FILE, save(tensors, metadata))
    return folder / FILE


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hb_tta.training.image_statistics")
    parser.add_argument("--family", required=True, help="whose image encoder is asked")
    parser.add_argument("--images", required=True, type=Path, help="a folder of training images")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument("--trained-on", required=True, help='what they are: "aerial photographs"')
    given = parser.parse_args(arguments)
    try:
        encoder = get_family(given.family).weights("image_encoder")
        images = _read(given.images)
        seen = [image for place, image in enumerate(images) if place % 4]
        print(write_statistics(given.out, encoder, seen, images[::4], given.trained_on))
    except UserError as error:
        parser.exit(1, f"{error}\n")


def _read(folder: Path) -> list[Image]:
    files = images_below(folder)
    if len(files) < LEAST:
        raise UserError(f"{folder} holds {len(files)} images: give {LEAST} or more")
    return [load_image(file) for file in files]


if __name__ == "__main__":
    main()
