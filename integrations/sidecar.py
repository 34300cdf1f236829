"""What every view said, in files of ours beside a harness's own: a line of JSON a question.

<folder>/<task>.jsonl        (<task>.rank1.jsonl, … from the other processes)
<folder>/<task>.jsonl.damaged1  (what was found there and could not be read whole)
<folder>/images/<digest>.png  the real images, small, named by their pixels' digest
"""

from __future__ import annotations

import io
import itertools
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.reading import inside, objects_in

THUMBNAIL = 512  # longest side of a real image that is kept for people to look at, pixels

Line = dict[str, Any]
Lines = dict[str, Line]


class Sidecar:
    """The files of a run; what earlier runs of the same settings wrote stays in them.

    Those are read when a task is begun, before its first answer. One that is damaged is set aside
    with a warning, and its sound lines are kept: bookkeeping costs no answers.

    Args:
        folder: of the run.
        rank: of this process.
        identity: the fields of a line that tell one question of a task from another.
    """

    def __init__(self, folder: Path, rank: int, identity: Sequence[str]) -> None:
        self._folder, self._rank, self._identity = folder, rank, tuple(identity)
        self._lines: dict[str, Lines] = {}
        self._images: set[str] = set()

    def begin(self, task: str) -> None:
        """Read what earlier runs wrote of a task; a second call does nothing.

        Raises:
            UserError: the task's name is none of a file, or its file cannot be read.
        """
        if task not in self._lines:
            self._lines[task] = _earlier(self._path(task), self._identity)

    def add(self, task: str, line: Line, shown: Mapping[str, Image]) -> None:
        """Take what is to be said of a question; it is on disk after ``write``.

        Args:
            task: whose file it goes to.
            line: plain JSON with the fields of ``identity``.
            shown: the real images that the question shows, by their pixels' digests.
        """
        self.begin(task)
        self._lines[task][identity_of(line, self._identity)] = line
        self.show(shown)

    def show(self, shown: Mapping[str, Image]) -> None:
        """Keep the real images of a question whose line is still to come: see ``add``."""
        for digest, image in shown.items():
            self._keep(image, digest)

    def write(self) -> None:
        """Write every task's file, whole.

        Raises:
            OSError: the folder cannot be written.
        """
        for task, lines in self._lines.items():
            # ASCII alone: a prompt may hold half of a surrogate pair, which UTF-8 cannot.
            text = "".join(json.dumps(line) + "\n" for line in lines.values())
            write_aside(self._path(task), text.encode("ascii"))

    def tried(self) -> str | None:
        """Write; of a disk that is full now, which must not cost the answers, a sentence."""
        try:
            self.write()
        except OSError as error:
            return (
                f"what each view said could not be written ({error.strerror or error}); the "
                "answers are complete"
            )
        return None

    def _path(self, task: str) -> Path:
        suffix = f".rank{self._rank}" if self._rank else ""
        try:
            return inside(self._folder, f"{task}{suffix}.jsonl")
        except ValueError as error:
            raise UserError(f"the task {task!r} cannot name a file ({error}): rename it") from None

    def _keep(self, image: Image, digest: str) -> None:
        path = self._folder / "images" / f"{digest}.png"
        if digest in self._images or path.exists():
            return
        self._images.add(digest)
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        small.save(file, "PNG")
        write_aside(path, file.getvalue())


def read_sidecar(path: Path, identity: Sequence[str]) -> tuple[Lines, int]:
    """The lines of a sidecar's file by question, and how many are damaged; none without a file.

    Raises:
        OSError: it cannot be read.
    """
    lines: Lines = {}
    damaged = 0
    try:
        for _, line in objects_in(path):
            if line is None or any(name not in line for name in identity):
                damaged += 1
            else:
                lines[identity_of(line, identity)] = line
    except FileNotFoundError:
        pass
    return lines, damaged


def identity_of(line: Line, names: Sequence[str]) -> str:
    """What tells a question of a task from another."""
    return "/".join(str(line[name]) for name in names)


def _earlier(path: Path, identity: Sequence[str]) -> Lines:
    """A file's sound lines; the file is set aside if not all are."""
    try:
        lines, damaged = read_sidecar(path, identity)
        if damaged:
            aside = _free_name(path)
            os.replace(path, aside)
            warnings.warn(
                f"{path}: lines that are damaged: {damaged}; the others are kept, and the file as "
                f"it was is now {aside.name}",
                HbTtaWarning,
                stacklevel=4,
            )
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): mend or remove it, it is of an earlier run"
        ) from error
    return lines


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
