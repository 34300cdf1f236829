"""Decoding several views together: one answer from the combined logits of all of them.

Each view's call is *recorded* up to ``generate`` (intercept.py), and the call of the real image
*drives*: it decodes all recorded inputs together and gets the shared tokens back as if they were
its own.

Batched, the views are rows of one call (merging.py); where they cannot be, each view has a call of
its own and they walk in lock-step (lockstep.py). Either way (joint_loop.py) the combined logits go
through the real view's own logits processors, and the real view's stopping criteria end it. Many
questions at once: together.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from hb_tta.errors import UserError
from hb_tta.tta.arguments import Inputs, merge_calls, split
from hb_tta.tta.intercept import GeneratedTwice, NeverGenerated, Session, Unwind, record
from hb_tta.tta.joint_loop import Combine, Joint, prepare_only
from hb_tta.tta.merging import WORDS, Merged, prompt_length

T = TypeVar("T")
MODES = ("auto", "batched", "lock-step")


@dataclass(frozen=True)
class Decoded(Generic[T]):
    """What joint decoding gives.

    Attributes:
        value: what the real view's call returned.
        first_logits_VRK: of the first new token, before they were combined: float32 on the CPU,
            V views × R rows × K words; log-probabilities under beam search.
        first_combined_RK: the same, combined.
        entropies: of the combined distribution at each step, in nats; of the first row.
        mode: "batched" or "lock-step".
    """

    value: T
    first_logits_VRK: Tensor
    first_combined_RK: Tensor
    entropies: list[float]
    mode: str


class Shared(NamedTuple):
    """What ``generate`` gives for a question, and the fields of ``Decoded`` behind its value."""

    output: Any
    first_logits_VRK: Tensor
    first_combined_RK: Tensor
    entropies: list[float]
    mode: str

    def decoded(self, value: T) -> Decoded[T]:
        return Decoded(value, *self[1:])


def decode_jointly(
    calls: Sequence[Callable[[], T]], combine: Combine, *, mode: str = "auto"
) -> Decoded[T]:
    """Decode the views of one question together.

    Args:
        calls: one a view, the real image's first. Each leads to one ``generate`` of the same
            transformers model, which may have several rows. The others' stop there, and nothing
            after it runs.
        combine: logits_VRK → logits_RK, see combine.py.
        mode: "batched" and "lock-step" ask for one of them, "auto" takes the first where the
            inputs can be merged. Both give the same tokens, up to rounding.

    Returns:
        What ``calls[0]`` returned, with the shared tokens in it.

    Raises:
        NeverGenerated: a call did not use transformers' ``generate``.
        UserError: what the call asks for cannot be done for several views, or ``mode`` cannot.
        Exception: what the real view's ``generate`` raised, also where the caller swallows it.
    """
    assert mode in MODES, mode
    driving = _Driving([record(call) for call in calls[1:]], combine, mode)
    try:
        with Session(driving):
            value = calls[0]()
    except Unwind:
        assert driving.error is not None
        raise driving.error from None
    if driving.shared is None:
        raise NeverGenerated
    return driving.shared.decoded(value)


class _Driving:
    """Decodes all views in the real view's call."""

    def __init__(self, others: list[dict[str, Any]], combine: Combine, mode: str) -> None:
        self._others, self._combine, self._mode = others, combine, mode
        self.shared: Shared | None = None
        self.error: Exception | None = None

    def __call__(self, model: Any, original: Any, arguments: dict[str, Any]) -> Any:
        try:
            if self.shared is not None:
                raise GeneratedTwice
            settings, inputs = split([arguments, *self._others], model)
            self.shared = decode_one(model, original, settings, inputs, self._combine, self._mode)
            return self.shared.output
        except Exception as error:
            self.error = error
            raise Unwind from error


def decode_one(
    model: Any,
    original: Any,
    settings: dict[str, Any],
    inputs: list[Inputs],
    combine: Combine,
    mode: str,
) -> Shared:
    """Decode one question's views.

    Args:
        model: whose ``generate`` was called.
        original: transformers' own ``generate``.
        settings: of the real view's call, and with them
        inputs: of each view's: see ``hb_tta.tta.arguments.split``.
        combine, mode: as of ``decode_jointly``.

    Raises:
        UserError: the mode, or a setting, cannot be had.
    """
    merged = None if mode == "lock-step" else merge_calls(inputs, settings, model)
    if merged is not None:
        joint, output = _batched(model, original, settings, inputs, combine, merged)
    elif mode == "batched":
        raise UserError("these views' inputs cannot be merged into one batch: use lock-step")
    else:
        joint = Joint(combine, len(inputs), 0)
        output = joint.decode_in_lockstep(model, original, inputs, settings)
    assert joint.first is not None
    how = "lock-step" if merged is None else "batched"
    return Shared(output, *joint.first, joint.entropies, how)


def _batched(
    model: Any,
    original: Any,
    settings: dict[str, Any],
    inputs: list[Inputs],
    combine: Combine,
    merged: Merged,
) -> tuple[Joint, Any]:
    # Embeddings have no ids to pad.
    padding = merged.padding[0] if prompt_length(inputs[0]) else 0
    joint = Joint(combine, len(inputs), padding)
    joint.real = original(model, **words_of(inputs[0]), **settings, custom_generate=prepare_only)
    output = original(model, **merged.inputs, **settings, custom_generate=joint.decode_batched)
    return joint, _rows_of_the_real_view(output, len(inputs), padding)


def words_of(inputs: Inputs) -> Inputs:
    """What of a view's inputs its processors and criteria are prepared from."""
    return {name: value for name, value in inputs.items() if name in WORDS}


def _rows_of_the_real_view(output: Any, views: int, padding: int) -> Any:
    """The real view's part of what the call for all views gave, without its padding."""
    ids = output if isinstance(output, Tensor) else output.sequences
    ids = ids[: ids.shape[0] // views, padding:]
    if isinstance(output, Tensor):
        return ids
    kept = {"sequences": ids}
    for name in ("scores", "logits"):
        steps = getattr(output, name, None)
        if steps is not None:
            kept[name] = tuple(step[: step.shape[0] // views] for step in steps)
    return type(output)(**kept)
