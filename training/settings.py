"""What every training has: models, data, optimisation, watching; and how a setting is changed.

A kind of training is a class of settings (``recipes.Settings``, ``mumu.recipes.MumuSettings``) and
what it does with them, named in ``KINDS`` of kinds.py.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

from hb_tta.device import DTYPES
from hb_tta.errors import UserError, choose_from, shown
from hb_tta.families import get_family
from hb_tta.training.ranges import OneOf, Within, check

TRACKERS = (  # that accelerate has
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip
FROM_1 = Within(least=1, most=10**9)


@dataclass(frozen=True)
class Common:
    """What decides every training. The comments say where a default comes from.

    What changes nothing but speed, memory and what is written (``free``) may change when a run is
    resumed; the rest may not. Of models and data it is the content that may not.
    """

    free: ClassVar[frozenset[str]] = frozenset(
        {
            "generator", "data", "image_column",  # by content
            "micro_batch_size", "max_steps", "save_steps", "patience", "evaluate_steps",
            "sample_contexts", "trackers", "cache",
        }
    )  # fmt: skip
    mappings: ClassVar[Mapping[str, type]] = {}  # settings of named values, and those values' kind

    # ── Models ──
    family: str = "sdxl"  # a name, or a folder of one
    generator: str | None = None  # a folder or hub id in the place of the family's
    dtype: Annotated[str | None, OneOf(DTYPES)] = None  # of frozen weights; None: the device's

    # ── Data ──
    data: str | None = None  # a name of a table, or a path
    image_column: str | None = None  # of your own rows; None: one of the usual names
    samples: Annotated[int | None, FROM_1] = None  # rows of the data that are read; None: all
    # Rows at the beginning kept for evaluation; None: 64, of fewer than 320 good rows a fifth
    held_out: Annotated[int | None, FROM_1] = None

    # ── Samples that are drawn to look at ──
    num_inference_steps: Annotated[int, Within(least=1, most=1000)] = 25
    guidance_scale: Annotated[float | None, Within(least=0, most=1000)] = None  # None: the family's

    # ── Optimisation ──
    weight_decay: Annotated[float, Within(least=0, most=1)] = 1e-2  # PyTorch's default of AdamW
    beta_2: Annotated[float, Within(least=0, below=1)] = 0.999
    warmup_steps: Annotated[int, Within(least=0, most=10**9)] = 0
    # The step at which the rate has fallen to 0, in a line; None: it stays
    decay_steps: Annotated[int | None, FROM_1] = None
    max_gradient_norm: Annotated[float, Within(above=0, most=1e6)] = 1.0
    # Samples an optimizer step, over all processes and micro-batches
    batch_size: Annotated[int, Within(least=1, most=2**20)] = 64
    micro_batch_size: Annotated[int, Within(least=1, most=2**20)] = 1  # on a device at once
    max_steps: Annotated[int, FROM_1] = 50_000  # appendix O: the rewards level off there
    seed: Annotated[int, Within(least=0, below=2**63)] = 0

    # ── Watching ──
    save_steps: Annotated[int, FROM_1] = 250
    evaluate_steps: Annotated[int, FROM_1] = 250
    sample_contexts: Annotated[int, Within(least=1, most=1000)] = 4  # rows of the sample sheets
    # Evaluations without a better held-out figure before it stops
    patience: Annotated[int | None, FROM_1] = None
    trackers: Annotated[tuple[str, ...] | None, OneOf(TRACKERS)] = ("tensorboard",)
    cache: str | None = None  # of what frozen models say; None: in the run's folder

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            check(name, hint, getattr(self, name))
        self.check_together()

    def check_together(self) -> None:
        """Raises UserError for settings that do not go together, or a family that is none."""
        get_family(self.family)
        if self.decay_steps is not None and self.decay_steps < self.max_steps:
            raise UserError(
                f"decay_steps={self.decay_steps} leaves nothing to learn until "
                f"max_steps={self.max_steps}: use as many or more, or none"
            )
        if self.samples is not None and self.held_out is not None:
            if self.samples <= self.held_out:
                raise UserError(
                    f"samples={self.samples} leaves nothing to train on beside "
                    f"held_out={self.held_out}: use more"
                )

    def less_memory(self) -> str:
        """What to try where memory does not suffice."""
        if self.micro_batch_size > 1:
            return f"--set micro_batch_size={self.micro_batch_size // 2}"
        return "a smaller model"


AnySettings = TypeVar("AnySettings", bound=Common)


_HINTS: dict[type, tuple[dict[str, Any], dict[str, Any]]] = {}


def hints(kind: type[Common]) -> dict[str, Any]:
    """Setting → its type, with what it is annotated with."""
    return _both_hints(kind)[0]


def _plain_hints(kind: type[Common]) -> dict[str, Any]:
    return _both_hints(kind)[1]


def _both_hints(kind: type[Common]) -> tuple[dict[str, Any], dict[str, Any]]:
    """With annotations and without; looked up once a class."""
    if kind not in _HINTS:
        found = get_type_hints(kind, include_extras=True)
        _HINTS[kind] = {f.name: found[f.name] for f in fields(kind)}, get_type_hints(kind)
    return _HINTS[kind]


# ── key=value ───────────────────────────────────────────────────────────────────────────────────


def with_changes(settings: AnySettings, changes: Iterable[str]) -> AnySettings:
    """Settings with ``key=value`` texts applied: ``learning_rate=1e-4``, ``rewards.global=0``.

    Raises:
        UserError: a key is unknown or a value is not of its kind.
    """
    values: dict[str, Any] = {}
    kind = type(settings)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"--set {shown(change)} has no '=': write key=value")
        name, _, part = key.strip().partition(".")
        if name not in hints(kind) or (part and name not in kind.mappings):
            known = sorted(hints(kind))
            raise UserError(f"there is no setting {shown(key)}{choose_from(name, known)}")
        if part:
            old = values.get(name, getattr(settings, name))
            values[name] = {**old, part: _converted(kind, key, text, kind.mappings[name])}
        else:
            values[name] = _converted(kind, key, text, _plain_hints(kind)[name])
    return replace(settings, **values)


def _converted(owner: type[Common], key: str, text: str, hint: Any) -> Any:
    """The text as a value of the setting's type."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    optional = type(None) in typing.get_args(hint)
    if optional and text.lower() in ("none", ""):
        return None
    kind = kinds[0] if optional else hint
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if key in owner.mappings:
            return _mapping(text, owner.mappings[key])
        return tuple(part for part in text.split(",") if part)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise UserError(f"--set {key}={shown(text)}: that is no {name}") from error


def _mapping(text: str, kind: Callable[[Any], Any]) -> dict[str, Any]:
    """``{"global": 1}`` or ``global:1,fine_grained:0.1``."""
    if text.startswith("{"):
        return {name: kind(value) for name, value in json.loads(text).items()}
    pairs = (part.partition(":") for part in text.split(",") if part)
    return {name: kind(value) for name, _, value in pairs}


def to_json(settings: Common) -> dict[str, Any]:
    """The settings as plain JSON."""
    return json.loads(
        json.dumps({f.name: _plain(getattr(settings, f.name)) for f in fields(settings)})
    )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
