"""Results of ``hb-tta tpt`` as a table: a row a method, a column a part of the task."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from hb_tta.metrics import bootstrap_interval, paired_test

Entries = dict[str, dict[str, Any]]  # task → figures
Results = Sequence[dict[str, Any]]

CLEAR = 0.05  # a gain of a smaller p-value is set in bold
_UNAUGMENTED = ("zero-shot",)  # methods that see the real image alone
_BASES = ("zero-shot", "tpt + none")  # what a row's gain is over: the first of them that is there


def markdown(results: Results) -> str:
    """Accuracies in percent with 95 % intervals, ECE, and what was run on how many samples."""
    tasks, rows = _rows(results)
    base = _base(rows)
    head = ["", *tasks, "average", *([f"gain over {base}"] if base else [])]
    lines = [_line(head), _line(["---"] * len(head))]
    for name, entries in rows.items():
        cells = [_cell(entries[task]) if task in entries else "" for task in tasks]
        lines.append(_line([name, *cells, *_summary(name, rows, tasks, base)]))
    return "\n".join([*lines, "", "; ".join(_counts(results))])


def html(results: Results) -> str:
    """The same as one page that needs no other file, with each gain over zero-shot."""
    tasks, rows = _rows(results)
    base = _base(rows)
    columns = ["", *tasks, "average", *([f"gain over {base}"] if base else [])]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>"
        + "".join(f"<td>{_html_cell(entries.get(task))}</td>" for task in tasks)
        + "".join(f"<td>{cell}</td>" for cell in _summary(name, rows, tasks, base))
        + "</tr>\n"
        for name, entries in rows.items()
    )
    notes = (
        "Top-1 accuracy in percent with its 95 % bootstrap interval; gains on the same samples, "
        "with the p-value of a paired permutation test; ECE in percent. "
        + "; ".join(_counts(results))
    )
    style = resources.files("hb_tta.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>hb-tta tpt</title>'
        f"<style>{style}</style><header><h1>Test-time prompt tuning</h1></header><main>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        f'</div><p class="notes">{escape(notes)}</p></main></html>\n'
    )


def _rows(results: Results) -> tuple[list[str], dict[str, Entries]]:
    """Tasks, and method with its views → task → figures."""
    tasks = list(dict.fromkeys(result["task"] for result in results))
    rows: dict[str, Entries] = {}
    for result in results:
        for method, entry in result["methods"].items():
            views = "" if method in _UNAUGMENTED else f" + {result['augment']}"
            told = entry | {"samples": result["samples"]}
            rows.setdefault(f"{method}{views}", {})[result["task"]] = told
    return tasks, rows


def _counts(results: Results) -> list[str]:
    counts = {}
    for result in results:
        subset = " (a subset)" if result["subset"] else ""
        counts[result["task"]] = f"{result['samples']} of {result['of']} samples{subset}"
    if len(set(counts.values())) == 1:
        return [f"each: {next(iter(counts.values()))}"]
    return [f"{task}: {count}" for task, count in counts.items()]


def _base(rows: dict[str, Entries]) -> str | None:
    return next((name for name in _BASES if name in rows), None)


def _summary(
    name: str, rows: dict[str, Entries], tasks: Sequence[str], base: str | None
) -> list[str]:
    """A row's last cells: its average, and the gain over the base where there is one."""
    average = _average(rows[name], tasks)
    if base is None:
        return [average]
    return [average, "" if name == base else _gain(rows[name], rows[base], tasks)]


def _average(entries: Entries, tasks: Sequence[str]) -> str:
    """The plain mean over tasks; empty until all of them are done."""
    if set(entries) != set(tasks):
        return ""
    values, groups = _weighted(entries, tasks)
    found = bootstrap_interval(values, groups=groups)
    return f"{100 * found.estimate:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _gain(entries: Entries, base: Entries, tasks: Sequence[str]) -> str:
    """Of the mean over tasks, on the same samples."""
    if set(entries) != set(tasks) or set(base) != set(tasks):
        return ""
    (values, groups), (before, _) = _weighted(entries, tasks), _weighted(base, tasks)
    test = paired_test(values, before, groups=groups)
    low, middle, high = (100 * part for part in (test.low, test.difference, test.high))
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}], p = {test.p_value:.2g}"


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


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(entry: dict[str, Any]) -> str:
    share = entry["accuracy"]
    low, high = 100 * share["low"], 100 * share["high"]
    return f"{100 * share['estimate']:.1f} [{low:.1f}, {high:.1f}] ECE {100 * entry['ece']:.1f}"


def _html_cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    share = entry["accuracy"]
    interval = f"{100 * share['low']:.1f}–{100 * share['high']:.1f}"
    lines = [f"{100 * share['estimate']:.1f}<small>{interval}</small>"]
    if gain := entry.get("gain over zero-shot"):
        way = "up" if gain["difference"] > 0 else "down"
        clear = " sure" if gain["p_value"] < CLEAR else ""
        lines.append(
            f'<small class="{way}{clear}">{100 * gain["difference"]:+.1f}, '
            f"p = {gain['p_value']:.2g}</small>"
        )
    return "".join([*lines, f"<small>ECE {100 * entry['ece']:.1f}</small>"])
