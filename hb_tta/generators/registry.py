"""Finding a generator by name: a table of the built-in ones, an entry-point group for others'.

Another package adds a generator with, in its pyproject.toml,

    [project.entry-points."hb_tta.generators"]
    my_method = "my_package:MySpec"

where ``MySpec`` is a ``GeneratorSpec``. Nothing is imported until a name is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType
from typing import Any

from hb_tta.errors import UserError
from hb_tta.families import Family, get_family
from hb_tta.generators.protocol import GeneratorSpec
from hb_tta.generators.settings import spec_from_family

ENTRY_POINTS = "hb_tta.generators"

_BUILT_IN = {
    "hummingbird": "hb_tta.generators.hummingbird:HummingbirdSpec",
    "i2t2i": "hb_tta.generators.i2t2i:I2T2ISpec",
    "randaugment": "hb_tta.generators.randaugment:RandAugmentSpec",
}


def list_methods() -> list[str]:
    """The names that ``get_method`` knows: the built-in ones, then those of other packages.

    Raises:
        UserError: a package claims a name that is taken.
    """
    return [*_BUILT_IN, *sorted(_plugins())]


def get_method(name: str) -> type[GeneratorSpec]:
    """The spec class of a method.

    Raises:
        UserError: the name is unknown or claimed twice, or its package does not import.
    """
    plugins = _plugins()
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        return getattr(importlib.import_module(module), attribute)
    if name not in plugins:
        raise UserError(
            f"there is no method {name!r}: choose from {', '.join([*_BUILT_IN, *sorted(plugins)])}"
        )
    return _load(plugins[name])


def build_spec(
    method: str,
    family: str | Family,
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    dtype: str | None = None,
) -> GeneratorSpec:
    """The spec of a method, by names alone. See ``GeneratorSpec.from_family``."""
    return spec_from_family(get_method(method), get_family(family), settings, dtype)


def _plugins() -> dict[str, metadata.EntryPoint]:
    """The other packages' entry points by name."""
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name in _BUILT_IN:
            raise UserError(
                f"the package {_package(entry)!r} names its generator {entry.name!r} as a built-in "
                "one: rename it there, or uninstall the package"
            )
        if entry.name in found and found[entry.name].value != entry.value:
            raise UserError(
                f"the packages {_package(found[entry.name])!r} and {_package(entry)!r} both name a "
                f"generator {entry.name!r}: uninstall one"
            )
        found[entry.name] = entry
    return found


def _load(entry: metadata.EntryPoint) -> type[GeneratorSpec]:
    try:
        spec = entry.load()
    except Exception as error:  # whatever a stranger's module does at import
        raise UserError(
            f"the generator {entry.name!r} of the package {_package(entry)!r} does not import "
            f"({type(error).__name__}: {error}): repair or uninstall the package"
        ) from error
    missing = [
        part
        for part in ("method", "needs_description", "to_json", "load", "from_family", "fitter")
        if not hasattr(spec, part)
    ]
    if missing:
        raise UserError(
            f"the generator {entry.name!r} of the package {_package(entry)!r} is no GeneratorSpec: "
            f"it lacks {', '.join(missing)}; inherit from hb_tta.generators.GeneratorSpec"
        )
    return spec


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
