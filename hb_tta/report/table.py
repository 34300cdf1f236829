"""Scores as text, as Markdown and as JSON.

Those of MME and its like stand here, all in percent, as in the paper's Table 1; those of other
metrics in parts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hb_tta.metrics import Interval, PairedTest
from hb_tta.report import parts, renderers
from hb_tta.report.cells import NOTHING, Cell, Comparison, Table, figure
from hb_tta.report.scores import ALL, Score, Scored

NOTE = (
    "In percent, with 95 % bootstrap intervals over images; behind them the difference to the "
    "plain run and the p-value of a paired sign-flip test over images (not corrected for many "
    "tests)."
)


def text(task: str, scored: Sequence[Scored], width: int | None = None) -> str:
    """The table for a terminal: the runs of each category one below the other."""
    if scored[0].by_metric:
        return parts.text(task, scored, names_of(scored), width)
    kinds = kinds_of(scored)
    rows = [
        [
            f"{category}: {counts(scored[0].scores[category])}",
            name_of(one, scored),
            *cells_of(one, category)[: len(kinds)],
            changed(one.scores[category]),
        ]
        for category in scored[0].scores
        for one in scored
    ]
    columns = ["", "", *kinds, ""]
    return renderers.text(Table(columns, rows, f"{task}. {NOTE}", remarks(scored), heads=2), width)


def markdown(scored: Sequence[Scored]) -> str:
    """The same as a table in Markdown: a row a category and run."""
    return renderers.markdown(table(scored))


def table(scored: Sequence[Scored]) -> Table:
    """A row a category, or part, and run."""
    if scored[0].by_metric:
        return parts.long_table(scored, names_of(scored))
    rows: list[list[Cell | str]] = [
        [category, name_of(one, scored), *cells_of(one, category), _asked(one.scores[category])]
        for category in scored[0].scores
        for one in scored
    ]
    notes = [NOTE, *remarks(scored)]
    return Table(["category", "run", "ACC", "ACC+", "questions"], rows, notes=notes, heads=2)


def to_json(task: str, scored: Sequence[Scored]) -> dict[str, Any]:
    """Every figure of the report.

    ``runs`` → ``metrics``, see ``parts.to_json``. Of MME ``runs`` → ``categories`` → ``acc``,
    ``acc_interval`` ([low, high]), ``acc_plus``, ``acc_plus_interval``, ``questions``, ``images``,
    ``left_out``, and ``against_plain`` with the differences, their intervals, p-values and
    what could have been shown, in percent. ``acc_plus`` is null where images do not have two
    questions.
    """
    by_metric = scored[0].by_metric
    return {
        "task": task,
        **({"cluster": scored[0].run.unit} if by_metric else {"unit": "percent"}),
        "confidence": 0.95,
        "runs": [
            {
                "name": one.run.name,
                "model": one.run.model,
                "plain": one.run.plain,
                "compared_with": one.plain.name if one.plain else None,
                "settings": dict(one.run.settings),
                **({"metrics": parts.to_json(one)} if by_metric else _categories_json(one)),
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
    return f"{one.run.model}: {one.run.name}" if len(models) > 1 else one.run.name


def names_of(scored: Sequence[Scored]) -> list[str]:
    """``name_of`` each."""
    return [name_of(one, scored) for one in scored]


def counts(score: Score) -> str:
    """How many questions and images count."""
    left_out = f", {score.left_out} left out" if score.left_out else ""
    return f"{score.questions} questions, {score.images} images{left_out}"


def changed(score: Score) -> str:
    """How many questions changed from wrong to right and back; "" for what is not compared."""
    change = score.change
    return f"{change.fixed} fixed, {change.broken} broken" if change else ""


def cells_of(one: Scored, category: str) -> list[Cell | str]:
    """ACC and ACC+ of a category, with their changes from the plain run."""
    against = one.plain.name if one.plain else ""
    return [
        NOTHING
        if interval is None
        else Cell.of(interval, None if test is None else Comparison.of(test, against))
        for interval, test in one.scores[category].figures
    ]


def remarks(scored: Sequence[Scored]) -> list[str]:
    """What a reader must know to read the figures right."""
    said = parts.uncompared(scored)
    said += _could_have_shown(scored)
    left_out = max(one.total.left_out for one in scored)
    if left_out:
        said.append(
            f"{left_out} questions are left out: their image's other question was not asked."
        )
    return said


def _could_have_shown(scored: Sequence[Scored]) -> list[str]:
    """What the whole sample could have shown of each run that is compared."""
    found = []
    for one in scored:
        if one.total.change is None:
            continue
        tests = {"ACC": one.total.change.acc, "ACC+": one.total.change.acc_plus}
        sizes = [
            f"{figure(test.could_have_shown, 'percent')} points of {kind}"
            for kind, test in tests.items()
            if test is not None and test.could_have_shown is not None
        ]
        if sizes:
            found.append(f"{name_of(one, scored)} {' and '.join(sizes)}")
    return [f"{parts.SHOWN_NOTE} Of {ALL}: {'; '.join(found)}."] if found else []


def _asked(score: Score) -> str:
    return "; ".join(filter(None, (counts(score), changed(score))))


def _categories_json(one: Scored) -> dict[str, Any]:
    return {"categories": {name: _score_json(score) for name, score in one.scores.items()}}


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
    shown = test.could_have_shown
    return {
        f"{name}_difference": 100 * test.difference,
        f"{name}_difference_interval": [100 * test.low, 100 * test.high],
        f"{name}_p_value": test.p_value,
        f"{name}_could_have_shown": None if shown is None else 100 * shown,
    }
