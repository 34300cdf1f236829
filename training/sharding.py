"""Parameters that are spread over processes (FSDP2's ``fully_shard``), and whole ones, alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all of its pieces, on the CPU; all processes ask for it at once."""
    found = tensor.detach()
    if isinstance(found, DTensor):
        found = found.full_tensor()
    return found.cpu().contiguous()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, spread as a parameter is; one without dimensions is on every process."""
    if not tensor.dim() or not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(parameter.device), parameter.device_mesh, parameter.placements
    )


@torch.no_grad()
def put(parameter: Tensor, tensor: Tensor) -> None:
    """Writes a whole tensor into a parameter, however that is spread."""
    parameter.copy_(like(tensor.to(parameter.dtype), parameter))


def shard(model: nn.Module, blocks: tuple[type[nn.Module], ...], mesh: Any) -> None:
    """Spreads a model's parameters: each block is gathered when it is used, and let go after.

    Frozen and trained parameters may lie side by side.

    Args:
        blocks: the classes of what is gathered at once; the rest of the model is one more.
    """
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if isinstance(module, blocks):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
