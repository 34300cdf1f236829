"""The built-in rules that combine views: pure functions over views × words or classes.

Shape suffixes as in rule.py. Apart from ``zero_shot``, no rule depends on the order of the views
that are not the real one, ties aside, and each gives back the logits of a single view unchanged up
to a constant, which no softmax sees. Views that are all the same give the word that one of them
gives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hb_tta.tta.rule import CLASSES, WORDS, Rule, Views, entropy, rule, tie_break

if TYPE_CHECKING:
    from torch import Tensor

PLAUSIBLE = 0.1
"""β of contrastive decoding: its code's default."""

# A word without a vote stands this far below one with a vote; no two votes are as close.
_BELOW_A_VOTE = 1e-3


@rule(WORDS)
def mean(views: Views) -> Tensor:
    """(w·real + Σ generated) / (w + n): the paper's average of logits (section 5.1) at w = 1.

    Log-probabilities give the same distribution as logits.
    """
    return _weighted_mean(views.logits_VRK, views.weights_VR())


average = Rule(mean.scores, frozenset([CLASSES]))
"""The mean, by the name that tables of CLIPs have it under."""


@rule(WORDS)
def confidence(views: Views) -> Tensor:
    """The mean of logits with each view weighted by its confidence, 1 / perplexity = exp(−H).

    The perplexity of a view's distribution is the number of words among which it hesitates. Entropy
    as a measure of a view's worth is TPT's (Shu et al. 2022, equation 3); a soft weight in place of
    its hard selection is ours. The real view's weight is multiplied by ``real_weight``.
    """
    confidence_VR = (-entropy(views.logits_VRK)).exp()
    return _weighted_mean(views.logits_VRK, views.weights_VR() * confidence_VR)


@rule(WORDS)
def selection(views: Views) -> Tensor:
    """The mean probability over the trusted views, as a logarithm (TPT's selection).

    Shu et al. 2022, equations 3 and 4: only views whose entropy is in the lowest ``share`` count
    (at least one; TPT keeps 0.1 of 64); the real one has no privilege.
    """
    return _weighted_mean(views.logits_VRK.softmax(-1), views.trusted_VR()).log()


@rule(WORDS)
def contrast(views: Views) -> Tensor:
    """(1 + α)·real − α·mean(distorted): visual contrastive decoding (Leng et al. 2024, eq. 3, 6).

    The views are the negatives: worse copies of the image, as noise makes them. What the model says
    whatever it is shown is taken off. A word is possible only where the real image gives it at
    least ``PLAUSIBLE`` of its best word's probability (their adaptive plausibility constraint).
    ``real_weight`` has no part in it.
    """
    real_RK = views.logits_VRK[0]
    if len(views.logits_VRK) == 1:
        return real_RK
    distorted_RK = views.logits_VRK[1:].mean(0)
    contrasted_RK = (1 + views.alpha) * real_RK - views.alpha * distorted_RK
    cut_R1 = real_RK.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    return contrasted_RK.masked_fill(real_RK < cut_R1, -math.inf)


@rule(WORDS, CLASSES)
def zero(views: Views) -> Tensor:
    """The vote of the trusted views: ZERO, "zero" temperature (Farina et al. 2024).

    Each of them gives its weight to its most probable word. Those without votes are ranked by the
    trusted views' mean probability. ZERO keeps 0.1 of 64 views.
    """
    import torch

    weights_VR = views.trusted_VR()
    votes_VRK = torch.zeros_like(views.logits_VRK)
    votes_VRK.scatter_(-1, views.logits_VRK.argmax(-1, keepdim=True), 1.0)
    votes_RK = _weighted_mean(votes_VRK, weights_VR)
    below_RK = _weighted_mean(views.logits_VRK.softmax(-1), weights_VR)
    below_RK = below_RK + tie_break(votes_RK, views, within=_BELOW_A_VOTE / 2)
    return (votes_RK + _BELOW_A_VOTE * below_RK).log()


@rule(CLASSES)
def zero_shot(views: Views) -> Tensor:
    """The real image alone (Radford et al. 2021)."""
    return views.logits_VRK[0]


def _weighted_mean(values_VRK: Tensor, weights_VR: Tensor) -> Tensor:
    import torch

    weights_VR1 = weights_VR.unsqueeze(-1)
    # A view without weight has no say, also where it says that a word is impossible (−inf).
    terms_VRK = torch.where(weights_VR1 > 0, values_VRK * weights_VR1, 0.0)
    return terms_VRK.sum(0) / weights_VR1.sum(0)
