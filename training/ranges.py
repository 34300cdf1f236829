"""What values a setting can have: said in its type, checked at one door.

learning_rate: Annotated[float, Within(above=0, most=1)] = 5e-6
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hb_tta.errors import UserError, choose_from, shown


@dataclass(frozen=True)
class Within:
    """Numbers of a range; of a mapping, each of its values.

    Attributes:
        least, most: the ends, where they belong to it.
        above, below: the ends, where they do not.
        multiple: what a number is a multiple of; 1: any.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int = 1

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple == 1 or value % self.multiple == 0)
        )

    def __str__(self) -> str:
        ends = (
            ("{:,} or more", self.least), ("more than {:,}", self.above),
            ("at most {:,}", self.most), ("less than {:,}", self.below),
        )  # fmt: skip
        said = ", ".join(text.format(end) for text, end in ends if end is not None)
        return said if self.multiple == 1 else f"a multiple of {self.multiple}, {said}"


@dataclass(frozen=True)
class OneOf:
    """Names of a list; of a mapping, each of its keys.

    Attributes:
        names: the list, or what gives it when it is asked for.
        more: gives a longer list, asked where a name is not in the first.
    """

    names: Sequence[str] | Callable[[], Sequence[str]]
    more: Callable[[], Sequence[str]] | None = None


def check(name: str, hint: Any, value: Any) -> None:
    """Raises UserError unless a value is of its setting's type and in its range.

    Args:
        name: of the setting.
        hint: its type, with what it is annotated with.
        value: as Python or JSON has it.
    """
    rules: list[Within | OneOf] = []
    if typing.get_origin(hint) is typing.Annotated:
        hint, *rules = typing.get_args(hint)
    kind, optional = _without_none(hint)
    if optional and value in (None, ()):
        return
    if not _is_of(kind, value):
        raise UserError(f"{name}={shown(value)} is no value of it: use {said(kind, optional)}")
    for rule in rules:
        _check_rule(name, rule, value, optional)


def _check_rule(name: str, rule: Within | OneOf, value: Any, optional: bool) -> None:
    if isinstance(rule, OneOf):
        _check_names(name, rule, value)
        return
    items = value.items() if isinstance(value, Mapping) else [("", value)]
    for part, number in items:
        if number not in rule:
            called = f"{name}.{part}" if part else name
            none = ", or none" if optional else ""
            raise UserError(f"{called}={shown(number)} is out of range: use {rule}{none}")


def _check_names(name: str, rule: OneOf, value: Any) -> None:
    known = rule.names() if callable(rule.names) else rule.names
    given = [value] if isinstance(value, str) else list(value)
    if rule.more is not None and not set(given) <= set(known):
        known = rule.more()
    for one in given:
        if one not in known:
            raise UserError(f"{name}={shown(one)} is not known{choose_from(one, known)}")


def said(kind: Any, optional: bool = False) -> str:
    """What values of a type are, for a sentence."""
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "a text without control characters",
        Mapping: "name:value,…",
        tuple: "one name or more, separated by commas",
    }
    return words[typing.get_origin(kind) or kind] + (" or none" if optional else "")


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    [kind] = [part for part in typing.get_args(hint) if part is not type(None)]
    return kind, True


def _is_of(kind: Any, value: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is tuple:
        return isinstance(value, tuple) and bool(value) and all(_is_of(str, one) for one in value)
    if origin is not None:
        part = typing.get_args(kind)[1]
        return isinstance(value, Mapping) and all(
            _is_of(str, name) and _is_of(part, one) for name, one in value.items()
        )
    if kind in (int, float):
        numbers = (int, float) if kind is float else int
        return isinstance(value, numbers) and not isinstance(value, bool) and _is_finite(value)
    if kind is str:
        return isinstance(value, str) and bool(value) and value.isprintable()
    return isinstance(value, kind)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False
