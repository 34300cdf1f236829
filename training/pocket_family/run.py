"""What every stage is told: where to work, from which seed, how long, on what device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hb_tta.disk import write_aside
from hb_tta.families import FAMILY_FILE
from hb_tta.pocket.edition import THIRD, Edition
from hb_tta.pocket.world import Scene, render_batch, sample_scenes
from hb_tta.pocket.worn import TRAINED, wear_some

# Streams of scenes: training, validation (plateaus, guidance), and what the card reports.
TRAIN_SEED, DEV_SEED, SEALED_SEED = 1, 2, 3


@dataclass(frozen=True)
class RecipeRun:
    """One run of the recipe.

    Attributes:
        work: checkpoints and logs; may be deleted once the weights are made.
        weights: where the finished models go, a folder a role, laid out as on the hub.
        scale: multiplies every stage's number of steps (1 is the shipped family).
        seed: every draw of every stage follows from it.
        batches: multiplies the denoisers' batches: a GPU takes four in the time of one.
        start: the weights of an earlier family, laid out as ``weights``; stages that can go on
            from them do. None: all from nothing.
    """

    work: Path
    weights: Path
    scale: float = 1.0
    seed: int = 0
    device: str = "cpu"
    save_seconds: float = 300.0
    batches: int = 1
    start: Path | None = None
    cache: dict = field(default_factory=dict, compare=False, repr=False)

    def steps(self, full: int) -> int:
        """A stage's number of steps at this run's scale (at least 2)."""
        return max(2, round(full * self.scale))

    def low_precision(self) -> torch.autocast:
        """Forward passes in bfloat16: on a CPU that has it 1.4 to 1.8 times as fast."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def examples(self, full: int, least: int = 64) -> int:
        """A number of training or evaluation examples at this run's scale."""
        return max(least, round(full * min(1.0, self.scale)))


def write_family(folder: Path) -> None:
    """What makes a family of a folder of roles: ``hb_tta.families.folder_family``."""
    text = json.dumps({"like": "pocket", "edition": "third"}, indent=2)
    write_aside(folder / FAMILY_FILE, (text + "\n").encode())


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
    """A fixed set of scenes with their pictures in memory: uint8 (N, 64, 64, 3).

    Args:
        held_out: scenes with a held-out combination; by default those without; None: both.
        edition: the world that is drawn.
    """

    def __init__(
        self, seed: int, number: int, *, held_out: bool | None = False, edition: Edition = THIRD
    ):
        stream = sample_scenes(seed, held_out=held_out, edition=edition)
        self.records: list[Scene] = [next(stream) for _ in range(number)]
        self.pictures = render_batch(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def pixels(
        self,
        rows: np.ndarray | slice,
        device: str = "cpu",
        *,
        worn: float = 0.0,
        strengths: Sequence[int] = TRAINED,
        rng: np.random.Generator | None = None,
    ) -> torch.Tensor:
        """Pictures as float (n, 3, 64, 64) in [-1, 1].

        Args:
            worn: the share of them that is worn (``hb_tta.pocket.worn``), drawn from ``rng``.
            strengths: of the wear. What answers is trained on the lesser ones alone; what judges
                and draws pictures may have seen all.
        """
        pictures = self.pictures[rows]
        if worn:
            assert rng is not None
            pictures = wear_some(pictures, rng, worn, strengths)
        return to_pixels(pictures, device)


def to_pixels(pictures: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def from_pixels(pixels: torch.Tensor) -> np.ndarray:
    """Float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    clipped = (pixels.detach().float().clamp(-1, 1) + 1) * 127.5
    return clipped.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def training_scenes(run: RecipeRun, number: int = 40_000, *, everything: bool = False) -> Scenes:
    """The training scenes, rendered once a process.

    Args:
        everything: with the combinations that are held out from what answers and describes: what
            draws and what judges pictures has seen them all, as a large generator has.
    """
    key = ("train", run.examples(number, least=256), everything)
    if key not in run.cache:
        seed = TRAIN_SEED + 1000 * run.seed
        run.cache[key] = Scenes(seed, key[1], held_out=None if everything else False)
    return run.cache[key]


def dev_scenes(run: RecipeRun, number: int = 1000, *, held_out: bool | None = False) -> Scenes:
    """Validation scenes: for every choice that is made."""
    return Scenes(DEV_SEED + 1000 * run.seed, run.examples(number, least=32), held_out=held_out)
