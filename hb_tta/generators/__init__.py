"""Generators: described contexts and seeds in, images out.

``get_method(name)`` gives a spec class; a spec's fields are the method's settings, it is the
store's key, and it loads its generator. Torch is imported when one is loaded, not by importing
this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hb_tta.context import DescribedContext
from hb_tta.generators.any_pipeline import DiffusersSpec
from hb_tta.generators.fields import ALIASES, DEFAULT, Default, Setting, method_settings
from hb_tta.generators.hummingbird import HummingbirdGenerator, HummingbirdSpec
from hb_tta.generators.i2t2i import I2T2ISpec
from hb_tta.generators.image_method import ImageGenerator, ImageSpec
from hb_tta.generators.image_translation import ImageTranslationSpec
from hb_tta.generators.image_variation import ImageVariationSpec
from hb_tta.generators.pipeline import PipelineGenerator, PipelineSpec
from hb_tta.generators.protocol import Generator, GeneratorSpec
from hb_tta.generators.randaugment import RandAugmentSpec
from hb_tta.generators.registry import build_spec, get_method, list_methods
from hb_tta.generators.settings import parse_setting, used_settings
from hb_tta.generators.textual_inversion import TextualInversionSpec

if TYPE_CHECKING:
    from hb_tta.generators.description import fit_description, load_tokenizers

__all__ = [
    "ALIASES",
    "DEFAULT",
    "Default",
    "DescribedContext",
    "DiffusersSpec",
    "Generator",
    "GeneratorSpec",
    "HummingbirdGenerator",
    "HummingbirdSpec",
    "I2T2ISpec",
    "ImageGenerator",
    "ImageSpec",
    "ImageTranslationSpec",
    "ImageVariationSpec",
    "PipelineGenerator",
    "PipelineSpec",
    "RandAugmentSpec",
    "Setting",
    "TextualInversionSpec",
    "build_spec",
    "fit_description",
    "get_method",
    "list_methods",
    "load_tokenizers",
    "method_settings",
    "parse_setting",
    "used_settings",
]

_HEAVY = {"fit_description": "description", "load_tokenizers": "description"}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HEAVY[name]}"), name)
