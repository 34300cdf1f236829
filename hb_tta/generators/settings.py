"""A method's settings, given by name. Imports no torch.

One place for every door: what a text such as "steps=20" means, what a family fills in, and what is
said of a name that no field has.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Set
from typing import Any, TypeVar

from hb_tta.device import default_dtype
from hb_tta.errors import HbTtaWarning, UserError, choose_from, meant, shown
from hb_tta.families import Family
from hb_tta.generators.fields import ALIASES, Default, Setting, method_settings
from hb_tta.generators.values import checked, kind_of, parsed
from hb_tta.weights import Weights

Spec = TypeVar("Spec")


def parse_setting(spec: type[Any], name: str, text: str) -> Any:
    """The value of a setting that is given as text: "20", "0.5", "true", "none", a folder.

    Raises:
        UserError: the method has no such setting, or the text is no value of it.
    """
    known = method_settings(spec)
    return parsed(known[_full_name(spec, known, name)], text)


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
        full[name] = checked(known[name], value)
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
    known, given = method_settings(spec), _with_preset(spec, full_settings(spec, settings))
    said = frozenset(given)
    roles = {name: setting.role for name, setting in known.items() if setting.role is not None}
    models = family.filled({roles[name]: given.pop(name) for name in roles if name in given})
    values: dict[str, Any] = {
        name: models.roles.get(role) if known[name].optional else models.weights(role)
        for name, role in roles.items()
    }
    values |= family_defaults(spec, models)
    if "dtype" in known:
        values["dtype"] = dtype or default_dtype()
    values |= given
    for name, setting in known.items():
        if name not in values and setting.default is dataclasses.MISSING:
            raise UserError(f"{_method(spec)} needs a value for {name}: give {kind_of(setting)}")
    return spec(**_settled(spec, values, said))


def _with_preset(spec: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the preset that ``base`` names, if it does; what is said beats them.

    Raises:
        UserError: it is no preset, and cannot be weights either.
    """
    base = given.get("base")
    if not spec.presets or not isinstance(base, Weights) or "/" in base.location:
        return given
    if base.location in spec.presets:
        named = spec.presets[base.location]
        return {**named, **{name: it for name, it in given.items() if name != "base"}}
    if not os.path.isdir(base.location):
        raise UserError(
            f"base={shown(base.location)} is no folder, no hub id and no preset of {spec.method}"
            f"{choose_from(base.location, spec.presets)}"
        )
    return given


def family_defaults(spec: type[Any], family: Family) -> dict[str, Any]:
    """The method's settings that a family knows better than the method itself, roles aside."""
    known = method_settings(spec)
    roles = [setting.role for setting in known.values() if setting.role is not None]
    defaults = family.defaults_for(spec.method, roles)
    return {name: value for name, value in defaults.items() if name in known}


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
        message = f"{_method(spec)} ignores {named}"
        warnings.warn(message, HbTtaWarning, stacklevel=stacklevel + 1)
    return used


# ── Names ────────────────────────────────────────────────────────────────────────────────────────


def _full_name(spec: type[Any], known: Mapping[str, Setting], name: str) -> str:
    full = name if name in known else ALIASES.get(name, name)
    if full in known:
        return full
    close = meant(name, [*known, *ALIASES])
    hint = f", did you mean {close!r}" if close and ALIASES.get(close, close) in known else ""
    raise UserError(f"{_method(spec)} has no setting {name!r}{hint}: {_choices(known)}")


def _choices(known: Mapping[str, Setting]) -> str:
    if not known:
        return "it has none"
    named = [f"{s.name} (or {s.alias})" if s.alias else s.name for s in known.values()]
    return f"choose from {', '.join(named)}"


def _settled(spec: type[Any], values: Mapping[str, Any], said: Set[str]) -> Mapping[str, Any]:
    return spec.settled(values, said)


def _method(spec: type[Any]) -> str:
    return spec.method
