"""What every view of a question said, as the plugin wrote it: its shape is checked here, once.

The figures need none of it. Whatever is damaged is left out, and the page lacks it.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.folders import SamplesFile
from hb_tta.integrations.lmms_eval.lines import Line, is_deep, number, read_lines
from hb_tta.report.records import Picture, Seen

_RANK = re.compile(r"(\.rank\d+)?\.jsonl")
_DIGEST = re.compile(r"[0-9a-f]{64}")  # of pixels, of a store's key


class Damaged(Exception):
    """What should be a record is none."""


@dataclass
class Said:
    """The plugin's records of a run.

    Attributes:
        by_document: of each question those of its requests, in order: one, or one a choice.
        damaged: how many could not be read.
    """

    by_document: dict[str, list[Line]] = field(default_factory=dict)
    damaged: int = 0

    def add(self, document: str, place: int, record: Any) -> None:
        """Take a record, if it is one."""
        try:
            check_record(record)
        except Damaged:
            self.damaged += 1
            return
        its = self.by_document.setdefault(document, [])
        its += [{}] * (place + 1 - len(its))
        its[place] = record


def read_said(file: SamplesFile, lines: list[Line]) -> Said:
    """The records of a samples file's lines, or else of the files beside it.

    Those are from all processes of the run. Answers out of lmms-eval's response cache have lost
    theirs, and choices never had any.
    """
    beside, said = _beside(file), Said()
    said.damaged = beside.damaged
    for line in lines:
        document = str(line["doc_id"])
        records = _in_line(line)
        for place, record in enumerate(records):
            said.add(document, place, record)
        if document not in said.by_document and document in beside.by_document:
            said.by_document[document] = beside.by_document[document]
    return said


def _in_line(line: Mapping[str, Any]) -> list[Any]:
    counts = line.get("token_counts")
    told = counts if isinstance(counts, list) else []
    return [one["hb_tta"] for one in told if isinstance(one, dict) and "hb_tta" in one]


def _beside(file: SamplesFile) -> Said:
    said = Said()
    if not isinstance(file.config.get("model_args"), str):
        return said  # nothing tells which of the runs it would be
    for folder in file.plugin_folders():
        for path in sorted(folder.glob(f"{glob.escape(file.task)}*.jsonl")):
            if _RANK.fullmatch(path.name.removeprefix(file.task)):
                _read_beside(path, said)
    return said


def _read_beside(path: Path, said: Said) -> None:
    try:
        lines = read_lines(path)
    except UserError:
        said.damaged += 1
        return
    for line in lines:
        place = line.get("idx", 0)
        if isinstance(place, int) and 0 <= place < _MOST_CHOICES and "doc_id" in line:
            said.add(str(line["doc_id"]), place, line)
        else:
            said.damaged += 1


_MOST_CHOICES = 10_000


# ── The shape of a record ────────────────────────────────────────────────────────────────────────


def check_record(record: Any) -> None:
    """Raises Damaged unless all that is read of a record can be."""
    _need(isinstance(record, dict) and not is_deep(record))
    views, images = record.get("views") or [], record.get("images") or []
    _need(isinstance(views, list) and isinstance(images, list))
    for view in [*views, *filter(None, [record.get("combined")])]:
        _need(isinstance(view, dict) or number(view) is not None)
        if isinstance(view, dict):
            _check_view(view)
    for image in images:
        _check_image(image)


def _check_view(view: Mapping[str, Any]) -> None:
    for name in ("yes", "no", "share"):
        value = view.get(name)
        _need(value is None or isinstance(value, float | int) and not isinstance(value, bool))
        _need(value is None or value == value)  # no NaN; minus infinity is a probability of 0
    for name in ("answer", "first"):
        _need(isinstance(view.get(name), str | None))


def _check_image(image: Any) -> None:
    _need(isinstance(image, dict) and isinstance(image.get("description"), str | None))
    seeds, keys = image.get("seeds"), image.get("keys")
    _need(isinstance(seeds, list) and isinstance(keys, list) and len(seeds) == len(keys))
    _need(all(isinstance(seed, int | str) for seed in seeds))
    # A file's name and a store's key: they lead nowhere else.
    _need(all(map(_is_digest, [image.get("pixels"), *keys])))
    scores, dropped = image.get("scores"), image.get("dropped") or []
    _need(scores is None or isinstance(scores, list) and len(scores) == len(keys))
    _need(all(number(score) is not None for score in scores or []))
    _need(image.get("real_score") is None or number(image["real_score"]) is not None)
    _need(isinstance(dropped, list) and all(map(_is_candidate, dropped)))


def _is_candidate(candidate: Any) -> bool:
    """Whether it is a seed, a key of the store and a score."""
    if not isinstance(candidate, list) or len(candidate) != 3:
        return False
    seed, key, score = candidate
    return isinstance(seed, int | str) and _is_digest(key) and number(score) is not None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _need(condition: bool) -> None:
    if not condition:
        raise Damaged


# ── What the page shows of a record ──────────────────────────────────────────────────────────────


def description_of(records: list[Line]) -> str | None:
    """What the generator was told."""
    about = (records[0].get("images") or []) if records else []
    return "\n".join(filter(None, (image.get("description") for image in about))) or None


def pixels_of(records: list[Line]) -> str | None:
    """What tells a question's images from others; None where that is not known."""
    about = (records[0].get("images") or []) if records else []
    return "+".join(image["pixels"] for image in about) or None


def seen_of(file: SamplesFile, records: list[Line], options: Sequence[str]) -> tuple[Seen, ...]:
    """The real image and the views, and what was said at the sight of each."""
    about = (records[0].get("images") or []) if records else []
    if not about:
        return ()
    real = [Picture(_real_image(file, image["pixels"])) for image in about]
    shown = [("real", tuple(real), _scores(about, "real_score"))]
    most = max(about, key=lambda image: len(image["seeds"]))
    for place, seed in enumerate(most["seeds"]):
        keys = [image["keys"][place : place + 1] for image in about]
        pictures = tuple(
            Picture(key=key[0]) if key else its for key, its in zip(keys, real, strict=True)
        )
        shown.append((f"seed {seed}", pictures, _scores(about, "scores", place)))
    said = _chosen(records, options) if len(records) > 1 else records[0].get("views") or []
    said = [*said, *[{}] * (len(shown) - len(said))]
    return tuple(
        Seen(label, pictures, **_words(view), score=score)
        for (label, pictures, score), view in zip(shown, said, strict=False)
    )


def dropped_of(records: list[Line]) -> tuple[Seen, ...]:
    """The candidates that a judge did not let through."""
    about = (records[0].get("images") or []) if records else []
    return tuple(
        Seen(f"seed {seed}", (Picture(key=key),), score=float(score))
        for image in about
        for seed, key, score in image.get("dropped") or []
    )


def _scores(about: Sequence[Mapping[str, Any]], name: str, place: int = 0) -> float | None:
    """A judge's score of an image; of several images that are shown together the least."""
    found = [image.get(name) for image in about]
    lists = [its if isinstance(its, list) else [its] for its in found]
    scores = [number(its[place]) for its in lists if place < len(its)]
    return min((score for score in scores if score is not None), default=None)


def sure_of(records: list[Line]) -> float | None:
    """How sure the model was of its plain answer, where there was a gate."""
    gate = records[0].get("gate") if records else None
    return number(gate.get("p")) if isinstance(gate, dict) else None


def combined_of(records: list[Line]) -> Seen | None:
    """What all views said together, where that was kept."""
    found = records[0].get("combined") if records else None
    return Seen("combined", (), **_words(found)) if isinstance(found, dict) else None


def choices_of(records: list[Line]) -> list[str]:
    """The texts of the choices of a question, where they were kept."""
    found = [record.get("choice") for record in records]
    return [one.strip() for one in found if isinstance(one, str)] if len(found) > 1 else []


def _chosen(records: list[Line], options: Sequence[str]) -> list[dict[str, Any]]:
    """Which choice each view takes: the one of the least loss, as lmms-eval has it."""
    losses = [[number(v) for v in record.get("views") or []] for record in records]
    found = []
    for of_view in zip(*losses, strict=False):
        if any(loss is None for loss in of_view) or len(of_view) != len(options):
            return []
        found.append({"answer": options[min(range(len(of_view)), key=of_view.__getitem__)]})
    return found


def _words(view: Any) -> dict[str, Any]:
    """A view's scores, its answer where views were asked one by one, or its first token."""
    if not isinstance(view, dict):
        return {}
    names = ("yes", "no", "answer", "first", "share")
    return {name: view[name] for name in names if name in view}


def _real_image(file: SamplesFile, digest: str) -> Path | None:
    for folder in file.plugin_folders():
        images = (folder / "images").resolve()
        path = images / f"{digest}.png"
        if path.is_file() and path.resolve().parent == images:  # no link that leads elsewhere
            return path
    return None
