"""What a person writes for a setting: values as text or JSON; key=value, a JSON object, a file.

Imports no torch.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from hb_tta.context import MOST_VIEWS
from hb_tta.device import DTYPES
from hb_tta.errors import UserError, choose_from
from hb_tta.reading import read_text

ARGS = "--augment_args"
"""The option that takes every setting by name, in our commands and in other people's."""


class Unfit(Exception):
    """What is wrong with a value: a sentence whose subject is the value."""


# ── Values ───────────────────────────────────────────────────────────────────────────────────────


def whole(value: Any, least: int | None = None, most: int | None = None) -> int:
    """An integer."""
    kind = "a whole number" if least is None else f"a whole number of at least {least}"
    kind += "" if most is None else f" and at most {most}"
    try:
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise Unfit(f"is not {kind}") from None
    too_small, too_large = least is not None and number < least, most is not None and number > most
    if isinstance(value, bool) or too_small or too_large:
        raise Unfit(f"is not {kind}")
    return number


positive = partial(whole, least=1)
from_zero = partial(whole, least=0)
views = partial(whole, least=1, most=MOST_VIEWS)


def share(value: Any) -> float:
    """A number of more than 0, at most 1: a share of things, a rate of learning."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Unfit("is no number") from None
    if isinstance(value, bool) or not 0 < number <= 1:
        raise Unfit("is out of range: use more than 0, at most 1")
    return number


def yes_or_no(value: Any) -> bool:
    """A truth value."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise Unfit("is neither true nor false")
    return words[str(value).lower()]


_NAMELESS = (int, float, list, tuple, dict)  # what JSON can hold beside texts


def probability(value: Any) -> float | None:
    """A number from 0 to 1, or none."""
    if value is None or value == "none":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise Unfit("is neither a number from 0 to 1 nor none")
    return number


def named(value: Any) -> Any:
    """A folder, a hub id, a name; in Python the thing itself, too."""
    if value == "" or (isinstance(value, _NAMELESS) and not isinstance(value, bool)):
        raise Unfit("names nothing")
    return value


def device(value: Any) -> str:
    """A device's name, whether or not this machine has it."""
    if not isinstance(value, str) or not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", value):
        raise Unfit("is no device: use cpu, cuda, cuda:1, mps or xpu")
    return value


def dtype(value: Any) -> str:
    """A number format."""
    if value not in DTYPES:
        raise Unfit(f"is not known{choose_from(value, DTYPES)}")
    return value


def argument(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of values as ``argparse``'s ``type``."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except Unfit as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None

    return convert


# ── Many settings in one text ────────────────────────────────────────────────────────────────────


def pairs(text: str) -> Iterable[tuple[str, Any]]:
    """Keys and values of ``key=value,…``, of a JSON object, or of ``@file.json`` that holds one.

    Values are texts, in JSON what stands there. A key that stands twice comes twice.

    Raises:
        UserError: it is none of them.
    """
    text = text.strip()
    if text.startswith("@"):
        return _json_pairs(_read_file(text[1:]), text[1:])
    if text.startswith("{"):
        return _json_pairs(text, ARGS)
    return [_pair(item) for part in text.split(",") if (item := part.strip())]


def written(given: Mapping[str, Any]) -> str:
    """Plain JSON values as ``pairs`` reads them: key=value,… where that will do, else JSON."""
    texts = ["none" if value is None else str(value) for value in given.values()]
    plain = all(isinstance(value, str | int | float | None) for value in given.values())
    if plain and not any("," in text or text != text.strip() for text in texts):
        return ",".join(f"{name}={text}" for name, text in zip(given, texts, strict=True))
    return json.dumps(dict(given), ensure_ascii=False)


def _pair(item: str) -> tuple[str, str]:
    key, is_there, value = item.partition("=")
    if not is_there:
        raise UserError(
            f"{ARGS} {item!r}: write key=value, separated by commas; where a value has a comma, a "
            "JSON object or @file.json"
        )
    return key.strip(), value.strip()


def _read_file(path: str) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{ARGS} @{path} cannot be read ({reason}): check the path") from None


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its keys, also one that stands in it twice."""


def _json_pairs(text: str, where: str) -> Iterable[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): write one object of settings") from None
    if not isinstance(found, _Object):
        raise UserError(f'{where} is no JSON object: write {{"n": 4, …}}')
    return [(key, dict(value) if isinstance(value, _Object) else value) for key, value in found]
