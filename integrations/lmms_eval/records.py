"""Lines of a samples file → records: of MME its score, of any other task all of its numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.folders import SamplesFile
from hb_tta.integrations.lmms_eval.lines import Line, Lines, is_deep, number
from hb_tta.integrations.lmms_eval.numbers import Numbers, read_categories, read_numbers
from hb_tta.integrations.lmms_eval.said import (
    Said,
    combined_of,
    description_of,
    dropped_of,
    seen_of,
    sure_of,
)
from hb_tta.report.records import Metric, Record

_PAIR = re.compile(r"\((-?\d+(?:\.\d+)?(?:e[+-]?\d+)?), (?:True|False)\)")

MME_SCORES = ("mme_perception_score", "mme_cognition_score")


def check_lines(file: SamplesFile, lines: Lines) -> None:
    """Raises UserError unless there are lines, each of a document."""
    if not lines:
        raise UserError(f"{file.path} has no answers: evaluate again")
    for place, line in enumerate(lines, 1):
        document = line.get("doc_id")
        if isinstance(document, bool) or not isinstance(document, int | str):
            raise UserError(
                f"{file.path}, line {place} has no doc_id, which names a question: name a samples "
                "file of lmms-eval, or evaluate again"
            )


# ── MME ──────────────────────────────────────────────────────────────────────────────────────────


def is_mme(lines: Lines) -> bool:
    """Whether a task scores as MME does: then every line has to."""
    return any(_mme_score(line) is not None for line in lines)


def mme_records(file: SamplesFile, lines: Lines, said: Said) -> list[Record]:
    """A record a line.

    Raises:
        UserError: a line has no score of MME.
    """
    found = []
    for place, line in enumerate(lines, 1):
        score = _mme_score(line)
        if score is None:
            raise UserError(f"{file.path}, line {place} has no score of MME: evaluate again")
        about = {
            "group": str(score["question_id"]),
            "category": str(score["category"]),
            "score": float(score["score"] == 1),
        }
        found.append(_record(file, line, said, about))
    return found


def _mme_score(line: Mapping[str, Any]) -> dict[str, Any] | None:
    for name in MME_SCORES:
        score = line.get(name)
        if (
            isinstance(score, dict)
            and isinstance(score.get("question_id"), str | int)
            and isinstance(score.get("category"), str)
            and number(score.get("score")) is not None
        ):
            return score
    return None


# ── Any other task ───────────────────────────────────────────────────────────────────────────────


def records_of(
    file: SamplesFile, lines: Lines, said: Said, choices: Mapping[str, list[str]]
) -> tuple[list[Record], list[Metric], Numbers]:
    """A record a document, the metrics, and what else the numbers' reader found.

    Args:
        choices: the texts of a document's choices, where any of the runs has kept them.

    Raises:
        UserError: no metric has a number a question.
    """
    by_filter = _by_filter(file, lines)
    numbers = read_numbers(file, by_filter)
    if not numbers.by_metric:
        names = ", ".join(numbers.without) or "no metric"
        raise UserError(
            f"{file.path} has no number a question ({names:.200}): the task scores all of them "
            "together, so there is nothing to compare question by question"
        )
    first = next(iter(by_filter.values()))
    categories = read_categories(first)
    records = []
    for line in first:
        document = str(line["doc_id"])
        its = numbers.by_metric.items()
        scores = {name: values[document] for name, values in its if document in values}
        about = {
            "group": document,
            "category": categories.get(document, ""),
            "score": next(iter(scores.values()), 0.0),
            "scores": scores,
        }
        options = _options(line, choices.get(document, []))
        records.append(_record(file, line, said, about, options))
    metrics = [Metric(name, lower_is_better=name in numbers.lower) for name in numbers.by_metric]
    return records, metrics, numbers


def _by_filter(file: SamplesFile, lines: Lines) -> dict[str, Lines]:
    """Filter → its lines: a filter's lines follow those of the one before it."""
    names = file.filters
    seen: dict[str, int] = {}
    found: dict[str, Lines] = {name: [] for name in names}
    for line in lines:
        document = str(line["doc_id"])
        place = seen.get(document, 0)
        seen[document] = place + 1
        if place >= len(names):
            raise UserError(
                f"{file.path} has question {document:.80} more than once: evaluate once into a new "
                "folder"
            )
        found[names[place]].append(line)
    return {name: its for name, its in found.items() if its}


# ── What a page shows ────────────────────────────────────────────────────────────────────────────


def _record(
    file: SamplesFile,
    line: Line,
    said: Said,
    about: dict[str, Any],
    options: Sequence[str] = (),
) -> Record:
    document = str(line["doc_id"])
    records = said.by_document.get(document, [])
    inner = line.get("doc")
    text = line.get("input") or (inner.get("question") if isinstance(inner, dict) else "")
    return Record(
        question=document,
        text=_text(text or ""),
        target=_target(line, options),
        answer=_answer(line, options),
        description=description_of(records),
        seen=seen_of(file, records, options),
        combined=combined_of(records),
        dropped=dropped_of(records),
        sure=sure_of(records),
        options=options,
        **about,
    )


def _options(line: Line, texts: list[str]) -> list[str]:
    """What there was to choose from, where likelihoods were compared; numbered if not known."""
    losses = _losses(line)
    if len(texts) == len(losses) and all(texts) and len(set(texts)) == len(texts):
        return texts
    return [f"choice {place}" for place in range(1, len(losses) + 1)]


def _losses(line: Line) -> list[float]:
    """Of each choice; [] for a task that generates."""
    found = line.get("filtered_resps")
    if not isinstance(found, list) or len(found) < 2:
        return []
    losses = [_loss(one) for one in found]
    return [] if None in losses else [loss for loss in losses if loss is not None]


def _loss(response: Any) -> float | None:
    """Of a pair of loss and whether it is greedy; lmms-eval writes it as a list or as text."""
    if isinstance(response, str) and (told := _PAIR.fullmatch(response)):
        return number(float(told[1]))
    if isinstance(response, list) and len(response) == 2 and isinstance(response[1], bool):
        return number(response[0])
    return None


def _answer(line: Line, options: Sequence[str]) -> str:
    if options:
        losses = _losses(line)
        return options[losses.index(min(losses))]  # lmms-eval takes the least
    return _text(line.get("filtered_resps", ""))


def _target(line: Line, options: Sequence[str]) -> str:
    target = _text(line.get("target", ""))
    if options and target.isdecimal() and len(target) < 9 and int(target) < len(options):
        return options[int(target)]
    return target


def _text(response: Any) -> str:
    if isinstance(response, list):
        return _text(response[0]) if len(response) == 1 else "".join(map(_text, response))
    return "" if is_deep(response) else str(response)
