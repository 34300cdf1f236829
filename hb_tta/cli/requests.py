"""What ``hb-tta augment`` is asked for: one image, or the lines of a JSONL file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hb_tta.context import MultimodalContext
from hb_tta.datasets.jsonl import image_and_task, lines_of, parsed, text_of
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

    ``"task"`` may stand in a line, too; all other keys are ignored. The images are not looked at.

    Args:
        file: see ``hb_tta.datasets.jsonl``.
        task: the task of the lines that name none.
    """
    for index, line in lines_of(file):
        try:
            record = parsed(line)
            image, its_task = image_and_task(record, task)
            question = text_of(record, "question") or ""
        except UserError as error:
            yield Failure(index, str(error))
        else:
            yield Request(index, file.parent / image, question, its_task)
