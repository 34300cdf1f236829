"""One optimizer step: micro-batches, the all-reduce over processes, the descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from hb_tta.training.objectives import Key, Objective
from hb_tta.training.prepare import Order, Prepared
from hb_tta.training.recipes import Settings
from hb_tta.training.schedule import gradient_steps, learning_rate
from hb_tta.training.tuned import Tuned


class Step(NamedTuple):
    """What a step did.

    Attributes:
        means: of the loss and the figures, over all samples of all processes.
        gradient_norm: before clipping.
        gradient_steps: how many sampling steps carried the gradient.
        finite: whether the parameters were moved; the same on all processes.
        interrupted: whether a process wishes to stop.
    """

    means: dict[str, float]
    gradient_norm: float
    gradient_steps: int
    finite: bool
    interrupted: bool


def take_step(
    settings: Settings,
    step: int,
    tuned: Tuned,
    prepared: Prepared,
    order: Order,
    accelerator: Accelerator,
    interrupted: Any,
) -> Step:
    """The step after ``step`` others.

    Args:
        interrupted: true once this process was asked to stop.
    """
    carried = gradient_steps(settings, step)
    tuned.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for keys in micro_batches(settings, step, order, accelerator):
        losses, figures = forward(
            settings, tuned.objective, prepared, keys, carried, accelerator.device
        )
        losses.sum().backward()
        for name, values in {"loss": losses.detach(), **figures}.items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    means, interrupt = all_reduce(
        accelerator, tuned.parameters, sums, bool(interrupted), settings.batch_size
    )
    for group in tuned.optimizer.param_groups:
        group["lr"] = learning_rate(settings, step)
    norm = float(torch.nn.utils.clip_grad_norm_(tuned.parameters, settings.max_gradient_norm))
    finite = math.isfinite(norm) and math.isfinite(means["loss"])
    if finite:  # the same on all processes: all have the reduced gradient
        tuned.optimizer.step()
    return Step(means, norm, len(carried), finite, interrupt)


def micro_batches(
    settings: Settings, step: int, order: Order, accelerator: Accelerator
) -> list[list[Key]]:
    """This process's samples of a step, in pieces that go through the models at once."""
    share = settings.batch_size // accelerator.num_processes
    start = step * settings.batch_size + accelerator.process_index * share
    firsts = range(0, share, settings.micro_batch_size)
    places = [range(first, min(share, first + settings.micro_batch_size)) for first in firsts]
    return [[order(start + place) for place in some] for some in places]


def forward(
    settings: Settings,
    objective: Objective,
    prepared: Prepared,
    keys: list[Key],
    carried: Sequence[int],
    device: torch.device,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses of one micro-batch, and figures."""
    if settings.lora_dropout:  # its masks, too, survive an interruption
        epoch, index = keys[0]
        torch.manual_seed(
            int(np.random.SeedSequence([settings.seed, epoch, index, 3]).generate_state(1)[0])
        )
    batch = prepared.batch([prepared.training[index] for _, index in keys], device)
    return objective(batch, keys, carried)


def all_reduce(
    accelerator: Accelerator,
    parameters: list[Any],
    sums: dict[str, float],
    interrupted: bool,
    samples: int,
) -> tuple[dict[str, float], bool]:
    """Means over all samples of gradients and figures, and whether a process wishes to stop.

    Gradients and figures come as sums over a process's samples, and travel in one flat vector.
    """
    names = sorted(sums)
    extra = torch.tensor([*(sums[name] for name in names), float(interrupted)])
    pieces = [
        (torch.zeros_like(p) if p.grad is None else p.grad / samples).flatten().float()
        for p in parameters
    ]
    flat = accelerator.reduce(torch.cat([*pieces, extra.to(pieces[0])]), "sum")
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.grad = flat[start:stop].view_as(parameter)
        start = stop
    *figures, stops = flat[start:].tolist()
    return {name: value / samples for name, value in zip(names, figures, strict=True)}, stops > 0
