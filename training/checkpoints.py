"""Where a training goes on: what is trained and its optimizer in one file, whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.reading import open_regular
from hb_tta.training.sharding import like, whole

CHECKPOINT = "checkpoint.safetensors"
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


class Kept(Protocol):
    """What a checkpoint keeps of a training: see ``Trained``."""

    parameters: list[Any]
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]: ...

    def set_tensors(self, tensors: dict[str, Tensor]) -> None: ...


class State(NamedTuple):
    """A training after ``step`` steps: its tensors, by name, and its optimizer's."""

    trained: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    step: int
    skipped: int


def checkpoint_of(kept: Kept, step: int, skipped: int) -> State:
    """The state after ``step`` steps, whole on every process: all call it at once."""
    states = {
        f"optimizer.{index}.{name}": whole(torch.as_tensor(value))
        for index, state in kept.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    return State(kept.tensors(), states, step, skipped)


def save_checkpoint(folder: Path, state: State) -> None:
    """Writes a state. The metrics must be written already."""
    tensors = {**state.trained, **state.optimizer}
    metadata = {"step": str(state.step), "skipped": str(state.skipped)}
    write_aside(
        folder / CHECKPOINT, save({n: t.contiguous() for n, t in tensors.items()}, metadata)
    )


def restore_checkpoint(folder: Path, kept: Kept) -> tuple[int, int]:
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
        trained = {n: t for n, t in tensors.items() if not n.startswith("optimizer.")}
        states = _optimizer_states(tensors)
        _check_trained(trained, kept.tensors())
        _check_states(states, kept.parameters)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}): delete it to begin anew") from error
    kept.set_tensors(trained)
    groups = kept.optimizer.state_dict()["param_groups"]
    spread = {
        place: {key: like(t, kept.parameters[place]) for key, t in state.items()}
        for place, state in states.items()
    }
    kept.optimizer.load_state_dict({"state": spread, "param_groups": groups})
    return step, skipped


# ── What a file must hold: each raises ValueError, in words ──────────────────────────────────────


def _read(path: Path) -> tuple[dict[str, Tensor], int, int]:
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


def _optimizer_states(tensors: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = (*name.split("."), "", "")[:3]
            if name != f"optimizer.{index}.{key}" or not index.isascii() or not index.isdigit():
                raise ValueError(f"{name:.80} is no state of an optimizer")
            states.setdefault(int(index), {})[key] = tensor
    return states


def _check_trained(trained: dict[str, Tensor], now: dict[str, Tensor]) -> None:
    if trained.keys() != now.keys():
        raise ValueError("its layers are not those that are trained")
    for name, tensor in trained.items():
        if tensor.shape != now[name].shape:
            raise ValueError(f"{name:.80} has the shape {list(tensor.shape)}")


def _check_states(states: dict[int, dict[str, Any]], parameters: list[Any]) -> None:
    if states and sorted(states) != list(range(len(parameters))):
        raise ValueError("its optimizer is of other parameters")
    for place, state in states.items():
        if state.keys() != _ADAM:
            raise ValueError(f"the optimizer's state of parameter {place} is not whole")
        for key, tensor in state.items():
            if tensor.dim() and tensor.shape != parameters[place].shape:
                raise ValueError(f"optimizer.{place}.{key:.40} has the shape {list(tensor.shape)}")
