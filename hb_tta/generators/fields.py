"""What settings a method has: the fields of its spec, their types, defaults and help.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

ALIASES: Final[Mapping[str, str]] = types.MappingProxyType(
    {"steps": "num_inference_steps", "guidance": "guidance_scale", "pipeline": "base"}
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
        field.name: _setting(field, hints[field.name], texts.get(field.name, ""), spec.roles, short)
        for field in dataclasses.fields(spec)
        if field.init
    }


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
