"""Standard errors and the paired t-test of evaluations, as harnesses report them.

After Miller, "Adding Error Bars to Evals" (arXiv 2411.00640). lmms-eval computes the same for
``--baseline`` and ``stderr_clustered``; sums run in the order of the questions, so that figures
agree with its own to the last digit. The report's own interval and test (hb_tta/metrics.py) assume
no normal distribution, and take images for the units in both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TTest:
    """How much two runs differ on the same questions, each question a unit of its own.

    Attributes:
        difference: the mean of a − b.
        error: its standard error.
        low, high: the interval of 95 %.
        t, p_value: of the hypothesis that there is no difference, two-sided.
        n: questions.
    """

    difference: float
    error: float
    low: float
    high: float
    t: float
    p_value: float
    n: int


def standard_error(scores: Sequence[float]) -> float | None:
    """Of the mean, each question a unit of its own; None of fewer than two."""
    if len(scores) < 2:
        return None
    return float(np.std(scores, ddof=1) / np.sqrt(len(scores)))


def clustered_error(scores: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Of the mean, where the questions of a group are not independent (equation 4 there).

    None where there are fewer than two groups.
    """
    n = len(scores)
    if len(set(groups)) < 2:
        return None
    mean = sum(scores) / n
    naive = sum((score - mean) ** 2 for score in scores) / (n - 1) / n
    by_group = defaultdict(list)
    for score, group in zip(scores, groups, strict=True):
        by_group[group].append(score - mean)
    within = 0.0
    for deviations in by_group.values():
        total = sum(deviations)
        within += total * total - sum(d * d for d in deviations)
    # Rounding alone makes it negative, where every group's deviations cancel each other.
    return math.sqrt(max(0.0, naive + within / (n * n)))


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> TTest | None:
    """Student's test of mean(a) − mean(b); None of fewer than two questions."""
    from scipy import special  # of all that is imported here the slowest

    n = len(a)
    if n < 2:
        return None
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / n
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    if error == 0:
        t = math.copysign(math.inf, mean) if mean else 0.0
        p_value = 0.0 if mean else 1.0
    else:
        t = mean / error
        p_value = float(2 * (1 - special.stdtr(n - 1, abs(t))))
    reach = float(special.stdtrit(n - 1, 0.975)) * error
    return TTest(mean, error, mean - reach, mean + reach, t, p_value, n)
