"""Answers from several views without any tuning, on the same features as test-time prompt tuning.

All take image features (B, V, D) and text features (C, D), both of length 1, and give
probabilities (B, C). View 0 is the real image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Views(NamedTuple):
    """What a combiner may look at.

    Attributes:
        features_BVD: image features.
        text_CD: text features of the untuned prompt.
        logits_BVC: their logits.
        logit_scale: the factor of a cosine in a logit.
        selected_BK: the confident views' places, by the view filter of the run.
    """

    features_BVD: Tensor
    text_CD: Tensor
    logits_BVC: Tensor
    logit_scale: Tensor
    selected_BK: Tensor


def zero_shot(views: Views) -> Tensor:
    """The real image alone (Radford et al. 2021)."""
    return views.logits_BVC[:, 0].softmax(-1)


def average(views: Views) -> Tensor:
    """All views' logits, averaged."""
    return views.logits_BVC.mean(1).softmax(-1)


def zero(views: Views) -> Tensor:
    """ZERO (Farina et al. 2024): the confident views vote, each at temperature zero.

    A tie goes to the class of higher mean probability: that is mixed in with less than a vote.
    """
    chosen = views.selected_BK[..., None].expand(-1, -1, views.logits_BVC.shape[-1])
    logits = views.logits_BVC.gather(1, chosen)
    votes = F.one_hot(logits.argmax(-1), logits.shape[-1]).float().mean(1)
    weight = 1e-3 / logits.shape[1]
    return (1 - weight) * votes + weight * logits.softmax(-1).mean(1)


_LAMBDA_Y, _LAMBDA_Q = 0.2, 4.0  # Zanella and Ben Ayed 2024, section 4: for all data sets
_NEIGHBOURS = 0.3  # share of the nearest views that decides a view's bandwidth
_ITERATIONS = 5  # of each of the two steps, and of both in turn


def mta(views: Views) -> Tensor:
    """MTA (Zanella and Ben Ayed 2024): a robust MeanShift that learns each view's inlierness."""
    features = views.features_BVD
    bandwidth = _bandwidth(features)
    chances = views.logits_BVC.softmax(-1)
    affinity = chances @ chances.transpose(1, 2)
    inlierness = torch.full_like(bandwidth, 1 / features.shape[1])
    mode = features[:, 0]

    def density() -> Tensor:
        distance = (features - mode[:, None]).norm(dim=-1)
        return torch.exp(-(distance**2) / (2 * bandwidth**2))

    for _ in range(_ITERATIONS):
        kernel = density()
        for _ in range(_ITERATIONS):
            agreement = (affinity @ inlierness[..., None]).squeeze(-1)
            inlierness = F.softmax((kernel + _LAMBDA_Q * agreement) / _LAMBDA_Y, dim=-1)
        for _ in range(_ITERATIONS):
            weight = density() * inlierness
            mode = F.normalize((weight[..., None] * features).sum(1), dim=-1)
    return (views.logit_scale * mode @ views.text_CD.T).softmax(-1)


def _bandwidth(features_BVD: Tensor) -> Tensor:
    """(B, V): the root of half the mean squared distance to the nearest views."""
    views = features_BVD.shape[1]
    distance = torch.cdist(features_BVD, features_BVD).sort(-1).values
    nearest = distance[..., 1 : 1 + max(1, int(_NEIGHBOURS * (views - 1)))]
    squared = (nearest**2).mean(-1) if views > 1 else torch.ones_like(distance[..., 0])
    return (0.5 * squared).sqrt().clamp(min=1e-6)  # equal views have no distance


COMBINERS: Mapping[str, Callable[[Views], Tensor]] = MappingProxyType(
    {"zero-shot": zero_shot, "average": average, "zero": zero, "mta": mta}
)
