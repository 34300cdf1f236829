"""Decoding several views together: one answer from the combined logits of all of them.

Everything that generates text with transformers ends in ``GenerationMixin.generate``, whatever
prepared its inputs. So the views are decoded there: each view's call is *recorded* up to that
point, and the call of the real image *drives*: it decodes all recorded inputs together and gets the
shared tokens back as if they were its own. Without a session of this module ``generate`` is what it
was.

Batched, the views are rows of one call (merging.py); where they cannot be, each view has a call of
its own and they walk in lock-step (lockstep.py). Either way (joint_loop.py) the combined logits go
through the real view's own logits processors, and the real view's stopping criteria end it.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor
from transformers import GenerationMixin

from hb_tta.errors import UserError
from hb_tta.tta.joint_loop import Combine, Joint, prepare_only
from hb_tta.tta.merging import WORDS, Merged, merge, prompt_length

T = TypeVar("T")
MODES = ("auto", "batched", "lock-step")

# What says how to decode, and is taken from the real view's call alone.
_SETTINGS = (
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "generation_config",
)
# What decoding several views at once has no place for.
_UNSUPPORTED = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "streamer",
    "past_key_values",
    "negative_prompt_ids",
    "custom_generate",
    "output_attentions",
    "output_hidden_states",
    "guidance_scale",
)


class NeverGenerated(UserError):
    """A call that was to be decoded jointly never came to ``GenerationMixin.generate``."""


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
    recorded = [_record(call) for call in calls[1:]]
    session = _Driving(recorded, combine, mode)
    try:
        with _Session(session):
            value = calls[0]()
    except _Unwind:
        assert session.error is not None
        raise session.error from None
    if session.decoded is None:
        raise NeverGenerated(_NEVER)
    return Decoded(value, *session.decoded)


_NEVER = (
    "the model never called transformers' generate, so its views cannot be decoded together: "
    "combine the answers instead (combine=vote)"
)


# ── Getting between the caller and generate ──────────────────────────────────────────────────────

_local = threading.local()


class _Unwind(BaseException):
    """Leaves a caller that may swallow every ``Exception``."""


class _Session:
    """While it is entered, ``generate`` of this thread goes to a handler."""

    def __init__(self, handler: _Recording | _Driving) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        assert getattr(_local, "handler", None) is None, "joint decoding inside joint decoding"
        _local.handler = self._handler

    def __exit__(self, *_: object) -> None:
        _local.handler = None


def _install() -> None:
    """Put the switch into ``GenerationMixin.generate``.

    It happens when this module is imported, so that a method bound after that has it.
    """
    original = GenerationMixin.generate

    @functools.wraps(original)
    def generate(self, *args, **kwargs):
        handler = getattr(_local, "handler", None)
        if handler is None:
            return original(self, *args, **kwargs)
        return handler(self, original, _arguments(original, self, args, kwargs))

    GenerationMixin.generate = generate


_install()


def _arguments(original: Any, model: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call by name. None is kept: it may take a setting back."""
    bound = inspect.signature(original).bind(model, *args, **kwargs).arguments
    bound.pop("self")
    named = {**bound.pop("kwargs", {}), **bound}
    for name in ("inputs", "custom_generate"):
        if named.get(name) is None:
            named.pop(name, None)
    if "inputs" in named and named["inputs"].ndim == 2:
        named["input_ids"] = named.pop("inputs")
    return named


class _Recording:
    def __init__(self) -> None:
        self.arguments: dict[str, Any] | None = None

    def __call__(self, model: Any, original: Any, arguments: dict[str, Any]) -> Any:
        self.arguments = arguments
        raise _Unwind


def _record(call: Callable[[], Any]) -> dict[str, Any]:
    recording = _Recording()
    try:
        with _Session(recording):
            call()
    except _Unwind:
        pass
    if recording.arguments is None:
        raise NeverGenerated(_NEVER)
    return recording.arguments


class _Driving:
    """Decodes all views in the real view's call."""

    def __init__(self, others: list[dict[str, Any]], combine: Combine, mode: str) -> None:
        self._others, self._combine, self._mode = others, combine, mode
        self.decoded: tuple[Tensor, Tensor, list[float], str] | None = None
        self.error: Exception | None = None

    def __call__(self, model: Any, original: Any, arguments: dict[str, Any]) -> Any:
        _local.handler = None  # what generate calls in turn is its own affair
        try:
            if self.decoded is not None:
                raise UserError(
                    "the model calls generate more than once for one answer, which joint decoding "
                    "cannot follow: combine the answers instead (combine=vote)"
                )
            return self._decode(model, original, arguments)
        except Exception as error:
            self.error = error
            raise _Unwind from error
        finally:
            _local.handler = self

    def _decode(self, model: Any, original: Any, arguments: dict[str, Any]) -> Any:
        views = [arguments, *self._others]
        settings, inputs = _split(views, model)
        merged = None if self._mode == "lock-step" else _merge(inputs, settings, model)
        if merged is not None:
            prompt = prompt_length(inputs[0])
            padding = merged.padding[0] if prompt else 0  # embeddings have no ids to pad
            joint = Joint(self._combine, len(views), padding)
            words = {name: value for name, value in inputs[0].items() if name in WORDS}
            joint.real = original(model, **words, **settings, custom_generate=prepare_only)
            output = original(
                model, **merged.inputs, **settings, custom_generate=joint.decode_batched
            )
            output = _rows_of_the_real_view(output, len(views), padding)
            mode = "batched"
        elif self._mode == "batched":
            raise UserError("these views' inputs cannot be merged into one batch: use lock-step")
        else:
            joint = Joint(self._combine, len(views), 0)
            output = joint.decode_in_lockstep(model, original, inputs, settings)
            mode = "lock-step"
        assert joint.first is not None
        self.decoded = *joint.first, joint.entropies, mode
        return output


# ── What a call consists of ──────────────────────────────────────────────────────────────────────


def _split(
    views: Sequence[Mapping[str, Any]], model: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The real view's settings, and every view's inputs.

    Settings are what says how to decode; a name that is neither a setting of transformers'
    ``GenerationConfig`` nor in the table above is an input of the model.
    """
    real = views[0]
    for name in _UNSUPPORTED:
        if real.get(name) is not None and not _is_off(real[name]):
            raise UserError(
                f"{name} does not work with several views of a question: leave it out, or combine "
                "the answers instead (combine=vote)"
            )
    names = {*_SETTINGS, *_UNSUPPORTED, *model.generation_config.to_dict(), "tokenizer"}
    names |= {"max_new_tokens", "min_new_tokens", "synced_gpus", "trust_remote_code"}
    names.discard("use_cache")  # models read it, too
    settings = {name: value for name, value in real.items() if name in names}
    inputs = [{k: v for k, v in view.items() if k not in names} for view in views]
    return _relative_lengths(settings, model, prompt_length(inputs[0])), inputs


def _is_off(value: Any) -> bool:
    """False, and the scale 1 of a guidance that does nothing."""
    return isinstance(value, bool | int | float) and value in (0, 1) and value is not True


def _relative_lengths(settings: dict[str, Any], model: Any, prompt: int) -> dict[str, Any]:
    """Lengths counted from the end of the real prompt: the views' prompts may be longer."""
    config = settings.get("generation_config") or model.generation_config
    for total, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        length = settings.pop(total, None) or getattr(config, total, None)
        given = settings.get(new) or getattr(config, new, None)
        if length is not None and length > prompt and given is None:
            settings[new] = length - prompt
    return settings


def _merge(inputs: list[dict[str, Any]], settings: dict[str, Any], model: Any) -> Merged | None:
    if model.config.is_encoder_decoder:
        return None
    config = settings.get("generation_config") or model.generation_config
    candidates = (settings.get(name, getattr(config, name, None)) for name in _PADS)
    pad = next((value for value in candidates if value is not None), 0)
    return merge(inputs, pad[0] if isinstance(pad, list) else int(pad))


_PADS = ("pad_token_id", "eos_token_id")


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
