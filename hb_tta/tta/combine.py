"""Combining what a model says of several views: pure functions over views × vocabulary.

V: views; view 0 is the real image, the others are generated. R: rows (questions, or beams of one).
K: the words of the vocabulary. Every rule takes logits_VRK (or logits_VK), gives logits_RK (or
logits_K), does not depend on the order of the generated views, and gives back the logits of a
single view unchanged up to a constant, which no softmax sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hb_tta.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# A word without a vote stands this far below one with a vote; votes that tie are decided by it.
_BELOW_A_VOTE = 1e-3


def mean(logits_VRK: Tensor, real_weight: float = 1.0, share: float = 1.0) -> Tensor:
    """(w·real + Σ generated) / (w + n): the paper's average of logits (section 5.1) at w = 1.

    Args:
        logits_VRK: any real numbers; log-probabilities give the same distribution.
        real_weight: w; 0 leaves the real image out.
        share: not read.
    """
    return _weighted_mean(logits_VRK, _weights(logits_VRK, real_weight))


def confidence(logits_VRK: Tensor, real_weight: float = 1.0, share: float = 1.0) -> Tensor:
    """The mean of logits with each view weighted by its confidence, 1 / perplexity = exp(−H).

    The perplexity of a view's distribution is the number of words among which it hesitates. Entropy
    as a measure of a view's worth is TPT's (Shu et al. 2022, equation 3); a soft weight in place of
    its hard selection is ours.

    Args:
        real_weight: multiplies the real view's weight.
        share: not read.
    """
    confidence_VR = (-entropy(logits_VRK)).exp()
    return _weighted_mean(logits_VRK, _weights(logits_VRK, real_weight) * confidence_VR)


def selection(logits_VRK: Tensor, real_weight: float = 1.0, share: float = 0.5) -> Tensor:
    """The mean probability over the most confident views, as a logarithm (TPT's selection).

    Shu et al. 2022, equations 3 and 4: only views whose entropy is in the lowest ``share`` count
    (at least one); the real one has no privilege.

    Args:
        real_weight: multiplies the real view's weight where it is selected.
        share: of the views, in (0, 1]; TPT keeps 0.1 of 64.
    """
    weights_VR = _selected(logits_VRK, real_weight, share)
    return _weighted_mean(logits_VRK.softmax(-1), weights_VR).log()


def zero(logits_VRK: Tensor, real_weight: float = 1.0, share: float = 0.5) -> Tensor:
    """The vote of the most confident views: ZERO, "zero" temperature (Farina et al. 2024).

    Each of the selected views gives its weight to its most probable word. Words with equal votes,
    and those without, are ranked by the selected views' mean probability.

    Args:
        real_weight: the real view's votes.
        share: as in ``selection``; ZERO keeps 0.1 of 64.
    """
    import torch

    weights_VR = _selected(logits_VRK, real_weight, share)
    probabilities_VRK = logits_VRK.softmax(-1)
    votes_VRK = torch.zeros_like(logits_VRK)
    votes_VRK.scatter_(-1, logits_VRK.argmax(-1, keepdim=True), 1.0)
    votes_RK = _weighted_mean(votes_VRK, weights_VR)
    return (votes_RK + _BELOW_A_VOTE * _weighted_mean(probabilities_VRK, weights_VR)).log()


def entropy(logits_VRK: Tensor) -> Tensor:
    """The entropy of each view's distribution over the vocabulary, in nats: (V, R)."""
    logprobs_VRK = logits_VRK.log_softmax(-1)
    return -(logprobs_VRK.exp() * logprobs_VRK).nan_to_num(nan=0.0).sum(-1)


RULES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "mean": mean,
    "confidence": confidence,
    "selection": selection,
    "zero": zero,
}


@dataclass(frozen=True)
class Combiner:
    """A rule and its settings, as a function of logits.

    Attributes:
        rule: one of ``RULES``.
        real_weight: the weight of the real image beside 1 for each generated one.
        share: of the views that ``selection`` and ``zero`` keep.

    Raises:
        UserError: the rule is unknown, or a setting is out of range.
    """

    rule: str = "mean"
    real_weight: float = 1.0
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"combine={self.rule!r} is unknown: choose from {', '.join(RULES)}")
        if not (math.isfinite(self.real_weight) and self.real_weight >= 0):
            raise UserError(f"real_weight={self.real_weight} is out of range: use 0 or more")
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} is out of range: use more than 0, at most 1")

    def __call__(self, logits_VRK: Tensor) -> Tensor:
        """(V, R, K) → (R, K), or (V, K) → (K).

        Raises:
            UserError: the real image is the only view and has no weight.
        """
        if self.real_weight == 0 and logits_VRK.shape[0] == 1:
            raise UserError("real_weight=0 leaves no view: use more than 0, or generated views")
        return RULES[self.rule](logits_VRK, self.real_weight, self.share)


def _weights(logits_VRK: Tensor, real_weight: float) -> Tensor:
    """(V, R), or (V): w for the real view, 1 for the others."""
    import torch

    weights_VR = torch.ones(logits_VRK.shape[:-1], device=logits_VRK.device, dtype=logits_VRK.dtype)
    weights_VR[0] = real_weight
    return weights_VR


def _selected(logits_VRK: Tensor, real_weight: float, share: float) -> Tensor:
    """The weights of the views of lowest entropy, 0 for the others: (V, R)."""
    import torch

    weights_VR = _weights(logits_VRK, real_weight)
    entropy_VR = torch.where(weights_VR > 0, entropy(logits_VRK), math.inf)
    views = logits_VRK.shape[0] - (real_weight == 0)
    kept = max(1, int(share * views))  # int, as in TPT's code
    cutoff_R = entropy_VR.sort(0).values[kept - 1]
    return weights_VR * (entropy_VR <= cutoff_R)  # equal views are kept or left together


def _weighted_mean(values_VRK: Tensor, weights_VR: Tensor) -> Tensor:
    import torch

    weights_VR1 = weights_VR.unsqueeze(-1)
    # A view without weight has no say, also where it says that a word is impossible (−inf).
    terms_VRK = torch.where(weights_VR1 > 0, values_VRK * weights_VR1, 0.0)
    return terms_VRK.sum(0) / weights_VR1.sum(0)
