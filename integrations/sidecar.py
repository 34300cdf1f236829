"""What every view said, in files of ours beside a harness's own: a line of JSON a question.

<folder>/<task>.jsonl        (<task>.rank1.jsonl, … from the other processes)
<folder>/images/<digest>.png  the real images, small, named by their pixels' digest
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from hb_tta.disk import write_aside

THUMBNAIL = 512  # longest side of a real image that is kept for people to look at, pixels

Line = dict[str, Any]
Lines = dict[str, Line]


class Sidecar:
    """The files of a run; what earlier runs of the same settings wrote stays in them.

    Args:
        folder: of the run.
        rank: of this process.
        identity: the fields of a line that tell one question of a task from another.
    """

    def __init__(self, folder: Path, rank: int, identity: Sequence[str]) -> None:
        self._folder, self._rank, self._identity = folder, rank, tuple(identity)
        self._lines: dict[str, Lines] = {}
        self._images: set[str] = set()

    def add(self, task: str, line: Line, shown: Mapping[str, Image]) -> None:
        """Take what is to be said of a question; it is on disk after ``write``.

        Args:
            task: whose file it goes to.
            line: plain JSON with the fields of ``identity``.
            shown: the real images that the question shows, by their pixels' digests.
        """
        self._lines.setdefault(task, {})[_identity(line, self._identity)] = line
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
            suffix = f".rank{self._rank}" if self._rank else ""
            path = self._folder / f"{task}{suffix}.jsonl"
            merged = {**read_sidecar(path, self._identity), **lines}
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in merged.values())
            write_aside(path, text.encode())

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


def read_sidecar(path: Path, identity: Sequence[str]) -> Lines:
    """The lines of a sidecar's file by question; {} where there is none."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {_identity(line, identity): line for line in lines}


def _identity(line: Line, names: Sequence[str]) -> str:
    return "/".join(str(line[name]) for name in names)
