"""Whether an entry that somebody else made is what its key says: keys follow from what is told.

An entry tells what it was made from, and its key is a hash of that. So a key proves that an entry
stands where its makers would look for it; that the picture is what the named models make of it
cannot be proved without making it again. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.reading import parse_json
from hb_tta.views.plan import boxes_key, description_key, prompt_key, score_key, view_key

SHARED = ("descriptions", "boxes", "views", "scores")
"""The namespaces that are handed on: what answering needs beside the models that answer."""


def fault_of(namespace: str, key: str, payload: bytes, meta: Mapping[str, Any]) -> str | None:
    """What is wrong with an entry; ``None``: nothing that can be found out without its models."""
    try:
        expected = key_told(namespace, meta)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "it does not tell what it was made from"
    if expected is not None and expected != key:
        return "its key is not that of what it says that it was made from"
    return _PAYLOADS[namespace](payload)


def key_told(namespace: str, meta: Mapping[str, Any]) -> str | None:
    """The key that follows from what an entry tells.

    ``None``: it cannot be known, of a view whose description was shortened by an older version,
    which did not keep the whole.

    Raises:
        KeyError, TypeError, ValueError: it does not tell enough.
    """
    if namespace == "boxes":
        return boxes_key(meta["pixels"], meta["description"], meta["finder"])
    if namespace == "views" and "prompt" in meta:
        return prompt_key(meta["prompt"], meta["generator"], meta["seed"])
    if namespace == "views":
        told = meta.get("told", meta["description"])
        if meta.get("shortened") and "told" not in meta:
            return None
        return view_key(meta["pixels"], told, meta["generator"], meta["seed"])
    if namespace == "descriptions":
        draft = {"draft": meta["draft"]} if "draft" in meta else {}
        writer = {**meta["describer"], **draft}
        return description_key(meta["pixels"], meta["guidance"], meta["task"], writer)
    real = {"pixels": meta["pixels"]} if "view" not in meta else {"view": meta["view"]}
    return score_key(meta["text"], meta["judge"], **real)


def _view_fault(payload: bytes) -> str | None:
    try:
        load_image(payload)
    except UserError as error:
        return str(error)
    return None


def _description_fault(payload: bytes) -> str | None:
    with suppress(ValueError, KeyError, TypeError):
        if isinstance(parse_json(payload)["description"], str):
            return None
    return "it holds no description"


def _score_fault(payload: bytes) -> str | None:
    with suppress(ValueError, KeyError, TypeError):
        score = parse_json(payload)["score"]
        if type(score) in (int, float) and math.isfinite(score):
            return None
    return "it holds no score"


def _boxes_fault(payload: bytes) -> str | None:
    with suppress(ValueError, KeyError, TypeError):
        if isinstance(parse_json(payload)["boxes"], list):
            return None
    return "it holds no boxes"


_PAYLOADS = {
    "views": _view_fault,
    "descriptions": _description_fault,
    "boxes": _boxes_fault,
    "scores": _score_fault,
}


def method_of(meta: Mapping[str, Any]) -> str | None:
    """The method that made a view, as its entry tells; ``None``: it tells none."""
    generator = meta.get("generator")
    method = generator.get("method") if isinstance(generator, Mapping) else None
    return method if isinstance(method, str) else None


def models_of(meta: Mapping[str, Any]) -> list[str]:
    """Plain JSON, as text, of every model that an entry names: generator, describer, judge."""
    named = (meta.get(role) for role in ("generator", "describer", "finder", "judge"))
    return [json.dumps(one, sort_keys=True) for one in named if isinstance(one, Mapping)]
