"""MTA (Zanella and Ben Ayed 2024): a CLIP's views by a robust MeanShift over their features.

R images, V views, K classes, D dimensions of a feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hb_tta.tta.rule import CLASSES, Views, rule

if TYPE_CHECKING:
    from torch import Tensor

_LAMBDA_Y, _LAMBDA_Q = 0.2, 4.0  # section 4: for all data sets
_NEIGHBOURS = 0.3  # share of the nearest views that decides a view's bandwidth
_EQUAL = 1e-3  # of features of length 1: what rounding makes of no distance is below it
_ITERATIONS = 5  # of each of the two steps, and of both in turn


@rule(CLASSES)
def mta(views: Views) -> Tensor:
    """The logits of the mode of the views' features; each view's inlierness is learnt."""
    import torch
    import torch.nn.functional as F

    assert views.embedded is not None, "a rule of classes is given their features"
    features, text_KD, logit_scale = views.embedded
    bandwidth = _bandwidth(features)
    chances = views.logits_VRK.transpose(0, 1).softmax(-1)
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
    return logit_scale * mode @ text_KD.T


def _bandwidth(features_RVD: Tensor) -> Tensor:
    """(R, V): the root of half the mean squared distance to the nearest views.

    Of a view whose nearest ones are its equals (one of few views, twice among them) that is 0, and
    it would weigh nothing once the mode has moved at all: it has the image's mean bandwidth.
    """
    import torch

    views = features_RVD.shape[1]
    distance = torch.cdist(features_RVD, features_RVD).sort(-1).values
    nearest = distance[..., 1 : 1 + max(1, int(_NEIGHBOURS * (views - 1)))]
    squared = (nearest**2).mean(-1) if views > 1 else torch.ones_like(distance[..., 0])
    bandwidth = (0.5 * squared).sqrt()
    mean = bandwidth.mean(-1, keepdim=True).expand_as(bandwidth)
    bandwidth = torch.where(bandwidth < _EQUAL, torch.maximum(bandwidth, mean), bandwidth)
    return bandwidth.clamp(min=1e-6)  # where all views are equal
