"""Values of settings: texts and Python objects as the types of a spec's fields."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from hb_tta.errors import UserError, shown
from hb_tta.generators.fields import Setting
from hb_tta.weights import Weights, as_weights

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARSERS: Mapping[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: lambda text: _BOOLEANS[text.lower()],
    str: str,
    Weights: as_weights,
}
_CONVERTERS: Mapping[Any, Callable[[Any], Any]] = {
    int: operator.index,
    float: float,
    Weights: as_weights,
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Weights: "a folder or hub id",
}


def parsed(setting: Setting, text: str) -> Any:
    """The value that a text stands for. Raises UserError: it stands for none."""
    if setting.optional and text.lower() == "none":
        return None
    try:
        value = _PARSERS.get(setting.type, str)(text.strip())
    except (ValueError, KeyError):
        raise _wrong(setting, text) from None
    return _one_of(setting, value)


def checked(setting: Setting, value: Any) -> Any:
    """A value given in Python, as its type; texts are read as from a command line.

    Raises:
        UserError: it is none of the type.
    """
    kind = setting.type if isinstance(setting.type, type) else object
    if value is None:
        return None
    if isinstance(value, bool) and kind in _CONVERTERS:  # True is an int to Python
        raise _wrong(setting, value)
    if isinstance(value, kind):
        return _one_of(setting, value)
    if isinstance(value, str):
        return parsed(setting, value)
    try:
        return _CONVERTERS[kind](value)
    except (KeyError, TypeError, ValueError):
        raise _wrong(setting, value) from None


def _one_of(setting: Setting, value: Any) -> Any:
    if setting.choices and value not in setting.choices:
        raise _wrong(setting, value)
    return value


def _wrong(setting: Setting, value: Any) -> UserError:
    return UserError(f"{setting.name}={shown(value)} is no value of it: give {kind_of(setting)}")


def kind_of(setting: Setting) -> str:
    """What a setting's values are, for a sentence."""
    if setting.choices:
        return f"one of {', '.join(map(str, setting.choices))}"
    kind = _KINDS.get(setting.type, "what its documentation says")
    return f"{kind} or none" if setting.optional else kind
