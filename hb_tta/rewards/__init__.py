"""Rewards: how well a generated image shows what its context description says, with gradients.

protocol.py    what a judge is            registry.py  judges by name
evaluator.py   the paper's                clip.py, pickscore.py, aesthetic.py   others
pixels.py, reading.py, several.py         what they share
"""

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
