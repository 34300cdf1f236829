"""Where a training goes on: LoRA and optimizer in one file, which is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hb_tta.training.lora import lora_parameters, lora_tensors, set_lora_tensors
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from hb_tta.disk import write_aside
from hb_tta.errors import UserError

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, unet: Any, optimizer: torch.optim.Optimizer, step: int, skipped: int
) -> None:
    """The state after ``step`` steps. The metrics must be written already."""
    tensors = {f"lora.{name}": tensor for name, tensor in lora_tensors(unet).items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu()
    metadata = {"step": str(step), "skipped": str(skipped)}
    write_aside(
        folder / CHECKPOINT,
        save({n: t.contiguous() for n, t in tensors.items()}, metadata),
    )


def restore_checkpoint(
    folder: Path, unet: Any, optimizer: torch.optim.Optimizer
) -> tuple[int, int]:
    """Puts the last state back.

    Returns:
        Steps done and steps skipped; (0, 0) where there is no state yet.

    Raises:
        UserError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0, 0
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is damaged ({error}): delete it to begin anew") from error
    lora = {n.removeprefix("lora."): t for n, t in tensors.items() if n.startswith("lora.")}
    set_lora_tensors(unet, lora)
    states = _optimizer_states(tensors)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    assert len(states) in (0, len(lora_parameters(unet)))
    return int(metadata["step"]), int(metadata["skipped"])


def _optimizer_states(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
    return states
