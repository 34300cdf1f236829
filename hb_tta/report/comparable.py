"""Runs that can be compared: over the same questions, each once, and of names that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hb_tta.errors import UserError
from hb_tta.report.records import Record, Run


def check_once(records: Sequence[Record], where: object) -> None:
    """Raises UserError, which names ``where``, if a question stands twice."""
    often = [name for name, count in Counter(r.question for r in records).items() if count > 1]
    if often:
        raise UserError(
            f"{where} has question {often[0]} more than once: evaluate once into a new folder"
        )


def check_questions(runs: Sequence[Run]) -> None:
    """Raises UserError unless all runs answered the same questions."""
    first = {record.question: record for record in runs[0].records}
    for run in runs[1:]:
        other = {record.question: record for record in run.records}
        for question in sorted(first.keys() ^ other.keys()):
            has, lacks = (runs[0], run) if question in first else (run, runs[0])
            raise UserError(
                f"question {question} is in the run {has.name} and not in {lacks.name}: "
                "evaluate both on the same questions (--limit)"
            )
        same = run.model == runs[0].model
        for question, record in first.items():
            if _asks(record, same) != _asks(other[question], same):
                raise UserError(
                    f"question {question} is another one in {runs[0].name} ({record.text!r:.80}) "
                    f"than in {run.name} ({other[question].text!r:.80}): evaluate the same task"
                )


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
