"""A resumable optimisation: the same weights, bit for bit, however often it was killed.

Every step draws from generators seeded by (seed, stage, step), so a checkpoint holds tensors and
a step number and no generator's state. A checkpoint in small form (``small_form``) holds no
optimizer's state either: the training then warms up again and goes on.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from hb_tta.training.pocket_family.run import RecipeRun


class Draws:
    """The random draws of one step."""

    def __init__(self, seed: int, stage: str, step: int):
        entropy = [seed, zlib.crc32(stage.encode()), step]
        self.numpy = np.random.default_rng(entropy)
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def rows(self, number: int, batch: int) -> np.ndarray:
        """``batch`` row numbers below ``number``."""
        return self.numpy.integers(0, number, batch)

    def normal(self, *shape: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Standard normal noise, the same on every device."""
        return torch.randn(*shape, generator=self.torch).to(device)


def optimize(
    run: RecipeRun,
    stage: str,
    modules: dict[str, nn.Module],
    loss: Callable[[Draws, int], torch.Tensor],
    *,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.01,
    warmup: int = 100,
    clip: float = 1.0,
    ema: float | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int = 500,
) -> None:
    """Train ``modules`` in place with AdamW under a cosine schedule, resuming where it stopped.

    Args:
        loss: maps a step's draws and number to a scalar loss.
        ema: decay of an exponential moving average, which replaces the weights at the end (and
            during ``evaluate``).
        evaluate: figures for the log, every ``evaluate_every`` steps and at the end.
    """
    named = {
        f"{name}.{key}": parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True
    )
    averages = [p.detach().clone() for p in parameters] if ema else None
    checkpoint = _Checkpoint(
        run.work / f"{stage}.safetensors", modules, optimizer, averages, list(named)
    )
    log = _Log(run.work / f"{stage}.jsonl")
    step, seconds = checkpoint.load()
    afresh = 0 if checkpoint.whole else step  # where the optimizer began
    log.truncate(step)
    started, saved, losses = time.monotonic() - seconds, time.monotonic(), []
    while step < steps:
        for group in optimizer.param_groups:
            warm = min(1.0, (step - afresh + 1) / max(1, min(warmup, steps // 2)))
            group["lr"] = lr * warm * _schedule(step, steps, min(warmup, steps // 2))
        value = loss(Draws(run.seed, stage, step), step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if averages is not None:
            assert ema is not None
            torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - ema)
        losses.append(value.item())
        step += 1
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"{stage}: the loss is {losses[-1]} at step {step}")
        if step % evaluate_every == 0 or step == steps:
            figures = _evaluate(evaluate, parameters, averages)
            elapsed = time.monotonic() - started
            log.write(step=step, of=steps, loss=np.mean(losses), seconds=elapsed, **figures)
            losses = []
        if time.monotonic() - saved > run.save_seconds or step == steps:
            checkpoint.save(step, time.monotonic() - started)
            saved = time.monotonic()
    if averages is not None:
        _swap(parameters, averages)


def _schedule(step: int, steps: int, warmup: int) -> float:
    """The cosine behind the warm-up, in [0.02, 1]."""
    if step < warmup:
        return 1.0
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _evaluate(evaluate, parameters, averages) -> dict[str, float]:
    if evaluate is None:
        return {}
    if averages is not None:
        _swap(parameters, averages)
    with torch.no_grad():
        figures = evaluate()
    if averages is not None:
        _swap(parameters, averages)
    return figures


def _swap(parameters, averages) -> None:
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)


class _Checkpoint:
    """Modules, optimizer and averages in one safetensors file, written aside and renamed."""

    def __init__(self, path: Path, modules, optimizer, averages, names: list[str]):
        self.path, self.modules = path, modules
        self.optimizer, self.averages, self.names = optimizer, averages, names
        self.whole = True  # whether what was loaded had the optimizer's state

    def save(self, step: int, seconds: float) -> None:
        tensors = {
            f"module.{name}.{key}": value.contiguous()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        if self.averages is not None:
            tensors |= {f"average.{i}": value for i, value in enumerate(self.averages)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".aside")
        save_file(
            {key: value.detach().cpu().clone() for key, value in tensors.items()},
            aside,
            metadata={
                "step": str(step),
                "seconds": repr(seconds),
                "averaged": " ".join(self.names if self.averages is not None else ()),
            },
        )
        os.replace(aside, self.path)

    def load(self) -> tuple[int, float]:
        if not self.path.exists():
            return 0, 0.0
        tensors = load_file(self.path)
        for name, module in self.modules.items():
            prefix = f"module.{name}."
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        state = self.optimizer.state_dict()
        states: dict[int, dict] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                states.setdefault(int(index), {})[name] = value
        self.whole = bool(states)
        if self.whole:
            self.optimizer.load_state_dict({"state": states, "param_groups": state["param_groups"]})
        for number, (average, name) in enumerate(
            zip(self.averages or (), self.names, strict=False)
        ):
            kept = tensors.get(f"average.{number}")
            average.copy_(tensors[f"module.{name}"] if kept is None else kept)
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
        return int(metadata["step"]), float(metadata["seconds"])


class _Log:
    """One JSON line an evaluation: the accuracy-against-time curve of the card."""

    def __init__(self, path: Path):
        self.path = path

    def truncate(self, step: int) -> None:
        """Drop what was logged after the checkpoint that is being resumed."""
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.path.write_text("".join(line + "\n" for line in kept))

    def write(self, **fields) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rounded = {k: round(float(v), 5) for k, v in fields.items()}
        line = json.dumps(rounded)
        with open(self.path, "a") as file:
            file.write(line + "\n")
        print(self.path.stem, line, flush=True)
