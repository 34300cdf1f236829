"""What was asked for: proper names → values, as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hb_tta import spelling
from hb_tta.errors import UserError, meant, shown
from hb_tta.generators import get_method
from hb_tta.generators.fields import ALIASES, Setting, method_settings
from hb_tta.settings.options import OPTIONS
from hb_tta.spelling import ARGS

SYNONYMS = {**ALIASES, **{one.also: name for name, one in OPTIONS.items() if one.also}}
"""Other names that mean the same → the proper ones."""

_LONGEST_NAME = 100  # characters


def by_name(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """What stands behind ``--augment_args``.

    Raises:
        UserError: it cannot be read, or a key stands twice.
    """
    found: dict[str, Any] = {}
    for key, value in given.items() if isinstance(given, Mapping) else spelling.pairs(given):
        if len(key) > _LONGEST_NAME:
            raise UserError(f"{shown(key)} in {ARGS} is no name of a setting")
        name = SYNONYMS.get(key, key)
        if name in found:
            raise UserError(f"{key}= stands twice in {ARGS}: leave one out")
        found[name] = value
    return found


def own_settings(method: str) -> dict[str, Setting]:
    """A method's own settings by name: its spec's fields but for ``dtype``, which all have.

    Raises:
        UserError: one of them has the name of an option.
    """
    found = method_settings(get_method(method))
    found.pop("dtype", None)
    for name in found:
        if name in OPTIONS or name in SYNONYMS:
            raise UserError(
                f"{method} has a setting of its own named {name!r}, which means something else for "
                "every method: rename it in its package"
            )
    return found


def unknown(key: str, method: str, choices: list[str]) -> str:
    """The sentence about a key that no setting has."""
    close = meant(key, [*choices, *SYNONYMS])
    hint = f", did you mean {SYNONYMS.get(close, close)}=?" if close else ":"
    return f"{key}= in {ARGS} is not known to {method}{hint} choose from {', '.join(choices)}"
