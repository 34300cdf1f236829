"""Values of settings as plain JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from os import PathLike, fspath
from typing import Any

from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.errors import UserError, shown
from hb_tta.spelling import Unfit
from hb_tta.weights import Weights


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _json(value) for name, value in values.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Drafting):
        return str(value)
    if isinstance(value, DescriberSpec):
        return {**asdict(value), "mllm": _json(value.mllm)}
    if isinstance(value, Weights):
        said = {name: it for name, it in asdict(value).items() if it is not None}
        return value.location if len(said) == 1 else said
    return fspath(value) if isinstance(value, PathLike) else value


def of_json(name: str, value: Any) -> Any:
    """A value of a method's own setting: of what is no plain value, weights alone can be told."""
    try:
        return read_weights(value) if isinstance(value, Mapping) else value
    except Unfit as error:
        raise UserError(f"{name}={shown(value)} {error}") from None


def read_weights(value: Any) -> Weights:
    if not isinstance(value, Mapping):
        return Weights(fspath(value))
    known = value.keys() <= _WEIGHTS and "location" in value
    if not known or not all(it is None or isinstance(it, str) for it in value.values()):
        raise Unfit(f"names no weights: write an object of {', '.join(_WEIGHTS)}, all texts")
    return Weights(**value)


_WEIGHTS = {field.name: None for field in fields(Weights)}.keys()
