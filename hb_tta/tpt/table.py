"""Results of ``hb-tta tpt`` as a table: a row a method, a column a part of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hb_tta.metrics import PairedTest, bootstrap_interval, paired_test
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown, figure
from hb_tta.report.document import document
from hb_tta.report.parts import SHOWN, SHOWN_NOTE

Entries = dict[str, dict[str, Any]]  # task → figures
Results = Sequence[dict[str, Any]]

TITLE = "Prompt tuning"

_UNAUGMENTED = ("zero-shot",)  # methods that see the real image alone
_BASES = ("zero-shot", "tpt + none")  # what a row's gain is over: the first of them that is there
_NOTE = (
    "Top-1 accuracy in percent with its 95 % bootstrap interval; gains on the same samples, "
    "with the p-value of a paired permutation test; ECE in percent. " + SHOWN_NOTE + " "
)


def markdown(results: Results) -> str:
    """Accuracies in percent with 95 % intervals, ECE, and what was run on how many samples."""
    return renderers.markdown(table(results))


def text(results: Results, *, shown: bool = False) -> str:
    """The same for a terminal; ``shown``: also the gain that the sample could have shown."""
    return renderers.text(table(results, shown=shown))


def html(results: Results) -> str:
    """The same as one page that needs no other file, with what each gain is worth."""
    return document(TITLE, renderers.html(page_table(results)), lead=lead(results))


def lead(results: Results) -> str:
    """What was evaluated, in a line."""
    tasks = len({result["task"] for result in results})
    return f"Test-time prompt tuning, {tasks} {'task' if tasks == 1 else 'tasks'}"


def table(results: Results, *, shown: bool = False) -> Table:
    """A row a method and its views, a column a task, the average over tasks and its gain."""
    tasks, rows, base = _rows(results)
    summary = ["average", *([f"gain over {base}", SHOWN] if base else [])]
    kept = len(summary) if shown else 2
    lines = [
        [
            name,
            *(cell(entries.get(task), gains=False) for task in tasks),
            *_summary(name, rows, tasks, base)[:kept],
        ]
        for name, entries in rows.items()
    ]
    notes = ["; ".join(_counts(results)), *([SHOWN_NOTE] if shown and base else [])]
    return Table(["", *tasks, *summary[:kept]], lines, notes=notes)


def page_table(results: Results, *, title: str = "") -> Table:
    """The same for a page: what matters most comes first, and each figure has its gain."""
    tasks, rows, base = _rows(results)
    summary = ["average", *([f"gain over {base}", SHOWN] if base else [])]
    lines = [
        [
            name,
            *_summary(name, rows, tasks, base),
            *(cell(entries.get(task), gains=True) for task in tasks),
        ]
        for name, entries in rows.items()
    ]
    notes = [_NOTE + "; ".join(_counts(results))]
    return Table(["", *summary, *tasks], lines, title=title, notes=notes)


def _rows(results: Results) -> tuple[list[str], dict[str, Entries], str | None]:
    """Tasks, method with its views → task → figures, and the method that gains are over."""
    tasks = list(dict.fromkeys(result["task"] for result in results))
    rows: dict[str, Entries] = {}
    for result in results:
        for method, entry in result["methods"].items():
            views = "" if method in _UNAUGMENTED else f" + {result['augment']}"
            told = entry | {"samples": result["samples"]}
            rows.setdefault(f"{method}{views}", {})[result["task"]] = told
    return tasks, rows, next((name for name in _BASES if name in rows), None)


def _counts(results: Results) -> list[str]:
    counts = {}
    for result in results:
        subset = " (a subset)" if result["subset"] else ""
        counts[result["task"]] = f"{result['samples']} of {result['of']} samples{subset}"
    if len(set(counts.values())) == 1:
        return [f"each: {next(iter(counts.values()))}"]
    return [f"{task}: {count}" for task, count in counts.items()]


def cell(entry: dict[str, Any] | None, *, gains: bool) -> Cell | str:
    if entry is None:
        return ""
    share, gain = entry["accuracy"], entry.get("gain over zero-shot")
    test = Comparison(gain["p_value"], "zero-shot", gain["difference"]) if gain and gains else None
    note = f"ECE {figure(entry['ece'])}"
    if orders := entry.get("orders"):
        note += f"; {len(orders)} orders: {', '.join(map(figure, orders))}"
    return Cell(share["estimate"], share["low"], share["high"], share.get("n"), test, note=note)


def _summary(
    name: str, rows: dict[str, Entries], tasks: Sequence[str], base: str | None
) -> list[Cell | str]:
    """A row's average; and its gain over the base, and which gain the sample could have shown."""
    mean = average(rows[name], tasks)
    if base is None:
        return [mean]
    test = None if name == base else gain(rows[name], rows[base], tasks)
    if test is None:
        return [mean, "", ""]
    return [mean, Cell.difference(test, base), could_have_shown(test)]


def average(entries: Entries, tasks: Sequence[str]) -> Cell | str:
    """The plain mean over tasks; empty until all of them are done."""
    if set(entries) != set(tasks):
        return ""
    values, groups = _weighted(entries, tasks)
    return Cell.of(bootstrap_interval(values, groups=groups))


def gain(entries: Entries, base: Entries, tasks: Sequence[str]) -> PairedTest | None:
    """Of the mean over tasks, on the same samples; None until all of them are done."""
    if set(entries) != set(tasks) or set(base) != set(tasks):
        return None
    (values, groups), (before, _) = _weighted(entries, tasks), _weighted(base, tasks)
    return paired_test(values, before, groups=groups)


def _weighted(entries: Entries, tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All scores, so scaled that their mean is the tasks' mean; and the sample of each."""
    scores = [np.array(entries[task]["scores"], np.float64) for task in tasks]
    total = sum(map(len, scores))
    values = [part * total / (len(tasks) * len(part)) for part in scores]
    groups, first = [], 0
    for part, task in zip(scores, tasks, strict=True):
        samples = entries[task]["samples"]
        groups.append(first + np.arange(len(part)) // (len(part) // samples))
        first += samples
    return np.concatenate(values), np.concatenate(groups)
