"""Files with one sample a line: ``{"image": path, "question": text, "answer": text}``.

A relative path is taken from the file's folder. Optional: "task" (``hb_tta.context.TASKS``), and
"description", which is then used as it is in the place of a describer's. Empty lines are skipped. A
byte-order mark is no part of the text, and a JSON array of such objects, over as many lines as it
likes, will do for a whole file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hb_tta.context import TASKS
from hb_tta.datasets.samples import Example, example
from hb_tta.errors import UserError
from hb_tta.reading import open_regular

Line = tuple[int, bytes | dict[str, Any]]
"""A line's number, from 1, and its text; or an array item's number and what it is."""

_MARK = b"\xef\xbb\xbf"


def lines_of(file: Path) -> Iterator[Line]:
    """The samples of a file, read as they are asked for, not yet parsed.

    Raises:
        UserError: it begins as an array and is none.
    """
    with open_regular(file) as lines:
        started = False
        for number, line in enumerate(lines, start=1):
            line = line.removeprefix(_MARK) if number == 1 else line
            if not line.strip():
                continue
            if not started and line.lstrip().startswith(b"["):
                yield from _items(file, line + lines.read())
                return
            started = True
            yield number, line


def _items(file: Path, text: bytes) -> Iterator[Line]:
    try:
        items = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is no UTF-8 text: save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(file)!r} begins with '[' and is no JSON array ({error}): write one object a line"
        ) from error
    yield from enumerate(items, start=1)


def parsed(line: bytes | dict[str, Any]) -> dict[str, Any]:
    """The object of a line.

    Raises:
        UserError: there is none.
    """
    record: Any = line
    if isinstance(line, bytes):
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError("it is not UTF-8 text: save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"it is not JSON ({error}): write one object a line") from error
    if not isinstance(record, dict):
        raise UserError('it is not a JSON object: write {"image": path, "question": …}')
    return record


def image_and_task(record: dict[str, Any], task: str) -> tuple[str, str]:
    """The image's path as written, and the task: the record's, else the one given.

    Raises:
        UserError: there is no image, or no such task.
    """
    image = text_of(record, "image")
    if not image:
        raise UserError('it names no "image": write {"image": path, "question": …}')
    task = text_of(record, "task") or task
    if task not in TASKS:
        raise UserError(f"there is no task {task!r}: choose from {', '.join(TASKS)}")
    return image, task


def text_of(record: dict[str, Any], key: str) -> str | None:
    """The text under a key; ``None`` where there is none.

    Raises:
        UserError: it is no text.
    """
    value = record.get(key)
    if not isinstance(value, str | None):
        raise UserError(f'its "{key}" is {json.dumps(value)[:40]}: write a string')
    return value


class JsonlExamples:
    """The samples of such a file.

    Raises:
        UserError: there is no such file, it holds nothing or is an array that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._lines = list(lines_of(path))
        except OSError as error:
            raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        if not self._lines:
            raise UserError(f"{str(path)!r} is empty: write one sample a line")

    def fingerprint(self) -> Any:
        """Of the file's text; its images are told by their own digests later."""
        text = b"".join(_canonical(line) for _, line in self._lines)
        return {"jsonl": hashlib.sha256(text).hexdigest()}

    def size(self) -> int:
        """The number of samples."""
        return len(self._lines)

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        for number, line in self._lines[start:stop]:
            yield f"{'line' if isinstance(line, bytes) else 'item'} {number}", line

    def example(self, row: bytes | dict[str, Any]) -> Example:
        """See ``Examples``."""
        record = parsed(row)
        image, task = image_and_task(record, "vqa")
        question, answer, description = (
            text_of(record, key) for key in ("question", "answer", "description")
        )
        return example(self.path.parent / image, question or "", task, answer, description)


def _canonical(line: bytes | dict[str, Any]) -> bytes:
    """A line as it is but for its end, or an item of an array as a line."""
    if isinstance(line, bytes):
        return line.replace(b"\r\n", b"\n")
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
