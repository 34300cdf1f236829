"""One optimizer step: micro-batches, the all-reduce over processes, the descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from hb_tta.training.prepare import Order
from hb_tta.training.settings import Common
from hb_tta.training.trained import Key, Trained


class Step(NamedTuple):
    """What a step did.

    Attributes:
        means: of the loss and the figures, over all samples of all processes.
        gradient_norm: before clipping.
        noted: what else its line says.
        finite: whether the parameters were moved; the same on all processes.
        interrupted: whether a process wishes to stop.
    """

    means: dict[str, float]
    gradient_norm: float
    noted: dict[str, float]
    finite: bool
    interrupted: bool


def take_step(
    settings: Common,
    step: int,
    trained: Trained,
    order: Order,
    accelerator: Accelerator,
    interrupted: Any,
) -> Step:
    """The step after ``step`` others.

    Args:
        interrupted: true once this process was asked to stop.
    """
    trained.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for keys in micro_batches(settings, step, order, accelerator):
        losses, figures = forward(trained, step, keys)
        losses.sum().backward()
        for name, values in {"loss": losses.detach(), **figures}.items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    means, interrupt = all_reduce(
        accelerator, trained.parameters, sums, bool(interrupted), settings.batch_size
    )
    trained.set_rates(step)
    found = torch.nn.utils.clip_grad_norm_(trained.parameters, settings.max_gradient_norm)
    norm = float(found.full_tensor() if isinstance(found, DTensor) else found)
    finite = math.isfinite(norm) and math.isfinite(means["loss"])
    if finite:  # the same on all processes: all have the reduced gradient
        trained.optimizer.step()
    return Step(means, norm, trained.noted(step), finite, interrupt)


def micro_batches(
    settings: Common, step: int, order: Order, accelerator: Accelerator
) -> list[list[Key]]:
    """This process's samples of a step, in pieces that go through the models at once."""
    share = settings.batch_size // accelerator.num_processes
    start = step * settings.batch_size + accelerator.process_index * share
    firsts = range(0, share, settings.micro_batch_size)
    places = [range(first, min(share, first + settings.micro_batch_size)) for first in firsts]
    return [[order(start + place) for place in some] for some in places]


def forward(
    trained: Trained, step: int, keys: Sequence[Key]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses of one micro-batch, and figures."""
    return trained.losses(step, keys)


def all_reduce(
    accelerator: Accelerator,
    parameters: list[Any],
    sums: dict[str, float],
    interrupted: bool,
    samples: int,
) -> tuple[dict[str, float], bool]:
    """Means over all samples of gradients and figures, and whether a process wishes to stop.

    Gradients and figures come as sums over a process's samples, and travel in one flat vector.
    FSDP2 has averaged those of parameters that it spreads over the processes.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    spread = [p for p in parameters if isinstance(p, DTensor)]
    own = [p for p in parameters if not isinstance(p, DTensor)]
    for gradient in [p.grad for p in spread if p.grad is not None]:
        gradient.mul_(accelerator.num_processes / samples)
    names = sorted(sums)
    extra = torch.tensor(
        [*(sums[name] for name in names), float(interrupted)], device=accelerator.device
    )
    pieces = [(p.grad / samples).flatten().float() for p in own]
    flat = accelerator.reduce(torch.cat([*pieces, extra]), "sum")
    start = 0
    for parameter in own:
        stop = start + parameter.numel()
        parameter.grad = flat[start:stop].view_as(parameter)
        start = stop
    *figures, stops = flat[start:].tolist()
    return {name: value / samples for name, value in zip(names, figures, strict=True)}, stops > 0
