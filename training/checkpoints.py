"""Where a training goes on: LoRA and optimizer in one file, which is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import open_regular
from hb_tta.training.lora import lora_parameters, lora_tensors, set_lora_tensors

CHECKPOINT = "checkpoint.safetensors"
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


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
        tensors, step, skipped = _read(path)
        lora = {n.removeprefix("lora."): t for n, t in tensors.items() if n.startswith("lora.")}
        states = _optimizer_states(tensors)
        _check_lora(lora, unet)
        _check_states(states, unet)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}): delete it to begin anew") from error
    set_lora_tensors(unet, lora)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return step, skipped


# ── What a file must hold: each raises ValueError, in words ──────────────────────────────────────


def _read(path: Path) -> tuple[dict[str, torch.Tensor], int, int]:
    """The tensors, and how many steps were done and skipped."""
    with open_regular(path):
        pass  # a pipe would never end
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    told = [metadata.get(name, "") for name in ("step", "skipped")]
    if not all(one.isascii() and one.isdigit() and len(one) < 16 for one in told):
        raise ValueError("it does not say how many steps it is of")
    step, skipped = map(int, told)
    if skipped > step or step == 0:
        raise ValueError(f"it is of {step} steps, {skipped} of them skipped")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{name:.80} holds what is no finite number")
    return tensors, step, skipped


def _optimizer_states(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = (*name.split("."), "", "")[:3]
            if name != f"optimizer.{index}.{key}" or not index.isascii() or not index.isdigit():
                raise ValueError(f"{name:.80} is no state of an optimizer")
            states.setdefault(int(index), {})[key] = tensor
    return states


def _check_lora(lora: dict[str, torch.Tensor], unet: Any) -> None:
    now = lora_tensors(unet)
    if lora.keys() != now.keys():
        raise ValueError("its layers are not those that are trained")
    for name, tensor in lora.items():
        if tensor.shape != now[name].shape:
            raise ValueError(f"{name:.80} has the shape {list(tensor.shape)}")


def _check_states(states: dict[int, dict[str, Any]], unet: Any) -> None:
    parameters = lora_parameters(unet)
    if states and sorted(states) != list(range(len(parameters))):
        raise ValueError("its optimizer is of other parameters")
    for place, state in states.items():
        if state.keys() != _ADAM:
            raise ValueError(f"the optimizer's state of parameter {place} is not whole")
        for key, tensor in state.items():
            if tensor.dim() and tensor.shape != parameters[place].shape:
                raise ValueError(f"optimizer.{place}.{key:.40} has the shape {list(tensor.shape)}")
