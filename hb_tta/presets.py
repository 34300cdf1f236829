"""Presets: what decides the views where a person says nothing, in one place.

    paper   every question gets its views, and the plain mean of all counts, as in the paper
    safe    views that are checked, and only where the model is not sure without them

The values of ``safe`` were chosen on the dev seed of the bundled family, by `hb-tta calibrate`;
docs/results/presets.md has what they were chosen on. What they are worth for another model nobody
knows who has not measured it: `hb-tta calibrate` does.

A value that a person says beats the preset's. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hb_tta.errors import UserError

WORDS, CLASSES = "words", "classes"
"""Who is asked, as ``hb_tta.tta.rule`` has it: an MLLM for words, or a CLIP for classes."""

_PAPER: dict[str, Any] = {}
_SAFE: dict[str, dict[str, Any]] = {
    WORDS: {"gate": 0.9},
    CLASSES: {"gate": 0.5},  # a CLIP's probabilities are not an MLLM's
}
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {"paper": {WORDS: _PAPER, CLASSES: _PAPER}, "safe": _SAFE}
)
"""Name → who is asked → option → value."""

UNSAID = "paper"
"""In Python and for `hb-tta augment`: the n views that were asked for."""

_AT_HARNESSES = {"hummingbird": "safe"}


def preset_values(name: str, asked: str = WORDS) -> Mapping[str, Any]:
    """What a preset says.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"preset={name!r} is not known: choose from {', '.join(PRESETS)}")
    return PRESETS[name][asked]


def at_harness(method: str, said: Mapping[str, Any], asked: str = WORDS) -> dict[str, Any]:
    """What a person said of the views in a harness, and what a preset says of the rest.

    Args:
        method: its preset where none is said: "safe" for hummingbird, else "paper".
        said: option → value.
        asked: ``WORDS`` or ``CLASSES``.
    """
    preset = str(said.get("preset", _AT_HARNESSES.get(method, UNSAID)))
    filled = {**preset_values(preset, asked), **said, "preset": preset}
    if said.get("gate_share") is not None and "gate" not in said:
        filled["gate"] = None
    return filled
