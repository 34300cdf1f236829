"""Contexts as rows of a table, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hb_tta.context import DescribedContext
from hb_tta.images import KnownImage

KEY, FAILURE = "key", "failure"


class Asked(NamedTuple):
    """A context for which something is to be made.

    Attributes:
        key: of all that decides what it needs (``Augmenter.lacking``); rows differ in it.
        context: its image is a ``KnownImage`` or the bytes of a file.
        undescribed: whether its description is still to be written.
    """

    key: str
    context: DescribedContext
    undescribed: bool = False


def schema() -> Any:
    """Of the tables: what is asked, and why it failed."""
    import pyarrow as pa

    text = {
        name: pa.string()
        for name in (KEY, "path", "pixels", "question", "task", "description", FAILURE)
    }
    return pa.schema({**text, "file": pa.binary()})


def table_of(asked: Iterable[Asked]) -> Any:
    """A table of what is asked."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(one) for one in asked], schema=schema())


def contexts_of(rows: Iterable[dict[str, Any]]) -> list[DescribedContext]:
    """The contexts of a table's rows; the images are not looked at."""
    return [
        DescribedContext(_image(row), row["description"], row["question"], row["task"])
        for row in rows
    ]


def with_failures(table: Any, failures: Sequence[str | None]) -> Any:
    """The table, saying why rows failed."""
    import pyarrow as pa

    place = table.schema.get_field_index(FAILURE)
    return table.set_column(place, FAILURE, pa.array(failures, pa.string()))


def _row(asked: Asked) -> dict[str, Any]:
    context = asked.context
    image: Any = context.image
    known = isinstance(image, KnownImage)
    return {
        KEY: asked.key,
        "path": str(image.path.absolute()) if known else None,
        "pixels": image.digest if known else None,
        "file": None if known else image,
        "question": context.guidance,
        "task": context.task,
        "description": context.description,
        FAILURE: None,
    }


def _image(row: dict[str, Any]) -> Any:
    return row["file"] if row["path"] is None else KnownImage(Path(row["path"]), row["pixels"])
