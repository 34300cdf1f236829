"""lmms-eval's samples files → runs of records.

Any samples file of any task will do, with or without our flag: MME's questions are scored in pairs,
all other tasks by their own metrics.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.lmms_eval.again import augment_settings, making_again
from hb_tta.integrations.lmms_eval.clusters import clustered, clusters_of
from hb_tta.integrations.lmms_eval.folders import SamplesFile, find_samples
from hb_tta.integrations.lmms_eval.lines import Lines, read_lines
from hb_tta.integrations.lmms_eval.records import check_lines, is_mme, mme_records, records_of
from hb_tta.integrations.lmms_eval.said import Said, choices_of, read_said
from hb_tta.report.comparable import check_once, check_questions, named_apart, of_equal_metrics
from hb_tta.report.records import Record, Run

_SAME = ("limit", "offset", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed")


def read_runs(
    sources: Sequence[str], *, task: str | None = None, store: str | None = None
) -> tuple[str, list[Run]]:
    """The runs of one task in the folders and files that a person names.

    Of evaluations with the same settings in one folder the latest counts.

    Args:
        sources: lmms-eval's output folders, or samples files.
        task: which task, where there are several.
        store: the store's folder, for the command that makes missing views again.

    Returns:
        The task and its runs, those without augmentation first.

    Raises:
        UserError: nothing to read, several tasks, or runs over different questions.
    """
    files = list(find_samples(list(sources)))
    name = _one_task({file.task for file in files}, task)
    chosen = _latest([file for file in files if file.task == name])
    read = [_Read.of(file) for file in chosen]
    runs = _runs(read, store)
    _check_settings(chosen, runs)
    check_questions(runs)
    return name, named_apart(sorted(of_equal_metrics(runs), key=lambda run: not run.plain))


# ── Which files ──────────────────────────────────────────────────────────────────────────────────


def _one_task(tasks: set[str], chosen: str | None) -> str:
    listed = ", ".join(sorted(tasks))
    if chosen is not None and chosen not in tasks:
        raise UserError(f"--task {chosen}: the results hold {listed} alone")
    if chosen is None and len(tasks) > 1:
        raise UserError(f"the results hold several tasks ({listed}): choose one with --task")
    return chosen or tasks.pop()


def _latest(files: list[SamplesFile]) -> list[SamplesFile]:
    """One file for each folder and settings; files of unknown settings are all kept."""
    kept: dict[tuple[str, ...], SamplesFile] = {}
    for file in files:
        arguments = file.config.get("model_args")
        known = (str(file.path.parent), json.dumps(arguments), str(file.config.get("model")))
        key = known if arguments is not None else (str(file.path),)
        if key in kept:
            older, newer = sorted((kept[key], file), key=lambda one: one.date)
            warnings.warn(
                f"{older.path.name} is left out: {newer.path.name} has the same settings and is "
                "newer",
                HbTtaWarning,
                stacklevel=2,
            )
        if key not in kept or file.date >= kept[key].date:
            kept[key] = file
    return list(kept.values())


@dataclass(frozen=True)
class _Read:
    """A samples file, its lines, and what its views said."""

    file: SamplesFile
    lines: Lines
    said: Said

    @classmethod
    def of(cls, file: SamplesFile) -> _Read:
        lines = read_lines(file.path)
        check_lines(file, lines)
        said = read_said(file, lines)
        if said.damaged:
            warnings.warn(
                f"{said.damaged} records of what views said are damaged beside {file.path}: the "
                "page is without them, the figures are as they were",
                HbTtaWarning,
                stacklevel=2,
            )
        return cls(file, lines, said)


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────


def _runs(read: list[_Read], store: str | None) -> list[Run]:
    if is_mme(read[0].lines):
        return [_run(one, mme_records(one.file, one.lines, one.said), store) for one in read]
    told = [both for one in read for both in one.said.by_document.items()]
    choices = {document: texts for document, its in told if (texts := choices_of(its))}
    runs = []
    for one in read:
        records, metrics, numbers = records_of(one.file, one.lines, one.said, choices)
        run = _run(one, records, store)
        runs.append(replace(run, metrics=metrics, own=numbers.own, without=numbers.without))
    return clustered(runs, [clusters_of(one.file, one.lines, one.said) for one in read])


def _run(read: _Read, records: list[Record], store: str | None) -> Run:
    file = read.file
    check_once(records, file.path)
    settings = augment_settings(str(file.config.get("model_args") or ""))
    augmented = bool(settings) or bool(read.said.by_document)
    folder = file.path.resolve().parent.parent.name
    name = settings.pop("augment", (folder or "augmented") if augmented else "plain")
    command = making_again(file, store) if augmented else None
    return Run(name, records, not augmented, file.model, settings, command)


def _check_settings(files: list[SamplesFile], runs: list[Run]) -> None:
    known = [(file, run) for file, run in zip(files, runs, strict=True) if file.config]
    for file, run in known[1:]:
        first, first_run = known[0]
        for name in _SAME:
            one, other = first.config.get(name), file.config.get(name)
            if one != other:
                raise UserError(
                    f"{first_run.name:.80} ({first.path}) was run with {name} {one!s:.80} and "
                    f"{run.name:.80} ({file.path}) with {name} {other!s:.80}: evaluate both with "
                    "the same"
                )
