"""What every view said: in the samples file with lmms-eval's own columns, and in a file beside it.

lmms-eval's samples file has it under ``token_counts`` → ``hb_tta``, unless the answer came out of
lmms-eval's response cache. The file beside it keeps it: ``<output_path>/hb_tta/<run>/<task>.jsonl``
(``.rank1.jsonl``, … from the other processes), where ``<run>`` is ``run_name(model_args)``
(hb_tta/report/folders.py). It has a line a question, and ``images/`` has the real images, named by
their pixels' digest.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import TokenCounts
from PIL import Image

from hb_tta.disk import write_aside

THUMBNAIL = 512  # longest side of a real image that is kept for people to look at, pixels


@dataclass
class ViewCounts(TokenCounts):
    """Token counts with a record of the views."""

    record: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What lmms-eval writes into the samples file."""
        counts: dict[str, Any] = dict(super().to_dict())
        return counts if self.record is None else {**counts, "hb_tta": self.record}

    @classmethod
    def of(cls, counts: TokenCounts | None, record: dict[str, Any]) -> ViewCounts:
        counts = counts or TokenCounts()
        return cls(counts.input_tokens, counts.output_tokens, counts.reasoning_tokens, record)


class Sidecar:
    """The file beside the samples; what earlier runs of the same settings wrote stays in it.

    Args:
        folder: of the run.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder, self._rank = folder, rank
        self._lines: dict[str, dict[str, dict[str, Any]]] = {}
        self._images: set[str] = set()

    def add(self, request: Any, record: dict[str, Any], shown: list[Any]) -> None:
        """Take a question's record; it is on disk after ``write``."""
        line = {
            "task": request.task_name,
            "doc_id": request.doc_id,
            "idx": request.idx,
            "prompt": str(request.args[0]),
            **record,
        }
        lines = self._lines.setdefault(request.task_name, {})
        lines[_key(line)] = line
        for image, about in zip(shown, record["images"], strict=True):
            self._keep(image, about["pixels"])

    def write(self) -> None:
        """Write every task's file, whole.

        Raises:
            OSError: the folder cannot be written.
        """
        for task, lines in self._lines.items():
            suffix = f".rank{self._rank}" if self._rank else ""
            path = self._folder / f"{task}{suffix}.jsonl"
            merged = {**read_lines(path), **lines}
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in merged.values())
            write_aside(path, text.encode())

    def _keep(self, image: Image.Image, digest: str) -> None:
        path = self._folder / "images" / f"{digest}.png"
        if digest in self._images or path.exists():
            return
        self._images.add(digest)
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        small.save(file, "PNG")
        write_aside(path, file.getvalue())


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a sidecar file by question."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {_key(line): line for line in lines}


def _key(line: dict[str, Any]) -> str:
    return f"{line['doc_id']}/{line['idx']}"
