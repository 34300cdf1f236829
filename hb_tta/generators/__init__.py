"""Generators: described contexts and seeds in, images out.

``get_method(name)`` gives a spec class; a spec is the store's key and loads its generator. The
generator classes themselves are imported on first use, so importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hb_tta.context import DescribedContext
from hb_tta.generators.protocol import DEFAULT, Default, Generator, GeneratorSpec
from hb_tta.generators.registry import get_method, list_methods
from hb_tta.generators.specs import HummingbirdSpec, I2T2ISpec, RandAugmentSpec

if TYPE_CHECKING:
    from hb_tta.generators.description import fit_description, load_tokenizers
    from hb_tta.generators.hummingbird import HummingbirdGenerator
    from hb_tta.generators.i2t2i import I2T2IGenerator
    from hb_tta.generators.randaugment import RandAugmentGenerator

__all__ = [
    "DEFAULT",
    "Default",
    "DescribedContext",
    "Generator",
    "GeneratorSpec",
    "HummingbirdGenerator",
    "HummingbirdSpec",
    "I2T2IGenerator",
    "I2T2ISpec",
    "RandAugmentGenerator",
    "RandAugmentSpec",
    "fit_description",
    "get_method",
    "list_methods",
    "load_tokenizers",
]

_HEAVY = {
    "HummingbirdGenerator": "hummingbird",
    "I2T2IGenerator": "i2t2i",
    "RandAugmentGenerator": "randaugment",
    "fit_description": "description",
    "load_tokenizers": "description",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HEAVY[name]}"), name)
