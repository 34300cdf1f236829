"""Room on the device for the generator while the model that answers is waiting."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class Parking:
    """While it is entered, a model's weights can be moved into the host's memory and come back.

    The storage of each tensor is moved, not the module: that also works for a model that
    accelerate has spread over devices, which refuses ``to``.

    Attributes:
        has_something: whether any weight is on an accelerator.

    Args:
        holder: the object whose attributes the modules are, as a harness's wrapper of a model.
    """

    def __init__(self, holder: Any) -> None:
        tensors = {id(tensor): tensor for module in _modules(holder) for tensor in _tensors(module)}
        self._away = [t for t in tensors.values() if t.device.type not in ("cpu", "meta")]
        self._homes = [tensor.device for tensor in self._away]
        self._parked = False
        self.has_something = bool(self._away)

    def __enter__(self) -> Parking:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parked:
            _move(self._away, self._homes)

    def park(self) -> None:
        """Move the weights away; a second call does nothing."""
        if not self._parked:
            _move(self._away, [torch.device("cpu")] * len(self._away))
        self._parked = True


def _modules(holder: Any) -> Iterator[nn.Module]:
    return (value for value in vars(holder).values() if isinstance(value, nn.Module))


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _move(tensors: list[torch.Tensor], devices: list[torch.device]) -> None:
    for tensor, device in zip(tensors, devices, strict=True):
        tensor.data = tensor.data.to(device)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
