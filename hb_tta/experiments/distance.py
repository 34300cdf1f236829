"""How far a set of views is from the set of their references: FID and KID (table 9, appendix H).

Both are torchmetrics'. FID (Heusel et al., 2017) of few images is too large, and the more so the
fewer they are: below ``FEWEST`` a warning says so. KID (Bińkowski et al., 2018) is not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.experiments.features import Features
from hb_tta.metrics import Interval, PairedTest

FEWEST = 1000  # images
BLOCKS = 20  # of the jackknife
_KID_SUBSETS = 20  # of more images; fewer are one subset, which is all there is to know


@dataclass(frozen=True)
class Distances:
    """Of one method's views.

    Attributes:
        fid, kid: with intervals over images.
        n: views, and references.
    """

    fid: Interval
    kid: Interval
    n: int


def image_distances(
    features: Features, references: Sequence[Any], views: Sequence[Any]
) -> Distances:
    """FID and KID of views to their references.

    Args:
        features: the family's CLIP, or FID's Inception.
        references, views: images or files, as many of each, in the same order.

    Raises:
        UserError: torchmetrics is not installed, or there are fewer than two images.
    """
    real_ND, generated_ND = features.of(references), features.of(views)
    return Distances(
        fid(real_ND, generated_ND), kid(real_ND, generated_ND, warn=False), len(generated_ND)
    )


def fid(real_ND: np.ndarray, generated_ND: np.ndarray, *, warn: bool = True) -> Interval:
    """The Fréchet distance of two sets of features, with a jackknife interval.

    Args:
        real_ND, generated_ND: row i of one is the reference of row i of the other.
        warn: where there are fewer than ``FEWEST``.
    """
    return _interval(_fid, real_ND, generated_ND, warn=warn)


def fid_difference(real_ND: np.ndarray, first_ND: np.ndarray, second_ND: np.ndarray) -> PairedTest:
    """FID of one set of views less that of another of the same references, by the jackknife.

    The p-value is that of a normal deviate.
    """
    found = _interval(_difference, real_ND, np.concatenate([first_ND, second_ND], 1), warn=False)
    error = (found.high - found.low) / (2 * 1.96)
    deviate = abs(found.estimate) / error if error > 0 else math.inf
    p_value = math.erfc(deviate / math.sqrt(2)) if found.estimate else 1.0
    return PairedTest(found.estimate, found.low, found.high, p_value, found.n)


def _difference(real_ND: Tensor, both_ND: Tensor) -> float:
    first, second = both_ND.chunk(2, dim=1)
    return _fid(real_ND, first) - _fid(real_ND, second)


def kid(real_ND: np.ndarray, generated_ND: np.ndarray, *, warn: bool = True) -> Interval:
    """The kernel distance (the mean over subsets), with a jackknife interval. See ``fid``."""
    return _interval(_kid, real_ND, generated_ND, warn=warn)


def _interval(
    distance: Callable[[Tensor, Tensor], float], real: np.ndarray, generated: np.ndarray, warn: bool
) -> Interval:
    """The distance, and 1.96 standard errors around it by leaving out one block after the other.

    A bootstrap draws images twice, which is what makes FID larger; a jackknife does not.
    """
    _check(real, generated, warn)
    ours, theirs = torch.from_numpy(real), torch.from_numpy(generated)
    whole = distance(ours, theirs)
    blocks = min(BLOCKS, len(real) // 2)
    place = torch.randperm(len(real), generator=torch.Generator().manual_seed(0)) % blocks
    left_out = [distance(ours[place != b], theirs[place != b]) for b in range(blocks)]
    error = float(np.sqrt((blocks - 1) * np.var(left_out)))
    return Interval(whole, whole - 1.96 * error, whole + 1.96 * error, len(real))


def _check(real: np.ndarray, generated: np.ndarray, warn: bool) -> None:
    if len(real) != len(generated) or real.ndim != 2:
        raise ValueError(f"features {real.shape} and {generated.shape}: give as many of each")
    if len(real) < 4:
        raise UserError(f"{len(real)} images have no distance as a set: give {FEWEST} or more")
    if warn and len(real) < FEWEST:
        warnings.warn(
            f"FID of {len(real)} images is too large by an unknown part: it takes {FEWEST}",
            HbTtaWarning,
            stacklevel=4,
        )


def _fid(real_ND: Tensor, generated_ND: Tensor) -> float:
    metric = _torchmetrics().fid.FrechetInceptionDistance(feature=_Rows(real_ND.shape[1]))
    return _value(metric.set_dtype(torch.float64), real_ND, generated_ND)


def _kid(real_ND: Tensor, generated_ND: Tensor) -> float:
    size = min(len(real_ND), FEWEST)
    with warnings.catch_warnings():  # it warns of the memory that features take
        warnings.simplefilter("ignore", UserWarning)
        metric = _torchmetrics().kid.KernelInceptionDistance(
            feature=_Rows(real_ND.shape[1]),
            subsets=_KID_SUBSETS if len(real_ND) > size else 1,
            subset_size=size,
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the subsets
        return _value(metric.set_dtype(torch.float64), real_ND, generated_ND)


def _value(metric: Any, real_ND: Tensor, generated_ND: Tensor) -> float:
    metric.update(real_ND, real=True)
    metric.update(generated_ND, real=False)
    found = metric.compute()
    return float(found[0] if isinstance(found, tuple) else found)


class _Rows(nn.Module):
    """Features that were computed before, in the place of torchmetrics' image model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features_ND: Tensor) -> Tensor:
        """As they are."""
        return features_ND


def _torchmetrics() -> Any:
    try:
        from torchmetrics import image
    except ImportError:
        raise UserError("FID and KID need torchmetrics: pip install 'hb-tta[reproduce]'") from None
    return image
