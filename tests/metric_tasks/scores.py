"""How the tiny tasks score: what a metric's value may look like in tasks of lmms-eval."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Any


def by_category(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """As mmstar and its like: each category's metric, and all of them once more."""
    right = float(results[0].strip() == doc["letter"])
    about = {"question_id": doc["flag"], "category": doc["side"], "score": right}
    return {"average": about, f"{doc['side']} half": about}


def average(results: list[dict[str, Any]]) -> float:
    """The mean of the categories' means."""
    of_category = defaultdict(list)
    for result in results:
        of_category[result["category"]].append(result["score"])
    return sum(sum(its) / len(its) for its in of_category.values()) / len(of_category)


def letters(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """The letters alone, as seedbench_2_plus and mmmu have them; and a submission."""
    about = {"question_id": doc["index"], "pred": results[0], "answer": doc["letter"]}
    return {"letters_acc": about, "submission": {str(doc["index"]): results[0]}}


def share_of_letters(results: list[dict[str, Any]]) -> float:
    return 100 * sum(one["pred"] == one["answer"] for one in results) / len(results)


def no_figure(results: list[Any]) -> float:
    return 0.0


def rated(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """A judge's rating, an error of which less is better, and what the questions share."""
    said = int(results[0])
    about = {"flag": doc["flag"], "points": said}
    return {"rating": about, "distance": {"flag": doc["flag"], "points": abs(said - 3) / 2}}


def mean_rating(results: list[dict[str, Any]]) -> float:
    return sum(one["points"] for one in results) / len(results)


def choice(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """The least loss, as lmms-eval's own: its version 0.7.3 hands them over as text, and fails."""
    losses = [ast.literal_eval(result)[0] for result in results]
    lengths = map(len, doc["colours"])
    by_length = [loss / length for loss, length in zip(losses, lengths, strict=True)]
    chosen = {"acc": losses, "acc_norm": by_length}
    return {name: float(its.index(min(its)) == doc["place"]) for name, its in chosen.items()}


def parts_of_a_point(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """A point for the middle, less the farther from it."""
    return {"flag_score": max(0.0, 1 - 0.3 * abs(int(results[0]) - 3))}
