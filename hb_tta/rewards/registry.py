"""Rewards by name: a line a reward, and other packages' by the group ``hb_tta.rewards``.

What a package offers is a ``Reward`` class, under one of its ``names``: see ``hb_tta.plugins``.
Imports no torch before a reward is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hb_tta.plugins import Registry
from hb_tta.weights import Weights

if TYPE_CHECKING:
    import torch

    from hb_tta.families import Family
    from hb_tta.rewards.protocol import Judge, Reward


def _fault(name: str, found: Any) -> str | None:
    if name in getattr(found, "names", ()):
        return None
    return "is no Reward that gives that name: mend its package"


REWARDS = Registry(
    "reward",
    "rewards",
    {
        "global": "hb_tta.rewards.evaluator:MultimodalContextEvaluator",
        "fine_grained": "hb_tta.rewards.evaluator:MultimodalContextEvaluator",
        "match_probability": "hb_tta.rewards.evaluator:MultimodalContextEvaluator",
        "match_log_probability": "hb_tta.rewards.evaluator:MultimodalContextEvaluator",
        "clip_text": "hb_tta.rewards.clip:CLIPReward",
        "clip_image": "hb_tta.rewards.clip:CLIPReward",
        "pickscore": "hb_tta.rewards.pickscore:PickScore",
        "aesthetic": "hb_tta.rewards.aesthetic:Aesthetic",
    },
    _fault,
)


def list_rewards() -> list[str]:
    """The names that ``get_reward`` knows: the built-in ones, then those of other packages.

    Raises:
        UserError: a package claims a name that is taken.
    """
    return REWARDS.names()


def get_reward(name: str) -> type[Reward]:
    """The class that gives a reward.

    Raises:
        UserError: the name is unknown or claimed twice, or its package does not import.
    """
    return REWARDS.get(name)


def load_rewards(
    names: Sequence[str],
    family: Family,
    *,
    weights: Mapping[str, Weights] | None = None,
    dtype: torch.dtype | None = None,
) -> list[Judge]:
    """The judges that give the named rewards: one for each class and the weights it is to have.

    Args:
        names: of rewards.
        family: fills what ``weights`` leaves out.
        weights: reward → weights other than its default ones.
        dtype: of the vision towers; None: float32.

    Returns:
        A judge that is the only one of its class gives all of its ``names``; of several, each
        gives those that it was named for.

    Raises:
        UserError: a name is unknown or weights cannot be loaded.
    """
    import torch

    from hb_tta.rewards.several import OneOfSeveral

    asked: dict[tuple[type[Reward], Weights], list[str]] = {}
    for name in dict.fromkeys(names):
        kind = get_reward(name)
        named = (weights or {}).get(name) or kind.default_weights(family)
        asked.setdefault((kind, named), []).append(name)
    kinds = Counter(kind for kind, _ in asked)
    judges: list[Judge] = []
    for (kind, named), its in asked.items():
        judge = kind.from_pretrained(named, dtype=dtype or torch.float32)
        judges.append(judge if kinds[kind] == 1 else OneOfSeveral(judge, its))
    return judges
