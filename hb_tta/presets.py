"""Presets: what decides the views where a person says nothing, in one place.

    paper   every question gets its views, and the plain mean of all counts, as in the paper
    safe    views that are checked, and only where the model is not sure without them

The values of ``safe`` were looked for on the dev seed of the bundled family, where its gain is not
told from nothing; what it surely does is to have more true descriptions: docs/results/presets.md.
What it is worth for another model nobody knows who has not measured it: `hb-tta calibrate` does.

A value that a person says beats the preset's. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hb_tta.errors import UserError

WORDS, CLASSES = "words", "classes"
"""Who is asked, as ``hb_tta.tta.rule`` has it: an MLLM for words, or a CLIP for classes."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {},
        "safe": {
            "drafts": "7+jittered+score",
            "judge": "fine_grained",
            "min_score": "real-2",
            "seeds": "by_context",
            "gate": {WORDS: 0.9, CLASSES: 0.7},
        },
    }
)
"""Name → option → value, or who is asked → value."""

UNSAID = "paper"
"""In Python and for `hb-tta augment`: the n views that were asked for."""

_AT_HARNESSES = {"hummingbird": "safe"}


def preset_values(name: str, asked: str = WORDS) -> dict[str, Any]:
    """What a preset says, where ``asked`` is asked: option → value.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"preset={name!r} is not known: choose from {', '.join(PRESETS)}")
    values = PRESETS[name].items()
    return {k: value[asked] if isinstance(value, Mapping) else value for k, value in values}


def at_harness(method: str, said: Mapping[str, Any], asked: str = WORDS) -> dict[str, Any]:
    """What a person said of the views in a harness, and what holds there where they did not.

    Without a preset each context has its own seeds: with the same ones everywhere, what they bring
    is chance that no number of questions evens out.

    Args:
        method: its preset where none is said: "safe" for hummingbird, else "paper".
        said: option → value.
        asked: ``WORDS`` or ``CLASSES``.
    """
    preset = str(said.get("preset", _AT_HARNESSES.get(method, UNSAID)))
    filled: dict[str, Any] = {} if "preset" in said else {"seeds": "by_context"}
    values = preset_values(preset, asked)
    if "gate" in values:
        filled["gate"] = None if said.get("gate_share") is not None else values["gate"]
    return {**filled, **said, "preset": preset}
