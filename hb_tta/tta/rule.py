"""What a rule that combines views is given, what it gives, and how ties end, for words and classes.

V: views; view 0 is the real image, the others are crops of it or generated. R: rows (questions, or
beams of one; or images of a CLIP). K: the words of a vocabulary, or the classes of a task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

WORDS = "words"
"""Logits of an MLLM's next token over its vocabulary."""
CLASSES = "classes"
"""Logits of a CLIP over the classes of a task."""


class Embedded(NamedTuple):
    """What the logits of classes were made from.

    Attributes:
        features_RVD: image features of length 1.
        text_KD: text features of length 1.
        logit_scale: the factor of a cosine in a logit.
    """

    features_RVD: Tensor
    text_KD: Tensor
    logit_scale: Tensor


@dataclass(frozen=True)
class Views:
    """What a rule may look at.

    Attributes:
        logits_VRK: any real numbers; (V, K) will do for a single row.
        real_weight: the weight of the real image beside 1 for each other view.
        share: of the views that are trusted, where ``chosen_VR`` does not say which.
        alpha: how much ``contrast`` takes off.
        chosen_VR: the trusted views, by a filter of the caller's.
        embedded: of classes alone.
    """

    logits_VRK: Tensor
    real_weight: float = 1.0
    share: float = 0.5
    alpha: float = 1.0
    chosen_VR: Tensor | None = None
    embedded: Embedded | None = None

    def weights_VR(self) -> Tensor:
        """w for the real view, 1 for the others."""
        import torch

        logits = self.logits_VRK
        weights_VR = torch.ones(logits.shape[:-1], device=logits.device, dtype=logits.dtype)
        weights_VR[0] = self.real_weight
        return weights_VR

    def trusted_VR(self) -> Tensor:
        """Those weights, 0 for views that are not trusted: the least sure ones, unless chosen."""
        if self.chosen_VR is not None:
            return self.weights_VR() * self.chosen_VR
        return self._most_confident(self.weights_VR())

    def _most_confident(self, weights_VR: Tensor) -> Tensor:
        import torch

        entropy_VR = torch.where(weights_VR > 0, entropy(self.logits_VRK), math.inf)
        views = self.logits_VRK.shape[0] - (self.real_weight == 0)
        kept = max(1, int(self.share * views))  # int, as in TPT's code
        cutoff_R = entropy_VR.sort(0).values[kept - 1]
        return weights_VR * (entropy_VR <= cutoff_R)  # equal views are kept or left together


@dataclass(frozen=True)
class Rule:
    """A way to combine views.

    Attributes:
        scores: logits_RK (or logits_K) of ``Views``.
        works_on: ``WORDS``, ``CLASSES`` or both; a rule of classes may look at ``Views.embedded``.
    """

    scores: Callable[[Views], Tensor]
    works_on: frozenset[str]

    def __call__(self, views: Views) -> Tensor:
        """The combined logits_RK, ties settled."""
        scores_RK = self.scores(views)
        if len(views.logits_VRK) == 1:
            return scores_RK
        step_RK = 4 * _rounding(scores_RK)  # the least that outlives a softmax
        return scores_RK + step_RK * tie_break(scores_RK, views)


def rule(*works_on: str) -> Callable[[Callable[[Views], Tensor]], Rule]:
    """Make a ``Rule`` of a function.

    Args:
        works_on: ``WORDS``, ``CLASSES`` or both.
    """
    return lambda scores: Rule(scores, frozenset(works_on))


def tie_break(scores_RK: Tensor, views: Views, within: float = 0.0) -> Tensor:
    """1 for the word that wins where several share the best score, 0 for all others: (R, K).

    It is the word that the real image itself says, if that is one of them, else the one that the
    earliest view says, as in ``hb_tta.tta.vote``. Views without weight are not asked. Where no view
    says one of them, none wins here, and the first of them is taken as by any argmax.

    Args:
        within: scores that differ by no more are equal.
    """
    import torch

    best_RK = scores_RK >= scores_RK.amax(-1, keepdim=True) - within
    if not (best_RK.sum(-1) > 1).any():
        return torch.zeros_like(scores_RK)
    said_VR = views.logits_VRK.argmax(-1)
    sides_VR = best_RK.expand(said_VR.shape + best_RK.shape[-1:]).gather(-1, said_VR[..., None])
    sides_VR = sides_VR[..., 0] & (views.weights_VR() > 0) & (best_RK.sum(-1) > 1)
    first_R = sides_VR.to(torch.uint8).argmax(0, keepdim=True)
    wins_RK = torch.zeros_like(scores_RK)
    wins_RK.scatter_(-1, said_VR.gather(0, first_R)[0][..., None], 1.0)
    return wins_RK * sides_VR.any(0)[..., None]


def entropy(logits_VRK: Tensor) -> Tensor:
    """The entropy of each view's distribution over the words or classes, in nats: (V, R)."""
    logprobs_VRK = logits_VRK.log_softmax(-1)
    return -(logprobs_VRK.exp() * logprobs_VRK).nan_to_num(nan=0.0).sum(-1)


def _rounding(scores_RK: Tensor) -> Tensor:
    """How far apart floats lie at the best score: (R, 1)."""
    import torch

    best_R1 = scores_RK.amax(-1, keepdim=True)
    size_R1 = torch.where(best_R1.isfinite(), best_R1.abs(), 0.0)
    return torch.finfo(scores_RK.dtype).eps * size_R1.clamp(min=1.0)
