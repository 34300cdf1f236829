"""The reader: a small network of its own that reads count, shape, colour, filling, scene, relation.

It judges pictures and trains nothing. It has its own tower and has seen no generated picture, so
what it says of a generator owes nothing to that generator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image, Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import read_json
from hb_tta.weights import Weights

from .edition import FILLINGS, PLAIN
from .reading import Reading, both_ways
from .world import BACKGROUNDS, COLOURS, MAX_THINGS, RELATIONS, SHAPES, SIZE, Group

# What is read: one choice a head, but for "relation", whose seven values each hold or do not.
# Of two shapes the relation is told from the earlier one in SHAPES; "inside" from the later one.
HEADS = {
    "background": len(BACKGROUNDS),
    **{f"count_{shape}": MAX_THINGS + 1 for shape in SHAPES},
    **{f"colour_{shape}": len(COLOURS) + 1 for shape in SHAPES},  # 0: the shape is not there
    "relation": len(RELATIONS),
}
# Of the third family on: a generator may draw more things than the world does, and a reader that
# knows no larger number calls five four.
MOST_READ = 6
COUNT_HEADS = {f"count_{shape}": MOST_READ + 1 for shape in SHAPES}
# Of the third family on. A reader without these heads takes every filling for plain.
FILLING_HEADS = {f"filling_{shape}": len(FILLINGS) + 1 for shape in SHAPES}
BATCH = 64


class Reader(nn.Module):
    """A residual convolutional tower with one head an attribute.

    Args:
        widths: channels at 16×16 and at 8×8.
        hidden: width of the layer that the heads share.
        heads: the number of values of every head, by name.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96),
        hidden: int = 256,
        heads: Mapping[str, int] = HEADS,
    ):
        super().__init__()
        self.config = {"widths": list(widths), "hidden": hidden, "heads": dict(heads)}
        fine, coarse = widths
        self.tower = nn.Sequential(
            _convolution(3, fine // 2, stride=2),
            _convolution(fine // 2, fine, stride=2),
            _Residual(fine),
            _convolution(fine, coarse, stride=2),
            _Residual(coarse),
            _Residual(coarse),
        )
        self.places = nn.Conv2d(coarse, 16, 1)
        self.shared = nn.Sequential(
            nn.Linear(2 * coarse + 16 * (SIZE // 8) ** 2, hidden), nn.GELU(), nn.LayerNorm(hidden)
        )
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, n) for name, n in heads.items()})

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str] | Weights) -> Self:
        """A finished reader, in fp32 and eval mode, from a folder or a hub id.

        Raises:
            UserError: the weights are missing or damaged.
        """
        weights = source if isinstance(source, Weights) else Weights(fspath(source))
        folder = Path(weights.local_folder())
        try:
            reader = cls(**read_json(folder / "config.json"))
            reader.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{str(folder)!r} holds no reader: {error}") from error
        return reader.eval()

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors``, the weights as they are."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_aside(Path(folder) / "config.json", json.dumps(self.config).encode())
        write_aside(Path(folder) / "model.safetensors", save(tensors, {"format": "pt"}))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, channels, 8, 8) of pixels (N, 3, 64, 64) in [-1, 1]."""
        return self.tower(pixels)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every head, (N, size), for pixels (N, 3, 64, 64) in [-1, 1]."""
        return self.read_features(self.features(pixels))

    def read_features(self, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every head for feature maps (N, channels, 8, 8)."""
        pooled = [maps.mean((2, 3)), maps.amax((2, 3)), self.places(maps).flatten(1)]
        shared = self.shared(torch.cat(pooled, 1))
        return {name: head(shared) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Sequence[Image] | np.ndarray) -> list[Reading]:
        """Read pictures.

        Args:
            images: PIL images (of any size: they are resized), or uint8 (N, 64, 64, 3).
        """
        assert not self.training, "a reader judges in eval mode, in which from_pretrained gives it"
        pictures = images if isinstance(images, np.ndarray) else _stack(images)
        device = next(self.parameters()).device
        readings: list[Reading] = []
        for start in range(0, len(pictures), BATCH):
            batch = torch.from_numpy(pictures[start : start + BATCH]).to(device)
            logits = self(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
            readings += _readings(logits)
        return readings


def _convolution(width: int, out: int, *, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two convolutions around which the input passes unchanged."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            _convolution(width, width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.relu(maps + self.body(maps))


def _stack(images: Sequence[Image]) -> np.ndarray:
    size = (SIZE, SIZE)
    rgb = [image.convert("RGB") for image in images]
    same = [i if i.size == size else i.resize(size, Resampling.LANCZOS) for i in rgb]
    return np.stack([np.asarray(image) for image in same]) if same else np.zeros((0, SIZE, SIZE, 3))


def _readings(logits: dict[str, torch.Tensor]) -> list[Reading]:
    """Logits of every head, (N, size), as readings."""
    chances = {
        name: (values.sigmoid() if name == "relation" else values.softmax(-1)).cpu().numpy()
        for name, values in logits.items()
    }
    rows = len(chances["background"])
    return [_reading({k: v[row] for k, v in chances.items()}) for row in range(rows)]


def _reading(chances: dict[str, np.ndarray]) -> Reading:
    """One picture's probabilities as a reading; the heads' confidences are multiplied."""
    sure = float(chances["background"].max())
    groups = []
    for shape in SHAPES:
        counts, colours = chances[f"count_{shape}"], chances[f"colour_{shape}"][1:]
        sure *= float(counts.max())
        if count := int(counts.argmax()):
            sure *= float(colours.max() / colours.sum())
            colour, filling = tuple(COLOURS)[int(colours.argmax())], PLAIN
            if f"filling_{shape}" in chances:
                fillings = chances[f"filling_{shape}"][1:]
                sure *= float(fillings.max() / fillings.sum())
                filling = FILLINGS[int(fillings.argmax())]
            groups.append(Group(shape, colour, count, filling))
    triples: set[tuple[int, str, int]] = set()
    if len(groups) == 2:
        held = chances["relation"]
        sure *= float(np.maximum(held, 1 - held).prod())
        for name, chance in zip(RELATIONS, held, strict=True):
            if chance > 0.5:
                triples.add((1, name, 0) if name == "inside" else (0, name, 1))
    background = tuple(BACKGROUNDS)[int(chances["background"].argmax())]
    return Reading(background, tuple(groups), both_ways(triples), sure)
