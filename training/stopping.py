"""When a training ends before its last step: by its held-out figures, or by an interrupt."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator

from hb_tta.training.recipes import Settings


def total_reward(figures: dict[str, float], settings: Settings) -> float:
    """The held-out judge's figure; without one Σ λ·reward, of the control the paper's two's."""
    if settings.judge is not None:
        return figures[settings.judge]
    weights = settings.rewards if settings.objective == "rewards" else {}
    return sum(weights.get(name, 0.0) * value for name, value in figures.items())


def is_best(row: dict[str, Any], before: list[dict[str, Any]], settings: Settings) -> bool:
    """Whether an evaluation has a better reward than all before it."""
    reward = total_reward(row["held_out"], settings)
    return all(reward > total_reward(old["held_out"], settings) for old in before)


def why_stop(rows: list[dict[str, Any]], settings: Settings) -> str | None:
    """Diversity lost, or no better held-out reward for ``patience`` evaluations."""
    first, last = rows[0], rows[-1]
    if (
        settings.evaluate_seeds > 1
        and last["diversity"] < settings.min_diversity * first["diversity"]
    ):
        return (
            f"diversity fell to {last['diversity'] / first['diversity']:.0%} of the untuned "
            f"generator's (min_diversity={settings.min_diversity:g})"
        )
    totals = [total_reward(row["held_out"], settings) for row in rows]
    if (
        settings.patience is not None
        and len(totals) - 1 - int(np.argmax(totals)) >= settings.patience
    ):
        return f"no better held-out reward in {settings.patience} evaluations (patience)"
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
