"""Watching a training: each step and each evaluation is logged, shown and, if it is best, kept."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hb_tta.training.pictures import write_curve
from hb_tta.training.progress import Bar, Console, figures
from hb_tta.training.run import RunFolder
from hb_tta.training.settings import Common
from hb_tta.training.steps import Step
from hb_tta.training.stopping import is_best
from hb_tta.training.trained import Held, Trained


class Watch:
    """Writes what happens into the run's folder, the trackers and the terminal.

    Every process evaluates its share; only the main one writes.
    """

    def __init__(
        self,
        settings: Common,
        run: RunFolder,
        trained: Trained,
        accelerator: Accelerator,
        console: Console,
    ) -> None:
        self._settings, self._run, self._accelerator = settings, run, accelerator
        self._trained, self._console = trained, console

    def evaluate(self, step: int) -> None:
        """Has the held-out samples judged after a step, and keeps the weights if they are best."""
        held, tensors = self._trained.evaluate(), self._trained.tensors()
        if not self._accelerator.is_main_process:
            return
        spread = {} if held.diversity is None else {"diversity": held.diversity}
        row = {"step": step, "held_out": held.figures, **spread}
        best = is_best(row, self._run.evaluations(), self._trained.score)
        self._run.log(row)
        self._show(step, held, spread)
        if best and step:
            self._trained.write(tensors, self._run.folder / "best")
        self._console.say(f"step {step}: held-out {figures(held.figures | spread)}")

    def _show(self, step: int, held: Held, spread: dict[str, float]) -> None:
        told = held.figures | spread
        self._accelerator.log({f"held_out/{n}": v for n, v in told.items()}, step=step)
        self._trained.draw(step, held)

    def log(self, step: int, did: Step, skipped: int, started: float, bar: Bar) -> None:
        """A step's figures.

        Args:
            skipped: steps skipped so far.
            started: by ``time.perf_counter``.
        """
        if not self._accelerator.is_main_process:
            return
        seconds = time.perf_counter() - started
        row = {
            "step": step, **(did.means if did.finite else {}),
            "gradient_norm": did.gradient_norm if did.finite else None,
            **did.noted, "skipped": skipped,
            "seconds": round(seconds, 4),
            "images_per_second": round(self._settings.batch_size / seconds, 4),
            "memory_gib": round(_peak_gib(self._accelerator.device), 3),
        }  # fmt: skip
        self._run.log(row)
        self._accelerator.log(
            {f"train/{n}": v for n, v in row.items() if v is not None and n != "step"}, step=step
        )
        bar.update(row)

    def draw_curve(self) -> Path | None:
        """The run's convergence, at its end: where it was drawn."""
        if not self._accelerator.is_main_process:
            return None
        path: Path = self._run.folder / "convergence.png"
        if write_curve(path, self._run.metrics, self._trained.curves):
            return path
        self._console.say(f"no {path.name}: pip install 'hb-tta[train]' for matplotlib")
        path.unlink(missing_ok=True)  # of an earlier part of the run
        return None


def summary(
    run: RunFolder,
    step: int,
    ended: str | None,
    skipped: int,
    trained: Trained,
    curve: Path | None,
) -> dict[str, Any]:
    """What ``train`` returns."""
    evaluations = run.evaluations()
    return {
        "step": step,
        "ended": ended or "max_steps",
        "skipped": skipped,
        "bad_records": len(trained.bad),
        "first": evaluations[0] if evaluations else None,
        "last": evaluations[-1] if evaluations else None,
        "out": str(run.folder),
        "curve": None if curve is None else str(curve),
    }


def _peak_gib(device: torch.device) -> float:
    """Of the accelerator; without one, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
