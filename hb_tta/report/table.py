"""Scores as text, as Markdown and as JSON. All in percent, as in the paper's Table 1."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from hb_tta.metrics import Interval, PairedTest
from hb_tta.report.contact_sheet import spelled_out
from hb_tta.report.scores import ALL, Score, Scored

NOTE = (
    "In percent, with 95 % bootstrap intervals over images; behind them the difference to the "
    "plain run and the p-value of a paired sign-flip test over images (not corrected for many "
    "tests)."
)
MINUS = "−"
WIDTH = 100  # of the lines above the table


def text(task: str, scored: Sequence[Scored]) -> str:
    """The table for a terminal: the runs of each category one below the other."""
    names = [name_of(one, scored) for one in scored]
    rows = {
        category: [
            (name, *cells(one.scores[category])) for name, one in zip(names, scored, strict=True)
        ]
        for category in scored[0].scores
    }
    widths = [max(len(row[i]) for its in rows.values() for row in its) for i in range(3)]
    lines = textwrap.wrap(f"{spelled_out(task)}. {NOTE}", WIDTH)
    for category, its in rows.items():
        lines += ["", f"{spelled_out(category)}: {counts(scored[0].scores[category])}"]
        for row in its:
            name, *figures = (f"{row[i]:<{widths[i]}}" for i in range(3))
            told = [f"{kind} {its}" for kind, its in zip(kinds_of(scored), figures, strict=False)]
            lines.append("  ".join(["", name, *told, row[3]]).rstrip())
    return "\n".join([*lines, "", *remarks(scored)]).rstrip()


def markdown(scored: Sequence[Scored]) -> str:
    """The same as a table in Markdown: a row a category and run."""
    rows = ["| category | run | ACC | ACC+ | questions |", "| --- | --- | --- | --- | --- |"]
    for category in scored[0].scores:
        for one in scored:
            acc, acc_plus, changes = cells(one.scores[category])
            changed = f"; {changes}" if changes else ""
            values = (category, name_of(one, scored), acc, acc_plus)
            asked = f"{counts(one.scores[category])}{changed}"
            rows.append("| " + " | ".join(_cell(v) for v in (*values, asked)) + " |")
    return "\n".join([*rows, "", NOTE, *remarks(scored)])


def to_json(task: str, scored: Sequence[Scored]) -> dict[str, Any]:
    """Every figure of the report.

    ``runs`` → ``categories`` → ``acc``, ``acc_interval`` ([low, high]), ``acc_plus``,
    ``acc_plus_interval``, ``questions``, ``images``, ``left_out``, and ``against_plain`` with the
    differences, their intervals and p-values. ``acc_plus`` is null where images do not have two
    questions.
    """
    return {
        "task": task,
        "unit": "percent",
        "confidence": 0.95,
        "runs": [
            {
                "name": one.run.name,
                "model": one.run.model,
                "plain": one.run.plain,
                "compared_with": one.plain.name if one.plain else None,
                "settings": dict(one.run.settings),
                "categories": {name: _score_json(score) for name, score in one.scores.items()},
            }
            for one in scored
        ],
    }


def kinds_of(scored: Sequence[Scored]) -> tuple[str, ...]:
    """ACC, and ACC+ where any images have their two questions."""
    pairs = any(score.acc_plus is not None for one in scored for score in one.scores.values())
    return ("ACC", "ACC+") if pairs else ("ACC",)


def name_of(one: Scored, scored: Sequence[Scored]) -> str:
    """A run's name, with its model's where there are several."""
    models = {other.run.model for other in scored}
    return spelled_out(f"{one.run.model}: {one.run.name}" if len(models) > 1 else one.run.name)


def counts(score: Score) -> str:
    """How many questions and images count."""
    left_out = f", {score.left_out} left out" if score.left_out else ""
    return f"{score.questions} questions, {score.images} images{left_out}"


def cells(score: Score) -> tuple[str, str, str]:
    """ACC and ACC+ with their changes, and how many questions changed."""
    acc, acc_plus = (_figure(*figure) for figure in score.figures)
    change = score.change
    return acc, acc_plus, f"{change.fixed} fixed, {change.broken} broken" if change else ""


def remarks(scored: Sequence[Scored]) -> list[str]:
    """What a reader must know to read the figures right."""
    said = []
    if len(scored) > 1 and all(one.plain is None for one in scored):
        said.append(
            "No run without augmentation of the same model is among the results, so nothing is "
            "compared."
        )
    left_out = max(one.scores[ALL].left_out for one in scored)
    if left_out:
        said.append(
            f"{left_out} questions are left out: their image's other question was not asked."
        )
    return said


def percent(share: float) -> str:
    """A share as percent with one digit."""
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """A difference of shares in points, with its sign."""
    points = f"{abs(100 * share):.1f}"
    return points if float(points) == 0 else ("+" if share > 0 else MINUS) + points


def p_value(test: PairedTest) -> str:
    """A p-value as it is written."""
    return "p<0.001" if test.p_value < 0.001 else f"p={test.p_value:.3f}"


def _figure(interval: Interval | None, change: PairedTest | None) -> str:
    if interval is None:
        return "–"
    figure = f"{percent(interval.estimate)} [{percent(interval.low)}, {percent(interval.high)}]"
    return f"{figure} {signed(change.difference)} ({p_value(change)})" if change else figure


def _score_json(score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {
        **_interval_json("acc", score.acc),
        **_interval_json("acc_plus", score.acc_plus),
        "questions": score.questions,
        "images": score.images,
        "left_out": score.left_out,
    }
    if score.change is not None:
        found["against_plain"] = {
            **_test_json("acc", score.change.acc),
            **_test_json("acc_plus", score.change.acc_plus),
            "fixed": score.change.fixed,
            "broken": score.change.broken,
        }
    return found


def _interval_json(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {name: None, f"{name}_interval": None}
    ends = [100 * interval.low, 100 * interval.high]
    return {name: 100 * interval.estimate, f"{name}_interval": ends}


def _test_json(name: str, test: PairedTest | None) -> dict[str, Any]:
    if test is None:
        return {}
    return {
        f"{name}_difference": 100 * test.difference,
        f"{name}_difference_interval": [100 * test.low, 100 * test.high],
        f"{name}_p_value": test.p_value,
    }


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
