"""Which numbers the lines of a samples file have: what a task's ``process_results`` gave each.

A metric's value is a number, a truth value, or a dictionary that has one beside what else its
aggregation needs: under the task's ``score_key``, or one of ``KEYS``. Where it has the chosen and
the right letter alone, whether they are the same is the number. What has none (the pairs that a
corpus's BLEU is made of, a submission's text) is left out, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hb_tta.integrations.lmms_eval.folders import SamplesFile
from hb_tta.integrations.lmms_eval.lines import Lines, number

# Where the number may be in a dictionary, the likeliest first.
KEYS = (
    *("score", "correct", "is_correct", "accuracy", "acc", "match_success", "exact_match"),
    *("anls", "iou", "f1", "rating", "gpt_score", "total_score", "scores", "value", "hit"),
)
CHOSEN = ("pred_answer", "pred", "parsed_pred", "prediction")
RIGHT = ("answer", "target", "gt_answer", "ground_truth")
CATEGORIES = (
    *("category", "sub_category", "subcategory", "l2_category", "l2-category", "subdomain"),
    *("task_category", "task_type", "sub_task", "subtask", "task", "domain", "question_type"),
    *("type", "topic", "dim"),
)

# What lmms-eval itself writes into a line; all else are metrics.
_ITS_OWN = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts"),
    *("doc_hash", "prompt_hash", "target_hash", "input_media", "input", "filter", "idx", "bypass"),
}
_WORDS = {"True": 1.0, "False": 0.0}  # of numpy's truth values, which are written as text
_NUMPY = re.compile(r"-?\d+\.\d+(e[+-]?\d+)?")  # and its floats of 32 bits


@dataclass(frozen=True)
class Numbers:
    """The numbers of a samples file.

    Attributes:
        by_metric: metric → document → number; in the task's order.
        lower: the metrics of which less is better.
        own: what lmms-eval says of all questions, by metric.
        without: metrics that have no number a question.
    """

    by_metric: dict[str, dict[str, float]]
    lower: frozenset[str]
    own: dict[str, float]
    without: list[str]


def read_numbers(file: SamplesFile, by_filter: Mapping[str, Lines]) -> Numbers:
    """All numbers of a task.

    Args:
        file: whose settings name the metrics.
        by_filter: filter → its lines; of one filter its name stands for nothing.
    """
    found: dict[str, dict[str, float]] = {}
    own: dict[str, float] = {}
    without: list[str] = []
    for name, lines in by_filter.items():
        for metric in _metrics(file, lines):
            label = metric if len(by_filter) == 1 else f"{metric} ({name})"
            told = number(file.aggregates.get(f"{metric},{name}"))
            values = _values(metric, lines, file, told)
            if not values:
                without.append(label)
                continue
            found[label] = values
            if told is not None:
                own[label] = told
    lower = {label for label in found if file.is_lower_better(label.split(" (")[0])}
    return Numbers(found, frozenset(lower), own, without)


def _metrics(file: SamplesFile, lines: Lines) -> list[str]:
    """The task's, in its order, and what else is among the lines."""
    there = dict.fromkeys(name for line in lines for name in line if name not in _ITS_OWN)
    return [
        *(name for name in file.metrics if name in there),
        *(name for name in there if name not in file.metrics),
    ]


def _values(
    metric: str, lines: Lines, file: SamplesFile, own: float | None
) -> dict[str, float] | None:
    """Document → number; None where some line's value is there and is no number."""
    told = {str(line["doc_id"]): line[metric] for line in lines if not _absent(line.get(metric))}
    if not all(isinstance(value, dict) for value in told.values()):
        return _all_numbers(told)
    for key in dict.fromkeys((file.score_key, *KEYS)):
        inner = {doc: value[key] for doc, value in told.items() if not _absent(value.get(key))}
        if inner and (found := _all_numbers(inner)):
            return found
    return _same_letters(told, own)


def _absent(value: Any) -> bool:
    return value is None or value == {}


def _all_numbers(values: Mapping[str, Any]) -> dict[str, float] | None:
    found = {doc: _number(value) for doc, value in values.items()}
    if any(value is None for value in found.values()):
        return None
    return {doc: value for doc, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _WORDS.get(value, number(float(value)) if _NUMPY.fullmatch(value) else None)
    if isinstance(value, list):  # one a repeat, whose mean counts
        each = [None if isinstance(one, list) else _number(one) for one in value]
        numbers = [one for one in each if one is not None]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(each) else None
    return number(value)


# ── Letters ──────────────────────────────────────────────────────────────────────────────────────


def _same_letters(told: Mapping[str, Any], own: float | None) -> dict[str, float] | None:
    """Whether the chosen letter is the right one.

    None where there are no letters, or where lmms-eval's own figure is not their mean: the task
    compares otherwise then.
    """
    pairs = {doc: (_first(value, CHOSEN), _first(value, RIGHT)) for doc, value in told.items()}
    if not pairs or not all(right and len(right) == 1 for _, right in pairs.values()):
        return None
    found = {doc: float(chosen == right) for doc, (chosen, right) in pairs.items()}
    mean = sum(found.values()) / len(found)
    is_theirs = own is None or min(abs(own - mean), abs(own - 100 * mean)) < 1e-6
    return found if is_theirs else None


def _first(value: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these fields that is there, as lmms-eval's own comparison reads it."""
    found = next((value[name] for name in names if value.get(name)), "")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found.strip().upper() if isinstance(found, str) else ""


# ── Categories ───────────────────────────────────────────────────────────────────────────────────


def read_categories(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Document → category, by the first field of ``CATEGORIES`` that splits the questions."""
    told: dict[str, dict[str, str]] = {}
    documents = []
    for line in lines:
        documents.append(str(line["doc_id"]))
        for value in line.values():
            if isinstance(value, dict):
                for name in CATEGORIES:
                    if isinstance(value.get(name), str):
                        told.setdefault(name, {})[documents[-1]] = value[name]
    for name in CATEGORIES:
        distinct = len(set(told.get(name, {}).values()))
        if len(told.get(name, {})) == len(documents) and 1 < distinct <= len(documents) / 2:
            return told[name]
    return {}
