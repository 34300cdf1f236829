"""A person's own data, whatever it lies in: the same for `hb-tta augment` and `train --data`.

JSON lines, a JSON array, CSV, TSV      read here
Parquet, a data set of the hub          read by the package ``datasets`` (an extra)
a folder                                the rows' file in it, else its images
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hb_tta.datasets.csv_rows import CsvRows
from hb_tta.datasets.files import IMAGE_SUFFIXES, is_hidden
from hb_tta.datasets.hub import TableRows
from hb_tta.datasets.jsonl import JsonRows
from hb_tta.datasets.rows import READS_QUESTION, Columns, OwnRows, Row
from hb_tta.datasets.samples import Example, example
from hb_tta.errors import UserError
from hb_tta.reading import user_path

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TABLES = (*TEXT, ".parquet")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "manifest.jsonl")
"""Names of the file that tells of a folder's images: the hub's, and that of `hb-tta augment`."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?(:[\w.+%\[\]-]+)?", re.ASCII)


def open_rows(place: str) -> OwnRows | None:
    """The rows of a file, a folder or a data set; ``None`` of a folder that holds images alone.

    Args:
        place: a path, or a name of the hub; ``:SPLIT`` behind it where there are several.

    Raises:
        UserError: there is nothing of that name, it cannot be read, or it holds nothing.
    """
    path = user_path(place)
    if not path.exists():
        return _named(place)
    if path.is_dir():
        return _of_folder(path)
    return _of_file(path)


def names_rows(place: str) -> bool:
    """Whether a name is that of a file of rows, by how it ends."""
    return place.lower().endswith((*TABLES, ".xlsx", ".xls"))


def holds_rows(place: str) -> bool:
    """Whether a folder holds a text file of rows, so that it is read as no other layout."""
    path = user_path(place)
    if not path.is_dir():
        return False
    found = [file for file in path.iterdir() if file.is_file() and not is_hidden(file.name)]
    return any(
        f.name in METADATA or f.suffix.lower() in TEXT and f.suffix != ".json" for f in found
    )


def is_hub_name(place: str) -> bool:
    """Whether a name may be that of a data set of the hub."""
    known = (*TABLES, *IMAGE_SUFFIXES)
    return bool(_HUB_NAME.fullmatch(place)) and place[0] not in ".~" and not place.endswith(known)


def _of_file(path: Path) -> OwnRows:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return TableRows(str(path))
    if suffix in (".csv", ".tsv"):
        return CsvRows(path)
    if suffix in TEXT:
        return JsonRows(path)
    raise UserError(
        f"{str(path)!r} is no data that is read: save it as one of {', '.join(TABLES)}, or name a "
        "folder"
    )


def _of_folder(path: Path) -> OwnRows | None:
    """The rows' file of a folder; of several the one that is called so."""
    if any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        return TableRows(str(path))
    files = sorted(f for f in path.iterdir() if f.is_file() and not is_hidden(f.name))
    tables = [file for file in files if file.suffix.lower() in TABLES]
    named = [file for file in tables if file.name in METADATA]
    if len(named or tables) > 1:
        if all(file.suffix == ".parquet" for file in tables):
            return TableRows(str(path))
        several = ", ".join(file.name for file in tables[:5])
        raise UserError(f"{str(path)!r} holds {several}: name the one to read")
    if tables:
        return _of_file((named or tables)[0])
    return TableRows(str(path)) if next(path.glob("*/*.parquet"), None) else None


def _named(place: str) -> OwnRows:
    """What does not lie here: with a split behind it, or on the hub."""
    head, _, split = place.rpartition(":")
    if head and user_path(head).exists():
        return TableRows(head, split)
    if not is_hub_name(place):
        raise UserError(f"there is no file or folder {place!r}: check the path")
    try:
        return TableRows(head or place, split if head else None)
    except UserError as error:
        raise UserError(f"there is no file or folder {place!r}, and of the hub {error}") from error


class OwnExamples:
    """A person's own rows to train on.

    A row of a task that is asked something needs its question, or a description in its place.

    Args:
        rows: from ``open_rows``.
        columns: what they are called.

    Raises:
        UserError: the table lacks a column that every row needs.
    """

    def __init__(self, rows: OwnRows, columns: Columns | None = None) -> None:
        self._rows, self._columns = rows, columns or Columns()
        self._columns.check(rows)

    def fingerprint(self) -> Any:
        """Of the rows, and of what was said about their columns."""
        said = {name: value for name, value in vars(self._columns).items() if value is not None}
        return {**self._rows.fingerprint(), **({"columns": said} if said else {})}

    def size(self) -> int | None:
        """The number of rows, if it is known."""
        return self._rows.size()

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        return ((row.called, row) for row in self._rows.rows(start, stop))

    def example(self, row: Row) -> Example:
        """See ``Examples``."""
        record = self._columns.read(row, self._rows.root)
        task = record.task or "vqa"
        question = (record.question or "").strip()
        if task in READS_QUESTION and not question and record.description is None:
            raise UserError(
                f'it has no question, which a row of the task {task!r} needs: write "question", or '
                '"task": "object" where the image as a whole is meant'
            )
        truth = _truth(record.answer)
        return example(record.image, record.question or "", task, truth, record.description)


def _truth(answer: Any) -> str | None:
    """What is true, as a text."""
    if answer is None or isinstance(answer, str):
        return answer or None
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    raise UserError(f'its "answer" is a {type(answer).__name__}: write a string')
