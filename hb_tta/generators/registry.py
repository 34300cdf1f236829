"""Generators by name: a line a method, and other packages' by the group ``hb_tta.generators``.

What a package offers is a ``GeneratorSpec`` class: see ``hb_tta.plugins``.
"""

from __future__ import annotations

from typing import Any

from hb_tta.generators.protocol import GeneratorSpec
from hb_tta.plugins import Registry, lacks


def _fault(name: str, found: Any) -> str | None:
    missing = lacks(found, "method", "needs_description", "from_family", "to_json", "load")
    return f"is no GeneratorSpec: it lacks {', '.join(missing)}" if missing else None


GENERATORS = Registry(
    "generator",
    "generators",
    {
        "hummingbird": "hb_tta.generators.specs:HummingbirdSpec",
        "i2t2i": "hb_tta.generators.specs:I2T2ISpec",
        "randaugment": "hb_tta.generators.specs:RandAugmentSpec",
    },
    _fault,
    asked="method",
)


def list_methods() -> list[str]:
    """The names that ``get_method`` knows: the built-in ones, then those of other packages.

    Raises:
        UserError: a package claims a name that is taken.
    """
    return GENERATORS.names()


def get_method(name: str) -> type[GeneratorSpec]:
    """The spec class of a method.

    Raises:
        UserError: the name is unknown or claimed twice, or its package does not import.
    """
    return GENERATORS.get(name)
