"""Where the words of a caption are in its picture.

phrases.py   the noun phrases of a caption      detector.py  GroundingDINO, OWLv2: boxes of phrases
boxes.py     which boxes serve as crops         whole.py     pictures of a whole image: edges, …

The names below load on first use: what reads boxes imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hb_tta.detect.boxes import Box, Filters, boxes_in
    from hb_tta.detect.detector import Detector, Found
    from hb_tta.detect.phrases import Phrase, noun_phrases

__all__ = ["Box", "Detector", "Filters", "Found", "Phrase", "boxes_in", "noun_phrases"]

_PLACES = {
    "Box": "boxes",
    "Detector": "detector",
    "Filters": "boxes",
    "Found": "detector",
    "Phrase": "phrases",
    "boxes_in": "boxes",
    "noun_phrases": "phrases",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
