"""What every stage is told: where to work, from which seed, how long, on what device."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hb_tta.disk import write_aside
from hb_tta.pocket.world import Scene, render_batch, sample_scenes

# Streams of scenes: training, validation (plateaus, guidance), and what the card reports.
TRAIN_SEED, DEV_SEED, SEALED_SEED = 1, 2, 3


@dataclass(frozen=True)
class Run:
    """One run of the recipe.

    Attributes:
        work: checkpoints and logs; may be deleted once the weights are made.
        weights: where the finished models go, a folder a role, laid out as on the hub.
        scale: multiplies every stage's number of steps (1 is the shipped family).
        seed: every draw of every stage follows from it.
    """

    work: Path
    weights: Path
    scale: float = 1.0
    seed: int = 0
    device: str = "cpu"
    save_seconds: float = 120.0
    cache: dict = field(default_factory=dict, compare=False, repr=False)

    def steps(self, full: int) -> int:
        """A stage's number of steps at this run's scale (at least 2)."""
        return max(2, round(full * self.scale))

    def examples(self, full: int, least: int = 64) -> int:
        """A number of training or evaluation examples at this run's scale."""
        return max(least, round(full * min(1.0, self.scale)))


def forget_places(folder: Path) -> None:
    """Take the folders that models were once loaded from out of the configs that name them."""
    for path in sorted(folder.rglob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = _without_places(config)
        if kept != config:
            write_aside(path, (json.dumps(kept, indent=2) + "\n").encode())


def _without_places(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_places(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {k: _without_places(v) for k, v in config.items() if k != "_name_or_path"}


class Scenes:
    """A fixed set of scenes with their pictures in memory: uint8 (N, 64, 64, 3)."""

    def __init__(self, seed: int, number: int, *, held_out: bool = False):
        stream = sample_scenes(seed, held_out=held_out)
        self.records: list[Scene] = [next(stream) for _ in range(number)]
        self.pictures = render_batch(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def pixels(self, rows: np.ndarray | slice, device: str = "cpu") -> torch.Tensor:
        """Pictures as float (n, 3, 64, 64) in [-1, 1]."""
        return to_pixels(self.pictures[rows], device)


def to_pixels(pictures: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def from_pixels(pixels: torch.Tensor) -> np.ndarray:
    """Float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    clipped = (pixels.detach().float().clamp(-1, 1) + 1) * 127.5
    return clipped.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def training_scenes(run: Run, number: int = 60_000) -> Scenes:
    """The training scenes, rendered once a process."""
    count = run.examples(number, least=256)
    if ("train", count) not in run.cache:
        run.cache["train", count] = Scenes(TRAIN_SEED + 1000 * run.seed, count)
    return run.cache["train", count]


def dev_scenes(run: Run, number: int = 1000, *, held_out: bool = False) -> Scenes:
    """Validation scenes: for every choice that is made."""
    return Scenes(DEV_SEED + 1000 * run.seed, run.examples(number, least=32), held_out=held_out)
