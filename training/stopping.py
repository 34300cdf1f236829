"""When a training ends before its last step: by its held-out figures, or by an interrupt."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator

from hb_tta.training.recipes import Settings
from hb_tta.training.trained import Trained


def total_reward(figures: dict[str, float], settings: Settings) -> float:
    """The held-out judge's figure; without one Σ λ·reward, of the control the paper's two's."""
    if settings.judge is not None:
        return figures[settings.judge]
    weights = settings.rewards if settings.objective == "rewards" else {}
    return sum(weights.get(name, 0.0) * value for name, value in figures.items())


def is_best(
    row: dict[str, Any], before: list[dict[str, Any]], score: Callable[[dict[str, float]], float]
) -> bool:
    """Whether an evaluation has a better score than all before it."""
    own = score(row["held_out"])
    return all(own > score(old["held_out"]) for old in before)


def why_stop(rows: list[dict[str, Any]], trained: Trained, patience: int | None) -> str | None:
    """Diversity lost, or no better held-out score for ``patience`` evaluations."""
    first, last, least = rows[0], rows[-1], trained.min_diversity
    if least is not None and last["diversity"] < least * first["diversity"]:
        return (
            f"diversity fell to {last['diversity'] / first['diversity']:.0%} of the untuned "
            f"generator's (min_diversity={least:g})"
        )
    scores = [trained.score(row["held_out"]) for row in rows]
    if patience is not None and len(scores) - 1 - int(np.argmax(scores)) >= patience:
        return f"no better held-out figure in {patience} evaluations (patience)"
    return None


def agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """The main process's reason, on all."""
    if accelerator.num_processes == 1:
        return reason
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([reason])[0]


@dataclass
class Flag:
    """Set by a signal."""

    raised: bool = False

    def __bool__(self) -> bool:
        return self.raised


@contextmanager
def until_interrupted() -> Iterator[Flag]:
    """An interrupt lets the running step end; a second one does not wait."""
    flag = Flag()

    def note(number: int, frame: Any) -> None:
        if flag.raised:
            raise KeyboardInterrupt
        flag.raised = True

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: there is nobody to interrupt
        old = {}
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
