"""Which questions of a task share an image: the unit that intervals resample.

The task's own ``cluster_key`` says it, or the digests of the images that the plugin saw in one of
the runs, or the names of the images that lmms-eval kept of the documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from hb_tta.integrations.lmms_eval.folders import SamplesFile
from hb_tta.integrations.lmms_eval.lines import Lines, is_deep
from hb_tta.integrations.lmms_eval.said import Said, pixels_of
from hb_tta.report.records import Run

Clusters = dict[str, str]  # document → what it shares with others


def clusters_of(file: SamplesFile, lines: Lines, said: Said) -> list[tuple[str, Clusters]]:
    """What one run tells, the surest first, each with the unit's name."""
    pixels = {doc: pixels_of(records) for doc, records in said.by_document.items()}
    return [
        (file.cluster_key or "", _by_key(file.cluster_key, lines)),
        ("image", {doc: digests for doc, digests in pixels.items() if digests}),
        ("image", _by_media(lines)),
    ]


def clustered(runs: Sequence[Run], told: Sequence[list[tuple[str, Clusters]]]) -> list[Run]:
    """The runs with the groups that all of their questions have by one of the ways to tell.

    Where none tells it of all questions, each is a group of its own.
    """
    questions = {record.question for run in runs for record in run.records}
    for way in zip(*told, strict=True):
        merged = {doc: group for _, clusters in way for doc, group in clusters.items()}
        unit = next((name for name, clusters in way if clusters), "")
        if unit and questions <= merged.keys():
            return [_grouped(run, unit, merged) for run in runs]
    return [_grouped(run, "question", {}) for run in runs]


def _grouped(run: Run, unit: str, groups: Clusters) -> Run:
    records = [replace(r, group=groups.get(r.question, r.question)) for r in run.records]
    return replace(run, records=records, unit=unit)


def _by_key(key: str | None, lines: Lines) -> Clusters:
    """lmms-eval reads it in the dictionary of a metric."""
    found = {}
    for line in lines if key else ():
        for value in line.values():
            if isinstance(value, dict) and isinstance(value.get(key), str | int):
                found[str(line["doc_id"])] = str(value[key])
    return found


def _by_media(lines: Lines) -> Clusters:
    """Names or contents of the images, which may be long."""
    found = {}
    for line in lines:
        media = line.get("input_media")
        if isinstance(media, list) and media and not is_deep(media):
            text = json.dumps(media).encode("utf-8", "backslashreplace")
            found[str(line["doc_id"])] = hashlib.sha256(text).hexdigest()
    return found
