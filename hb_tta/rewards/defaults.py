"""Which weights a reward judges with where a person names none. Imports no torch.

A store's key needs them before, and often instead of, the judge itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hb_tta.errors import UserError
from hb_tta.families import Family
from hb_tta.weights import Weights

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "global": "evaluator",
        "fine_grained": "evaluator",
        "match_probability": "evaluator",
        "match_log_probability": "evaluator",
        "clip_text": "clip",
        "clip_image": "clip",
    }
)
"""Reward → the family's role that fills it."""

PUBLISHED: Mapping[str, Weights] = MappingProxyType(
    {"pickscore": Weights("yuvalkirstain/PickScore_v1")}
)
"""Reward → its own weights, whatever the family."""

_PICKLE = (
    "the aesthetic reward is published as a pickle, which is never read: convert its head to "
    "head.safetensors and name the folder, as in --set reward_weights.aesthetic=FOLDER or "
    "judge=aesthetic:FOLDER"
)


def default_weights(name: str, family: Family) -> Weights:
    """Those of a built-in reward.

    Raises:
        UserError: the family leaves the role empty, or there are none that can be read.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name in ROLES:
        return family.weights(ROLES[name])
    assert name == "aesthetic", name
    raise UserError(_PICKLE)
