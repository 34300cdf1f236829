"""Rewards: how well a generated image shows what its context description says, with gradients."""

from hb_tta.rewards.evaluator import (
    MultimodalContextEvaluator,
    Reward,
    Targets,
    get_reward,
    list_rewards,
    load_rewards,
)

__all__ = [
    "MultimodalContextEvaluator",
    "Reward",
    "Targets",
    "get_reward",
    "list_rewards",
    "load_rewards",
]
