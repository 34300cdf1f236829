"""Runs that can be compared: the same questions and metrics, each once, and names that differ."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.report.records import ACC, Metric, Record, Run


def check_once(records: Sequence[Record], where: object) -> None:
    """Raises UserError, which names ``where``, if a question stands twice."""
    often = [name for name, count in Counter(r.question for r in records).items() if count > 1]
    if often:
        raise UserError(
            f"{where} has question {often[0]:.80} more than once: evaluate once into a new folder"
        )


def check_questions(runs: Sequence[Run]) -> None:
    """Raises UserError unless all runs answered the same questions."""
    first = {record.question: record for record in runs[0].records}
    for run in runs[1:]:
        other = {record.question: record for record in run.records}
        for question in sorted(first.keys() ^ other.keys()):
            has, lacks = (runs[0], run) if question in first else (run, runs[0])
            raise UserError(
                f"question {question:.80} is in the run {has.name:.80} and not in "
                f"{lacks.name:.80}: "
                "evaluate both on the same questions (--limit)"
            )
        same = run.model == runs[0].model
        for question, record in first.items():
            if _asks(record, same) != _asks(other[question], same):
                raise UserError(
                    f"question {question:.80} is another one in {runs[0].name:.80} "
                    f"({record.text!r:.80}) than in {run.name:.80} "
                    f"({other[question].text!r:.80}): evaluate the same task"
                )


def of_equal_metrics(runs: Sequence[Run]) -> list[Run]:
    """The runs with the metrics that all have, each over the questions that have it in all.

    Metrics that cover all questions come first.

    Raises:
        UserError: no metric is in all runs.
    """
    if runs[0].metrics == (ACC,):
        return list(runs)
    kept = {
        metric: _having(metric, runs) for metric in runs[0].metrics if _in_all(metric.name, runs)
    }
    kept = {metric: questions for metric, questions in kept.items() if questions}
    if not kept:
        names = [", ".join(metric.name for metric in run.metrics) for run in runs]
        told = "; ".join(names)
        raise UserError(f"the runs have no metric in common ({told:.200}): name runs of one task")
    whole = max(map(len, kept.values()))
    ordered = sorted(kept, key=lambda metric: len(kept[metric]) < whole)
    metrics = [replace(metric, kind=_kind(metric, kept[metric], runs)) for metric in ordered]
    return [_with_metrics(run, metrics, list(map(kept.__getitem__, ordered))) for run in runs]


def _in_all(name: str, runs: Sequence[Run]) -> bool:
    return all(name in [metric.name for metric in run.metrics] for run in runs)


def _having(metric: Metric, runs: Sequence[Run]) -> set[str]:
    """The questions that have a number of a metric in all runs."""
    having = [{r.question for r in run.records if r.value(metric) is not None} for run in runs]
    both, some = set.intersection(*having), set.union(*having)
    if both != some:
        warnings.warn(
            f"{metric.name:.80}: {len(some - both)} questions have no number in one of the runs "
            "and are left out of all",
            HbTtaWarning,
            stacklevel=2,
        )
    return both


def _kind(metric: Metric, questions: set[str], runs: Sequence[Run]) -> str:
    values = (r.scores[metric.name] for run in runs for r in run.records if r.question in questions)
    return "percent" if all(0 <= value <= 1 for value in values) else "fine"


def _with_metrics(run: Run, metrics: list[Metric], questions: list[set[str]]) -> Run:
    records = []
    for record in run.records:
        both = zip(metrics, questions, strict=True)
        scores = {m.name: record.scores[m.name] for m, its in both if record.question in its}
        records.append(replace(record, scores=scores, score=next(iter(scores.values()), 0.0)))
    return replace(run, records=records, metrics=tuple(metrics))


def _asks(record: Record, same_model: bool) -> tuple[str, ...]:
    """What is the same in runs that can be compared; tasks word their prompts for the model."""
    words = record.text if same_model else ""
    return record.group, record.category, record.target, words


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with what tells them apart in names that were the same."""
    named = [replace(run, name=" ".join([run.name, *_differing(run, runs)])) for run in runs]
    total = Counter((run.name, run.model) for run in named)
    so_far = Counter[tuple[str, str | None]]()
    numbered = []
    for run in named:
        so_far[run.name, run.model] += 1
        number = f" ({so_far[run.name, run.model]})" if total[run.name, run.model] > 1 else ""
        numbered.append(replace(run, name=run.name + number))
    return numbered


def _differing(run: Run, runs: Sequence[Run]) -> list[str]:
    """The settings in which a run differs from others of its name; its weights if nothing else."""
    twins = [other for other in runs if (other.name, other.model) == (run.name, run.model)]
    names = sorted({name for twin in twins for name in twin.settings})
    differing = [n for n in names if len({twin.settings.get(n) for twin in twins}) > 1]
    told = [name for name in differing if name != "spec"] or differing
    return [f"{name}={run.settings.get(name, 'default')}" for name in told]
