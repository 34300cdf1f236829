"""Rewards: how well a generated image shows what its context description says, with gradients.

protocol.py    what a judge is            registry.py  judges by name
defaults.py    which weights they have    evaluator.py   the paper's
clip.py, pickscore.py, aesthetic.py   others
pixels.py, reading.py, several.py     what they share

The names below load on first use: whatever only needs a judge's name imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hb_tta.rewards.evaluator import MultimodalContextEvaluator
    from hb_tta.rewards.protocol import Judge, Reward, Targets
    from hb_tta.rewards.registry import get_reward, list_rewards, load_rewards

__all__ = [
    "Judge",
    "MultimodalContextEvaluator",
    "Reward",
    "Targets",
    "get_reward",
    "list_rewards",
    "load_rewards",
]

_PLACES = {
    "Judge": "protocol",
    "MultimodalContextEvaluator": "evaluator",
    "Reward": "protocol",
    "Targets": "protocol",
    "get_reward": "registry",
    "list_rewards": "registry",
    "load_rewards": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
