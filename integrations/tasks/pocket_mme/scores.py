"""MME's scores, and the ACC and ACC+ that the paper's Table 1 reports.

ACC: the share of questions answered rightly. ACC+: the share of images whose two questions both
are. Both in percent, averaged over categories; an image of which ``--limit`` left one question out
does not count.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lmms_eval.tasks.mme.utils import mme_process_results


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """One question's score under each metric's name, in MME's form."""
    (score,) = mme_process_results(doc, results).values()
    return {"mme_perception_score": score, "acc": score, "acc_plus": score}


def accuracy(results: list[dict[str, Any]]) -> float:
    """ACC."""
    return _average([sum(pair) / 2 for pair in pairs] for pairs in _pairs(results).values())


def accuracy_plus(results: list[dict[str, Any]]) -> float:
    """ACC+."""
    return _average([float(sum(pair) == 2) for pair in pairs] for pairs in _pairs(results).values())


def total(results: list[dict[str, Any]]) -> float:
    """MME's own score: ACC + ACC+ of each category, summed."""
    return (accuracy(results) + accuracy_plus(results)) * len(_pairs(results))


def _pairs(results: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Category → the two scores of each image."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        scores[result["category"], result["question_id"]].append(result["score"])
    pairs = defaultdict(list)
    for (category, _), pair in scores.items():
        if len(pair) == 2:
            pairs[category].append(pair)
    return dict(pairs)


def _average(categories: Any) -> float:
    means = [sum(values) / len(values) for values in categories]
    return 100 * sum(means) / len(means) if means else 0.0
