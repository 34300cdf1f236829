"""lmms-eval's samples files → runs of records.

Any samples file of MME or of a task that scores as MME does (``mme_perception_score``,
``mme_cognition_score``) will do, with or without our flag.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.lmms_eval.again import augment_settings, making_again
from hb_tta.integrations.lmms_eval.folders import SamplesFile, find_samples
from hb_tta.report.comparable import check_once, check_questions, named_apart
from hb_tta.report.records import Picture, Record, Run, Seen

SCORES = ("mme_perception_score", "mme_cognition_score")
_SAME = ("limit", "offset", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
_RANK = re.compile(r"(\.rank\d+)?\.jsonl")


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
    files = _scored_as_mme(list(find_samples(list(sources))))
    name = _one_task({file.task for file, _ in files}, task)
    files = _latest([(file, lines) for file, lines in files if file.task == name])
    runs = [_run(file, lines, store) for file, lines in files]
    _check_settings([file for file, _ in files], runs)
    check_questions(runs)
    return name, named_apart(sorted(runs, key=lambda run: not run.plain))


# ── Which files ──────────────────────────────────────────────────────────────────────────────────

Lines = list[dict[str, Any]]


def _scored_as_mme(files: list[SamplesFile]) -> list[tuple[SamplesFile, Lines]]:
    read = [(file, read_lines(file.path)) for file in files]
    scored = [(file, lines) for file, lines in read if lines and _score(lines[0]) is not None]
    if not scored:
        path, lines = files[0].path, read[0][1]
        what = "has no answers" if not lines else "is no result of MME or a task that scores alike"
        raise UserError(f"{path} {what}: give the output of such a task, as mme or pocket_mme")
    return scored


def _one_task(tasks: set[str], chosen: str | None) -> str:
    listed = ", ".join(sorted(tasks))
    if chosen is not None and chosen not in tasks:
        raise UserError(f"--task {chosen}: the results hold {listed} alone")
    if chosen is None and len(tasks) > 1:
        raise UserError(f"the results hold several tasks ({listed}): choose one with --task")
    return chosen or tasks.pop()


def _latest(files: list[tuple[SamplesFile, Lines]]) -> list[tuple[SamplesFile, Lines]]:
    """One file for each folder and settings; files of unknown settings are all kept."""
    kept: dict[tuple[str, ...], tuple[SamplesFile, Lines]] = {}
    for file, lines in files:
        arguments = file.config.get("model_args")
        known = (str(file.path.parent), json.dumps(arguments), file.config.get("model", ""))
        key = known if arguments is not None else (str(file.path),)
        if key in kept:
            older, newer = sorted((kept[key][0], file), key=lambda one: one.date)
            warnings.warn(
                f"{older.path.name} is left out: {newer.path.name} has the same settings and is "
                "newer",
                HbTtaWarning,
                stacklevel=2,
            )
        if key not in kept or file.date >= kept[key][0].date:
            kept[key] = (file, lines)
    return list(kept.values())


def read_lines(path: Path) -> Lines:
    """The objects of a file with one in each line.

    Raises:
        UserError: a line is damaged.
    """
    found = []
    try:
        texts = path.read_text(encoding="utf-8").split("\n")  # a question may hold a U+2028
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text: name a samples file of lmms-eval") from None
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise UserError(f"{path}, line {number} is damaged: evaluate again")
        found.append(line)
    return found


# ── One run ──────────────────────────────────────────────────────────────────────────────────────


def _run(file: SamplesFile, lines: Lines, store: str | None) -> Run:
    beside = _beside(file)
    said = [_said(line) or beside.get(str(line.get("doc_id"))) for line in lines]
    records = [
        _record(file, line, views, number)
        for number, (line, views) in enumerate(zip(lines, said, strict=True), 1)
    ]
    check_once(records, file.path)
    settings = augment_settings(str(file.config.get("model_args") or ""))
    augmented = bool(settings) or any(said)
    folder = file.path.resolve().parent.parent.name
    name = settings.pop("augment", (folder or "augmented") if augmented else "plain")
    command = making_again(file, store) if augmented else None
    return Run(name, records, not augmented, file.model, settings, command)


def _beside(file: SamplesFile) -> dict[str, dict[str, Any]]:
    """What the plugin wrote beside the samples, by document; from all processes of the run."""
    found: dict[str, dict[str, Any]] = {}
    if not isinstance(file.config.get("model_args"), str):
        return found  # nothing tells which of the runs it would be
    for folder in file.plugin_folders():
        for path in sorted(folder.glob(f"{file.task}*.jsonl")):
            if _RANK.fullmatch(path.name.removeprefix(file.task)):
                found |= {str(line.get("doc_id")): line for line in read_lines(path)}
    return found


def _said(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """What each view said, by the samples file itself."""
    for counts in line.get("token_counts") or ():
        if isinstance(counts, dict) and isinstance(counts.get("hb_tta"), dict):
            return counts["hb_tta"]
    return None


def _score(line: Mapping[str, Any]) -> dict[str, Any] | None:
    for name in SCORES:
        score = line.get(name)
        if isinstance(score, dict) and {"question_id", "category", "score"} <= score.keys():
            return score
    return None


def _record(
    file: SamplesFile, line: dict[str, Any], said: dict[str, Any] | None, number: int
) -> Record:
    score = _score(line)
    if score is None or "doc_id" not in line:
        raise UserError(f"{file.path}, line {number} has no score of MME: evaluate again")
    document = line.get("doc") if isinstance(line.get("doc"), dict) else {}
    about = (said or {}).get("images") or []
    combined = (said or {}).get("combined")
    return Record(
        question=str(line["doc_id"]),
        group=str(score["question_id"]),
        category=str(score["category"]),
        score=float(score["score"] == 1),
        text=str(line.get("input") or (document or {}).get("question") or ""),
        target=str(line.get("target", "")),
        answer=_text(line.get("filtered_resps", "")),
        description="\n".join(filter(None, (its.get("description") for its in about))) or None,
        seen=_seen(file, said, about) if said else (),
        combined=None if combined is None else Seen("combined", (), **_yes_no(combined)),
    )


def _seen(
    file: SamplesFile, said: Mapping[str, Any], about: list[dict[str, Any]]
) -> tuple[Seen, ...]:
    real = [Picture(_real_image(file, its["pixels"])) for its in about]
    views = max((its["seeds"] for its in about), key=len, default=[])
    shown = [("real", real)]
    for number, seed in enumerate(views):
        # An image with fewer views than others stood in for itself.
        keys = [its["keys"][number] if number < len(its["keys"]) else None for its in about]
        pictures = [Picture(key=k) if k else image for k, image in zip(keys, real, strict=True)]
        shown.append((f"seed {seed}", pictures))
    said_by = list(said.get("views") or [])
    said_by += [{}] * (len(shown) - len(said_by))
    judged = [_least([_judged(its, number) for its in about]) for number in range(len(shown))]
    return tuple(
        Seen(label, tuple(pictures), **_yes_no(score), score=judge)
        for (label, pictures), score, judge in zip(shown, said_by, judged, strict=False)
    )


def _judged(about: Mapping[str, Any], number: int) -> float | None:
    """The judge's score of an image, or of one of its views."""
    scores = [about.get("real_score"), *(about.get("scores") or ())]
    return scores[number] if number < len(scores) else scores[0]


def _least(scores: Sequence[float | None]) -> float | None:
    """Of several images shown together the worst counts."""
    there = [score for score in scores if score is not None]
    return min(there) if there and len(there) == len(scores) else None


def _real_image(file: SamplesFile, digest: str) -> Path | None:
    for folder in file.plugin_folders():
        path = folder / "images" / f"{digest}.png"
        if path.is_file():
            return path
    return None


def _yes_no(score: Any) -> dict[str, Any]:
    """A view's scores, or its answer where views were asked one by one."""
    if not isinstance(score, dict):
        return {}
    return {name: score[name] for name in ("yes", "no", "answer") if name in score}


def _text(response: Any) -> str:
    if isinstance(response, list):
        return _text(response[0]) if len(response) == 1 else "".join(map(_text, response))
    return str(response)


def _check_settings(files: list[SamplesFile], runs: list[Run]) -> None:
    known = [(file, run) for file, run in zip(files, runs, strict=True) if file.config]
    for file, run in known[1:]:
        first, first_run = known[0]
        for name in _SAME:
            one, other = first.config.get(name), file.config.get(name)
            if one != other:
                raise UserError(
                    f"{first_run.name} ({first.path}) was run with {name} {one} and {run.name} "
                    f"({file.path}) with {name} {other}: evaluate both with the same"
                )
