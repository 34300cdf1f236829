"""What ``hb-tta augment`` is asked for: one image, or the lines of a JSONL file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hb_tta.context import TASKS, MultimodalContext
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests


@dataclass(frozen=True)
class Request:
    """An image to augment.

    Attributes:
        index: the line's number, from 1; it names the views' files.
        image: the image's file.
        question: the text guidance; empty where the task needs none.
        task: one of ``TASKS``.
    """

    index: int
    image: Path
    question: str
    task: str

    def context(self, digests: PixelDigests) -> MultimodalContext:
        """What the augmenter takes; the pixels are read again when a model needs them.

        Raises:
            UserError: there is no sound image in the file.
        """
        image: Any = digests.known(self.image)
        return MultimodalContext(image, self.question, self.task)


@dataclass(frozen=True)
class Failure:
    """A line that could not be augmented, and why."""

    index: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.index}: {self.reason}"


def read_requests(file: Path, task: str) -> Iterator[Request | Failure]:
    """The requests of a JSONL file, one ``{"image": path, "question": …}`` a line.

    A relative path is taken from the file's folder. ``"task"`` may stand in a line, too; all other
    keys are ignored. Empty lines are skipped. The images are not looked at.

    Args:
        file: JSON objects in UTF-8, one a line.
        task: the task of the lines that name none.
    """
    with open(file, "rb") as lines:
        for index, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield _request(index, line, file.parent, task)
            except UserError as error:
                yield Failure(index, str(error))


def _request(index: int, line: bytes, folder: Path, task: str) -> Request:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError("it is not UTF-8 text: save the file as UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"it is not JSON ({error}): write one object a line") from error
    if not isinstance(record, dict):
        raise UserError('it is not a JSON object: write {"image": path, "question": …}')
    image = _text(record, "image")
    if not image:
        raise UserError('it names no "image": write {"image": path, "question": …}')
    task = _text(record, "task") or task
    if task not in TASKS:
        raise UserError(f"there is no task {task!r}: choose from {', '.join(TASKS)}")
    return Request(index, folder / image, _text(record, "question"), task)


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key, "")
    if not isinstance(value, str):
        raise UserError(f'its "{key}" is {json.dumps(value)[:40]}: write a string')
    return value
