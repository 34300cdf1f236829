"""Numbers with their uncertainty: arrays in, numbers out. Imports numpy alone.

Shapes: N images (or questions), V views of an image, D feature dimensions, R resamples,
G groups. Shares are between 0 and 1, never percent.

Wrong arrays (empty, not a number, of lengths that do not match) raise ``ValueError``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Random numbers that are held at once by the resampling: bounds its memory to some 10 MB.
_CHUNK = 1_000_000

# A difference of so many standard errors is shown at p < 0.05 in four of five samples; an interval
# of 95 % is 3.92 of them wide.
_SHOWN = (1.96 + 0.84) / 3.92


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: the statistic of the data as they are.
        low, high: the ends of the interval. They meet where all units agree, which says little
            where ``n`` is small.
        n: the independent units that were resampled (images, where groups were given).
    """

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedTest:
    """How two methods differ on the same images.

    Attributes:
        difference: the mean of a − b.
        low, high: bootstrap interval of the difference.
        p_value: two-sided, of the hypothesis that on each image a and b could be swapped.
        n: the independent units (images, where groups were given).
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int

    @property
    def could_have_shown(self) -> float | None:
        """The true difference that four of five such samples would have shown at p < 0.05.

        None where no image differs: nothing tells then how much they vary. Of intervals of 95 %.
        """
        width = self.high - self.low
        return _SHOWN * width if width > 0 else None


# ── Uncertainty ──────────────────────────────────────────────────────────────────────────────────


def bootstrap_interval(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    statistic: Callable[[Floats], float] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: one number an observation.
        groups: the image of each observation. Whole images are drawn, for the questions of one
            image are not independent. None: each observation is a unit of its own.
        statistic: from an array of values to a number, in whatever order they come; None: the mean,
            which is much faster.
        confidence: the share of such intervals that hold the true value, where units are many.
        resamples: how many times the units are drawn anew.
        seed: the same data, in whatever order, and the same seed give the same interval.
    """
    _check_resampling(confidence, resamples)
    units = _Units.of(_numbers(values, "values"), groups)
    rng = np.random.default_rng(seed)
    if statistic is None:
        estimate = units.sums.sum() / units.counts.sum()
        drawn = _resampled_means(units, resamples, rng)
    else:
        estimate = statistic(units.values)
        drawn = np.array([statistic(units.drawn(rng)) for _ in range(resamples)], dtype=np.float64)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high), len(units))


def paired_test(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Sign-flip permutation test of mean(a) − mean(b), with the difference's bootstrap interval.

    Were the methods the same, an image's a and b could be swapped, which flips the sign of its
    difference. The p-value is the share of such flips that leave the mean at least as far from
    zero: of all flips where they are at most ``resamples``, else of a random sample into which the
    data as they are count once, so that it is never zero (Phipson and Smyth 2010).

    Args:
        a, b: one number an observation, of the same observations in the same order. To ask for a
            gain, a is the augmented run and b the unaugmented one.
        groups: the image of each observation: an image flips as a whole.
        confidence, resamples, seed: as in ``bootstrap_interval``.
    """
    first, second = _numbers(a, "a"), _numbers(b, "b")
    _check_lengths(a=first, b=second)
    difference = first - second
    interval = bootstrap_interval(
        difference, groups=groups, confidence=confidence, resamples=resamples, seed=seed
    )
    sums = _Units.of(difference, groups).sums
    p_value = _sign_flip_p_value(sums, resamples, np.random.default_rng(seed))
    return PairedTest(interval.estimate, interval.low, interval.high, p_value, interval.n)


@dataclass(frozen=True)
class _Units:
    """Observations in an order of their own (so that the caller's does not matter), by unit."""

    values: Floats
    starts: NDArray[np.intp]
    counts: NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats, groups: ArrayLike | None) -> _Units:
        if groups is None:
            places = np.arange(len(values))
            return cls(np.sort(values), places, np.ones_like(places))
        labels = np.asarray(groups)
        _check_lengths(values=values, groups=labels)
        _, unit, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(values[np.lexsort((values, unit))], np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sums(self) -> Floats:
        return np.add.reduceat(self.values, self.starts)

    def drawn(self, rng: np.random.Generator) -> Floats:
        """The values of as many units as there are, drawn with replacement."""
        chosen = rng.integers(len(self), size=len(self))
        counts = self.counts[chosen]
        ends = np.cumsum(counts)
        return self.values[
            np.repeat(self.starts[chosen] - ends + counts, counts) + np.arange(ends[-1])
        ]


def _resampled_means(units: _Units, resamples: int, rng: np.random.Generator) -> Floats:
    """The mean over each of so many draws of units."""
    sums, counts = units.sums, units.counts
    same_size = bool((counts == counts[0]).all())
    means = []
    for rows in _chunks(resamples, len(units)):
        chosen = rng.integers(len(units), size=(rows, len(units)))
        drawn = len(units) * counts[0] if same_size else counts[chosen].sum(axis=1)
        means.append(sums[chosen].sum(axis=1) / drawn)
    return np.concatenate(means)


def _sign_flip_p_value(sums: Floats, resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p-value of the sum of ``sums`` under random signs."""
    sums = sums[sums != 0]  # zeros flip to themselves
    units = len(sums)
    # Sums that are equal but for the order of their additions count as equal.
    extreme = abs(sums.sum()) - 1e-10 * np.abs(sums).sum()
    if 2**units <= resamples:
        flipped = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        return float(np.mean(np.abs(sums.sum() - 2 * (flipped @ sums)) >= extreme))
    count = 1  # the data as they are
    for rows in _chunks(resamples, units):
        flipped = rng.integers(2, size=(rows, units), dtype=np.int8)
        count += int(np.sum(np.abs(sums.sum() - 2 * (flipped @ sums)) >= extreme))
    return count / (resamples + 1)


def _chunks(resamples: int, units: int) -> Iterator[int]:
    """Numbers of resamples to do at once, so that memory stays bounded."""
    most = max(1, _CHUNK // units)
    for done in range(0, resamples, most):
        yield min(most, resamples - done)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, bins: int = 15
) -> float:
    """ECE: mean distance of accuracy and confidence over equal bins (Guo et al. 2017, equation 3).

    Args:
        confidences: the probability given to the answer chosen, between 0 and 1.
        correct: 1 where that answer was right and 0 where not.
        bins: of equal width; a confidence on an edge belongs to the bin below it.
    """
    confidence, right = _numbers(confidences, "confidences"), _scores(correct)
    _check_lengths(confidences=confidence, correct=right)
    if confidence.min() < 0 or confidence.max() > 1:
        raise ValueError("confidences are probabilities, between 0 and 1")
    if bins < 1:
        raise ValueError(f"bins={bins}: at least 1")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gap = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


# ── Images ───────────────────────────────────────────────────────────────────────────────────────


def roc_auc(scores: ArrayLike, right: ArrayLike) -> float:
    """The area under the ROC curve: how often a right one has a higher score than a wrong one.

    Ties count half. The rank-sum form (Hanley and McNeil 1982).

    Args:
        scores: one number an observation, larger where it is thought right.
        right: 1 or 0 an observation.

    Returns:
        From 0 to 1; NaN where all are right, or none is.
    """
    values, truths = _numbers(scores, "scores"), _scores(right)
    _check_lengths(scores=values, right=truths)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # the mean rank among equals
    rights, wrongs = int(truths.sum()), int((1 - truths).sum())
    if not rights or not wrongs:
        return math.nan
    return float((ranks[truths == 1].sum() - rights * (rights + 1) / 2) / (rights * wrongs))


def diversity(generated_NVD: ArrayLike) -> Floats:
    """How far an image's views are from each other (Table 4, "Among generated"; there V = 20).

    Args:
        generated_NVD: the views' features, such as CLIP image embeddings; at least two views.

    Returns:
        (N,) mean Euclidean distance over an image's pairs of views: ``bootstrap_interval`` takes
        it.
    """
    features_NVD = _numbers(generated_NVD, "generated features", dimensions=3)
    views = features_NVD.shape[1]
    if views < 2:
        raise ValueError("the diversity among views needs at least two views an image")
    one, other = np.triu_indices(views, k=1)
    return np.array(
        [np.linalg.norm(view_VD[one] - view_VD[other], axis=1).mean() for view_VD in features_NVD]
    )


def diversity_from_reference(reference_ND: ArrayLike, generated_NVD: ArrayLike) -> Floats:
    """How far an image's views are from it (Table 4, "Reference (real) vs generated").

    Args:
        reference_ND: the references' features.
        generated_NVD: their views', by the same model.

    Returns:
        (N,) mean Euclidean distance over an image's views.
    """
    reference = _numbers(reference_ND, "reference features", dimensions=2)
    generated = _numbers(generated_NVD, "generated features", dimensions=3)
    _check_lengths(reference=reference, generated=generated[:, 0])
    return np.linalg.norm(generated - reference[:, None], axis=-1).mean(axis=1)


def diversity_by_seeds(generated_NVD: ArrayLike, counts: Sequence[int]) -> dict[int, Floats]:
    """``diversity`` of the first so many views of each image (Figure 15, 10 to 100 seeds).

    Args:
        generated_NVD: the views' features, in the order of their seeds.
        counts: of views, each at least 2 and at most V.
    """
    generated = _numbers(generated_NVD, "generated features", dimensions=3)
    if max(counts) > generated.shape[1]:
        raise ValueError(f"{max(counts)} seeds are asked for, and there are {generated.shape[1]}")
    return {count: diversity(generated[:, :count]) for count in counts}


def answer_fidelity(reference_N: Sequence[Any], generated_NR: Sequence[Sequence[Any]]) -> Floats:
    """How often a view is answered as its reference is (Table 12).

    Args:
        reference_N: an oracle's answers to questions about the references; None: it had none.
        generated_NR: its answers about their views, in R runs.

    Returns:
        (N,) the share of runs that agree. No answer agrees with nothing, not with another none.
    """
    if len(reference_N) != len(generated_NR):
        raise ValueError(f"{len(reference_N)} references, {len(generated_NR)} generated")
    agree = [
        [float(answer is not None and answer == reference) for answer in runs]
        for reference, runs in zip(reference_N, generated_NR, strict=True)
    ]
    return _numbers(agree, "answers", dimensions=2).mean(axis=1)


# ── Checks ───────────────────────────────────────────────────────────────────────────────────────


def _numbers(values: ArrayLike, name: str, dimensions: int = 1) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name} have {array.ndim} dimensions, not {dimensions}")
    if not array.size:
        raise ValueError(f"{name} are empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinity")
    return array


def _scores(values: ArrayLike) -> Floats:
    scores = _numbers(values, "scores")
    if not np.isin(scores, (0, 1)).all():
        raise ValueError("a score is 1 (right) or 0 (wrong)")
    return scores


def _check_lengths(**arrays: NDArray) -> None:
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"lengths do not match: {shapes}")


def _check_resampling(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: at least 1")
