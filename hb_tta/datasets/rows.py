"""A person's own rows: where they are read from, and which of their columns is what.

A row names an image and what is asked of it, under the usual names or under those that the person
gives. A relative path of an image is taken from the file's folder. What is wrong with a row is that
row's fault alone: it is told, and the others are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hb_tta.context import TASKS
from hb_tta.errors import UserError, choose_from
from hb_tta.reading import parse_json, user_path

USUAL = {
    "image": (
        *("image", "image_path", "image_file", "img", "img_path", "picture", "photo"),
        *("file_name", "filename", "file", "filepath", "file_path", "path"),
    ),
    "question": ("question", "query", "prompt", "instruction", "guidance"),
    "answer": ("answer", "ground_truth", "multiple_choice_answer"),
    "task": ("task",),
    "description": ("description",),
}
"""What people call a column, by what it means here; its own name comes first and counts first."""

READS_QUESTION = ("vqa", "hoi")
"""The tasks whose rows are asked something."""

MANIFEST_ONLY = ("index", "views", "spec_hash", "warnings", "failure")
"""What `hb-tta augment` writes into its manifest beside a row's own columns."""


class Row(NamedTuple):
    """A row that was found, not yet read.

    Attributes:
        number: of the line or item, from 1.
        called: what a person calls it, such as "line 3".
        content: the text of a JSON object, its columns, or what is wrong with it.
    """

    number: int
    called: str
    content: bytes | Mapping[str, Any] | UserError


class OwnRows(Protocol):
    """A file or data set of rows.

    Attributes:
        name: what a person calls it.
        root: the folder that relative paths of images start from.
        columns: of all rows; ``None``: each has its own.
    """

    name: str
    root: Path
    columns: tuple[str, ...] | None

    def __iter__(self) -> Iterator[Row]:
        """All rows, read as they are asked for."""
        ...

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Rows ``start`` to ``stop``, fewer where there are no more."""
        ...

    def size(self) -> int | None:
        """The number of rows; ``None`` where only reading on tells."""
        ...

    def fingerprint(self) -> Any:
        """Plain JSON that differs where the rows do."""
        ...


@dataclass(frozen=True)
class Record:
    """What a row says.

    Attributes:
        image: a path, the bytes of an image file, or a Pillow image.
        question: the text guidance; ``None`` where the row has no place for one.
        task: one of ``TASKS``; ``None`` where it names none.
        description: used in the place of a describer's; ``None``: there is none.
        answer: what the row calls true, as it stands there.
        others: every other column.
    """

    image: Any
    question: str | None
    task: str | None
    description: str | None
    answer: Any
    others: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """What a person's columns are called.

    Attributes:
        image, question: as given; ``None``: one of the usual names.
    """

    image: str | None = None
    question: str | None = None

    def check(self, rows: OwnRows) -> None:
        """That a table has what every row needs.

        Raises:
            UserError: it has no image, or not the columns that were named.
        """
        if rows.columns is None:
            return
        try:
            if self._find("image", rows.columns) is None:
                raise UserError(_no_image(rows.columns))
            self._find("question", rows.columns)
        except UserError as error:
            raise UserError(f"{rows.name}: {error}") from None

    def read(self, row: Row, root: Path) -> Record:
        """What a row says.

        Raises:
            UserError: it is no object, has no image, or a text that is none.
        """
        record = parsed(row.content)
        names = {role: self._find(role, record) for role in USUAL}
        if "failure" in record and names["image"] is None:
            raise UserError("it tells of a failure of `hb-tta augment`: augment it again")
        texts = {role: _text(record, names[role]) for role in ("question", "task", "description")}
        task = texts["task"] or None
        if task is not None and task not in TASKS:
            raise UserError(f"there is no task {task!r}{choose_from(task, TASKS)}")
        return Record(
            image=_image(record, names["image"], root),
            question=texts["question"],
            task=task,
            description=texts["description"] or None,
            answer=record.get(names["answer"]) if names["answer"] else None,
            others={
                key: value
                for key, value in record.items()
                if key not in (names["image"], *(names[role] for role in texts))
            },
        )

    def told(self, columns: tuple[str, ...]) -> str:
        """Which columns of a table were taken for what."""
        found = {role: self._find(role, columns) for role in USUAL}
        return ", ".join(f"{role} from {name!r}" for role, name in found.items() if name)

    def _find(self, role: str, names: Any) -> str | None:
        """The column that means ``role``."""
        given = getattr(self, role, None)
        if given is not None:
            if given not in names:
                raise UserError(f"it has no column {given!r}{choose_from(given, names)}")
            return given
        found = {_plain(name): name for name in names if isinstance(name, str)}
        usual = [found[name] for name in USUAL[role] if name in found]
        if len(usual) > 1 and _plain(usual[0]) != role:
            raise UserError(
                f"it has the columns {_listed(usual)}, which may all be the {role}: name one with "
                f"--{role}-column"
            )
        return usual[0] if usual else None


def parsed(content: Any) -> Mapping[str, Any]:
    """A row's columns.

    Raises:
        UserError: it has none.
    """
    if isinstance(content, UserError):
        raise content
    if isinstance(content, bytes):
        try:
            content = parse_json(content)
        except UnicodeDecodeError as error:
            raise UserError("it is not UTF-8 text: save the file as UTF-8") from error
        except ValueError as error:
            raise UserError(f"it is not JSON ({error}): write one object a line") from error
    if not isinstance(content, Mapping):
        raise UserError('it is not a JSON object: write {"image": path, "question": …}')
    return content


def needs_question(record: Record, task: str) -> str | None:
    """What is wrong with a row that is asked nothing, where its task is asked something."""
    if task not in READS_QUESTION or record.question is not None or record.description:
        return None
    own = [name for name in record.others if name not in (*USUAL["answer"], *MANIFEST_ONLY)]
    if not own:
        return None
    return (
        f"it has no question among its columns {_listed(own)}: name one with --question-column, or "
        "say --task generic where the image as a whole is meant"
    )


def _text(record: Mapping[str, Any], name: str | None) -> str | None:
    value = None if name is None else record[name]
    if not isinstance(value, str | None):
        raise UserError(f'its "{name}" is {_shown(value)}: write a string')
    return value


def _image(record: Mapping[str, Any], name: str | None, root: Path) -> Any:
    if name is None:
        raise UserError(_no_image(record))
    value = record[name]
    if isinstance(value, Mapping):  # as `datasets` has an undecoded image
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        if value.lower().startswith(("http://", "https://")):
            raise UserError(f"its image is an address ({value[:60]}): fetch the file first")
        if value.startswith("~/"):
            return user_path(value)
        # A name that begins with a tilde is nobody's home.
        return (root.absolute() if value.startswith("~") else root) / value
    if isinstance(value, bytes) and value:
        return value
    if value is None or value == "":
        raise UserError(f'its "{name}" is empty: name an image')
    raise UserError(f'its "{name}" is {_shown(value)}: write the path of an image')


def _no_image(names: Any) -> str:
    if not names:
        return 'it names no "image": write {"image": path, "question": …}'
    return f'it names no "image", only {_listed(names)}: name the column with --image-column'


def _listed(names: Any) -> str:
    some = [repr(name)[:40] for name in names]
    return ", ".join(some[:8]) + (", …" if len(some) > 8 else "")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:40]
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"
