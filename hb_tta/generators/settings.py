"""A method's settings: the fields of its spec, by name. Imports no torch.

One place reads a spec's fields for every door: what ``hb-tta list`` shows, what a text such as
"steps=20" means, what a family fills in, and what is said of a name that no field has.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import operator
import re
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Final, Literal, TypeVar

from hb_tta.device import default_dtype
from hb_tta.errors import UserError
from hb_tta.families import Family
from hb_tta.weights import Weights, as_weights

Spec = TypeVar("Spec")

ALIASES: Final[Mapping[str, str]] = types.MappingProxyType(
    {"steps": "num_inference_steps", "guidance": "guidance_scale"}
)
"""Short names, accepted wherever a setting is named: short → the field of the spec."""


class Default(enum.Enum):
    """The type of ``DEFAULT``, so that ``None`` keeps its own meaning (the untuned generator)."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""The setting that the family gives."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a method.

    Attributes:
        name: the spec's field.
        type: of its values; ``Weights`` stands for a folder or hub id.
        optional: whether ``None`` ("none") is a value of its own.
        default: the method's own, where neither the person nor the family says otherwise;
            ``DEFAULT`` where a family's role fills it; ``dataclasses.MISSING`` where it must be
            given.
        help: what it is, a line.
        role: the family's role that fills it; ``None``: no role.
        choices: the values that it can have; empty: all of its type.
        alias: its short name; ``None``: it has none.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    help: str
    role: str | None = None
    choices: tuple[Any, ...] = ()
    alias: str | None = None


def method_settings(spec: type[Any]) -> dict[str, Setting]:
    """The settings of a spec class by name, in the order of its fields."""
    hints, texts = _hints(spec), _attribute_texts(spec)
    short = {name: alias for alias, name in ALIASES.items()}
    return {
        field.name: _setting(
            field, hints[field.name], texts.get(field.name, ""), _roles(spec), short
        )
        for field in dataclasses.fields(spec)
        if field.init
    }


def parse_setting(spec: type[Any], name: str, text: str) -> Any:
    """The value of a setting that is given as text: "20", "0.5", "true", "none", a folder.

    Raises:
        UserError: the method has no such setting, or the text is no value of it.
    """
    known = method_settings(spec)
    return _parsed(known[_full_name(spec, known, name)], text)


def full_settings(spec: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their full names, each a checked value of its type.

    What says "as the family has it" is left out: ``DEFAULT``, and ``None`` where that is no value.

    Args:
        spec: the method's class.
        settings: name or short name → value; a text is read as ``parse_setting`` reads it.

    Raises:
        UserError: the method has no such setting, a setting is given twice, or a value is none
            of its type.
    """
    known = method_settings(spec)
    full: dict[str, Any] = {}
    for given, value in settings.items():
        name = _full_name(spec, known, given)
        if isinstance(value, Default) or (value is None and not known[name].optional):
            continue
        if name in full:
            raise UserError(f"{name} is given twice, once as {known[name].alias!r}: give it once")
        full[name] = _checked(known[name], value)
    return full


def spec_from_family(
    spec: type[Spec], family: Family, settings: Mapping[str, Any], dtype: str | None = None
) -> Spec:
    """The spec of a method on a family's models.

    A person's settings come first, then the family's for this method, then the method's own.

    Args:
        spec: the method's class.
        family: which weights fill the roles, and the defaults.
        settings: see ``full_settings``. One that a role fills replaces the role, so that an image
            encoder inside the family's generator moves with a new ``base``.
        dtype: "float32", "bfloat16" or "float16", where the method has a number format; ``None``
            what suits this computer.

    Raises:
        UserError: see ``full_settings``; or the family leaves a role empty that the method needs.
    """
    known, given = method_settings(spec), full_settings(spec, settings)
    roles = {name: setting.role for name, setting in known.items() if setting.role is not None}
    models = family.filled({roles[name]: given.pop(name) for name in roles if name in given})
    values: dict[str, Any] = {
        name: models.roles.get(role) if known[name].optional else models.weights(role)
        for name, role in roles.items()
    }
    defaults = models.defaults_for(spec.method, roles.values())  # type: ignore[attr-defined]
    values |= {name: value for name, value in defaults.items() if name in known}
    if "dtype" in known:
        values["dtype"] = dtype or default_dtype()
    values |= given
    for name, setting in known.items():
        if name not in values and setting.default is dataclasses.MISSING:
            raise UserError(f"{_method(spec)} needs a value for {name}: give {_kind(setting)}")
    return spec(**values)


def used_settings(
    spec: type[Any], settings: Mapping[str, Any], *, stacklevel: int = 2
) -> dict[str, Any]:
    """Of the flags that every method is offered (lora, steps, guidance) those that this one has.

    Those that it has no use for give a warning rather than an error, if they say anything.
    """
    known = method_settings(spec)
    used = {name: value for name, value in settings.items() if ALIASES.get(name, name) in known}
    ignored = {
        name: value
        for name, value in settings.items()
        if name not in used and not isinstance(value, Default | None)
    }
    if ignored:
        named = ", ".join(f"{name}={value!r}" for name, value in ignored.items())
        warnings.warn(f"{_method(spec)} ignores {named}", stacklevel=stacklevel + 1)
    return used


# ── Names ────────────────────────────────────────────────────────────────────────────────────────


def _full_name(spec: type[Any], known: Mapping[str, Setting], name: str) -> str:
    full = name if name in known else ALIASES.get(name, name)
    if full in known:
        return full
    close = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
    meant = close[0] if close and ALIASES.get(close[0], close[0]) in known else None
    hint = f", did you mean {meant!r}" if meant else ""
    raise UserError(f"{_method(spec)} has no setting {name!r}{hint}: {_choices(known)}")


def _choices(known: Mapping[str, Setting]) -> str:
    if not known:
        return "it has none"
    named = [f"{s.name} (or {s.alias})" if s.alias else s.name for s in known.values()]
    return f"choose from {', '.join(named)}"


def _method(spec: type[Any]) -> str:
    return spec.method


def _roles(spec: type[Any]) -> Mapping[str, str]:
    return spec.roles


# ── Fields ───────────────────────────────────────────────────────────────────────────────────────


def _setting(
    field: dataclasses.Field[Any],
    hint: Any,
    text: str,
    roles: Mapping[str, str],
    short: Mapping[str, str],
) -> Setting:
    kind, optional = _without_none(hint)
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Setting(
        name=field.name,
        type=type(choices[0]) if choices else kind,
        optional=optional,
        default=DEFAULT if field.name in roles else default,
        help=text,
        role=roles.get(field.name),
        choices=choices,
        alias=short.get(field.name),
    )


def _hints(spec: type[Any]) -> dict[str, Any]:
    """Types of the fields; a name that is there for type checkers alone stays text."""
    try:
        return typing.get_type_hints(spec)
    except NameError:
        return {field.name: field.type for field in dataclasses.fields(spec)}


def _without_none(hint: Any) -> tuple[Any, bool]:
    """``X | None`` → (X, True)."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    optional = len(parts) < len(typing.get_args(hint))
    return (parts[0] if len(parts) == 1 else object), optional


_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.*)")


def _attribute_texts(spec: type[Any]) -> dict[str, str]:
    """What the docstrings of a class and of its bases say under "Attributes:"."""
    texts: dict[str, str] = {}
    for cls in reversed(spec.__mro__):
        names: list[str] = []
        for line in _attribute_lines(cls):
            entry = _ENTRY.fullmatch(line)
            if entry:
                names = entry["names"].split(", ")
                texts |= dict.fromkeys(names, entry["text"].replace("``", ""))
            else:
                texts |= {name: f"{texts[name]} {line.strip().replace('``', '')}" for name in names}
    return texts


def _attribute_lines(cls: type) -> list[str]:
    """The lines under "Attributes:", without their common indentation."""
    _, found, after = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")
    section = re.split(r"\n(?=\S)", after)[0] if found else ""
    return [line[4:] for line in section.splitlines() if line.strip()]


# ── Values ───────────────────────────────────────────────────────────────────────────────────────

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARSERS: Mapping[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: lambda text: _BOOLEANS[text.lower()],
    str: str,
    Weights: as_weights,
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Weights: "a folder or hub id",
}


def _parsed(setting: Setting, text: str) -> Any:
    if setting.optional and text.lower() == "none":
        return None
    try:
        value = _PARSERS.get(setting.type, str)(text.strip())
    except (ValueError, KeyError):
        raise _wrong(setting, text) from None
    return _one_of(setting, value)


def _checked(setting: Setting, value: Any) -> Any:
    """A value given in Python, as its type; texts are read as from a command line."""
    if value is None or isinstance(value, setting.type if _is_class(setting.type) else object):
        number = setting.type in (int, float) and isinstance(value, bool)
        if not number:
            return value if value is None else _one_of(setting, value)
        raise _wrong(setting, value)
    if isinstance(value, str):
        return _parsed(setting, value)
    if setting.type is Weights and isinstance(value, PathLike):
        return as_weights(value)
    try:
        if setting.type is int and not isinstance(value, bool):
            return operator.index(value)
        if setting.type is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise _wrong(setting, value)


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type)


def _one_of(setting: Setting, value: Any) -> Any:
    if setting.choices and value not in setting.choices:
        raise _wrong(setting, value)
    return value


def _wrong(setting: Setting, value: Any) -> UserError:
    return UserError(f"{setting.name}={value!r} is no value of it: give {_kind(setting)}")


def _kind(setting: Setting) -> str:
    if setting.choices:
        return f"one of {', '.join(map(str, setting.choices))}"
    kind = _KINDS.get(setting.type, "what its documentation says")
    return f"{kind} or none" if setting.optional else kind
