"""Generators by name: a line a method, and other packages' by the group ``hb_tta.generators``.

What a package offers is a ``GeneratorSpec`` class: see ``hb_tta.plugins``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hb_tta.families import Family, get_family
from hb_tta.generators.protocol import GeneratorSpec
from hb_tta.generators.settings import spec_from_family
from hb_tta.plugins import Registry, lacks


def _fault(name: str, found: Any) -> str | None:
    parts = (
        "method",
        "needs_description",
        "outputs",
        "to_json",
        "load",
        "from_family",
        "settled",
        "fitter",
        "finder",
    )
    missing = lacks(found, *parts)
    if not missing:
        return None
    return (
        f"is no GeneratorSpec: it lacks {', '.join(missing)}; inherit from "
        "hb_tta.generators.GeneratorSpec"
    )


GENERATORS = Registry(
    "generator",
    "generators",
    {
        "hummingbird": "hb_tta.generators.hummingbird:HummingbirdSpec",
        "i2t2i": "hb_tta.generators.i2t2i:I2T2ISpec",
        "randaugment": "hb_tta.generators.randaugment:RandAugmentSpec",
        "image_variation": "hb_tta.generators.image_variation:ImageVariationSpec",
        "image_translation": "hb_tta.generators.image_translation:ImageTranslationSpec",
        "textual_inversion": "hb_tta.generators.textual_inversion:TextualInversionSpec",
        "diffusers": "hb_tta.generators.any_pipeline:DiffusersSpec",
        "mumu": "hb_tta.generators.mumu.spec:MumuSpec",
        "jitter": "hb_tta.generators.jitter:JitterSpec",
        "crops": "hb_tta.generators.crops:CropsSpec",
        "noise": "hb_tta.generators.noise:NoiseSpec",
        "filter": "hb_tta.generators.filter:FilterSpec",
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


def build_spec(
    method: str,
    family: str | Family,
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    dtype: str | None = None,
) -> GeneratorSpec:
    """The spec of a method, by names alone. See ``GeneratorSpec.from_family``."""
    return spec_from_family(get_method(method), get_family(family), settings, dtype)
