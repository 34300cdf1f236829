"""What ``hb-tta augment`` is asked for: images with one question, or the rows of a file."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hb_tta.context import DescribedContext, MultimodalContext
from hb_tta.datasets.files import IMAGE_SUFFIXES, images_below
from hb_tta.datasets.own import is_hub_name, names_rows, open_rows
from hb_tta.datasets.rows import Columns, OwnRows, needs_question
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests
from hb_tta.reading import user_path
from hb_tta.shards import Shard

LONGEST = 4096  # characters of a pattern of files; what is longer asks something

T = TypeVar("T")
C_co = TypeVar("C_co", covariant=True)
"""What images are made of: a context, or a prompt."""
L_co = TypeVar("L_co", bound="Line[Any]", covariant=True)


class Line(Protocol[C_co]):
    """What a command line, or a row, asks images of."""

    @property
    def index(self) -> int:
        """Its number, from 1; it names the images' files."""
        ...

    @property
    def image(self) -> Path | bytes:
        """The file, or its bytes, that the page shows beside them."""
        ...

    @property
    def question(self) -> str:
        """The text that asks for them."""
        ...

    @property
    def called(self) -> str:
        """What a person calls it, such as "line 3"."""
        ...

    @property
    def others(self) -> Mapping[str, Any]:
        """The row's other columns, for the manifest."""
        ...

    def context(self, digests: PixelDigests) -> C_co:
        """What a model makes the images of.

        Raises:
            UserError: it cannot be used.
        """
        ...

    def told(self, image: str, description: str | None) -> dict[str, Any]:
        """What the manifest says of what was asked for.

        Args:
            image: the image's path from the manifest's folder.
            description: that the views follow.
        """
        ...


@dataclass(frozen=True)
class Request:
    """An image to augment.

    Attributes:
        index: the row's number, from 1; it names the views' files.
        image: the image's file, or its bytes.
        question: the text guidance; empty where the task needs none.
        task: one of ``TASKS``.
        description: used in the place of a describer's.
        called: what a person calls it, such as "line 3".
        others: the row's other columns, for the manifest.
    """

    index: int
    image: Path | bytes
    question: str
    task: str
    description: str | None = None
    called: str = ""
    others: dict[str, Any] = field(default_factory=dict)

    def context(self, digests: PixelDigests) -> MultimodalContext | DescribedContext:
        """What the augmenter takes; the pixels of a file are read again when a model needs them.

        Raises:
            UserError: there is no sound image in the file.
        """
        image: Any = self.image
        if isinstance(image, Path):
            image = digests.known(image)
        else:
            digests.of(image)
        if self.description is not None:
            return DescribedContext(image, self.description, self.question, self.task)
        return MultimodalContext(image, self.question, self.task)

    def told(self, image: str, description: str | None) -> dict[str, Any]:
        """What the manifest says of what was asked for.

        Args:
            image: the image's path from the manifest's folder.
            description: that the views follow; of a method that needs none, the row's own stays.
        """
        return {
            "image": image,
            "question": self.question,
            "task": self.task,
            "description": self.description if description is None else description,
        }


@dataclass(frozen=True)
class Failure:
    """A row that could not be augmented, and why."""

    index: int
    reason: str
    called: str = ""

    def __str__(self) -> str:
        return f"{self.called or f'line {self.index}'}: {self.reason}"


@dataclass(frozen=True)
class Asked(Generic[L_co]):
    """What a command line asks for.

    Attributes:
        lines: in their order; they are read each time that they are gone through.
        many: whether one that fails leaves the others to be done.
    """

    lines: Iterable[L_co | Failure]
    many: bool

    def part(self, shard: Shard | None) -> Iterable[L_co | Failure]:
        """The lines of a part of the job; ``None``: all of them."""
        return self.lines if shard is None else Reread(partial(shard.part, self.lines))


@dataclass(frozen=True)
class Reread(Generic[T]):
    """An iterable that is made anew each time that it is gone through.

    Attributes:
        make: gives what there is to go through.
    """

    make: Callable[[], Iterable[T]]

    def __iter__(self) -> Iterator[T]:
        return iter(self.make())


def read_asked(
    named: Sequence[str], question: str | None, task: str, columns: Columns | None = None
) -> Asked[Request]:
    """What the images, folders or file of rows that were named ask for.

    Args:
        named: paths, patterns of them, or one name of a data set; the last may be the question.
        question: of all images, where it is not among them.
        task: of all that name none.
        columns: what those of the rows are called.

    Raises:
        UserError: nothing is named so, or what is named does not go together.
    """
    places, question = _places(named, question)
    rows = _rows(places[0]) if len(places) == 1 else None
    if rows is not None:
        if question is not None:
            raise UserError(
                f"a question stands beside {places[0]}, whose rows hold their own: leave it out"
            )
        return Asked(read_requests(rows, task, columns), many=True)
    if columns not in (None, Columns()):
        raise UserError(f"a column is one of rows', and {places[0]} has none: leave it out")
    images = list(chain.from_iterable(map(_images, places)))
    many = len(images) > 1 or os.path.isdir(user_path(places[0]))
    lines = [
        Request(number, image, question or "", task, called=str(image))
        for number, image in enumerate(images, 1)
    ]
    return Asked(lines, many)


def read_requests(
    rows: OwnRows, task: str, columns: Columns | None = None
) -> Iterable[Request | Failure]:
    """The requests of a person's own rows. The images are not looked at.

    Args:
        task: of the rows that name none.

    Raises:
        UserError: a table lacks what every row needs.
    """
    columns = columns or Columns()
    columns.check(rows)
    if rows.columns is not None:
        print(f"hb-tta: {rows.name}: {columns.told(rows.columns)}", file=sys.stderr)
    return Reread(partial(_requests, rows, task, columns))


def _requests(rows: OwnRows, task: str, columns: Columns) -> Iterator[Request | Failure]:
    for row in rows:
        try:
            record = columns.read(row, rows.root)
            its_task = record.task or task
            wrong = needs_question(record, its_task)
            if wrong:
                raise UserError(wrong)
        except UserError as error:
            yield Failure(row.number, str(error), row.called)
        else:
            yield Request(
                row.number,
                record.image,
                record.question or "",
                its_task,
                record.description,
                row.called,
                record.others,
            )


def _places(named: Sequence[str], question: str | None) -> tuple[list[str], str | None]:
    """Where the images are, and what is asked of all."""
    *most, last = named
    if question is None and most and not _is_place(last):
        named, question = most, last
    places = [place for name in named for place in _matching(name)]
    for place in places if len(places) > 1 else []:
        if names_rows(place):
            raise UserError(f"{place} holds rows and stands beside others: give it alone")
        if not _exists(place):
            raise UserError(
                f"there is no image {place!r}: check the path; a question comes last, once"
            )
    return places, question


def _is_place(name: str) -> bool:
    """Whether an argument names something rather than asks it."""
    if _exists(name) or (len(name) < LONGEST and glob.has_magic(name) and glob.glob(name)):
        return True
    looks_so = name.lower().endswith(tuple(IMAGE_SUFFIXES)) or names_rows(name)
    return looks_so and not any(char.isspace() for char in name)


def _exists(name: str) -> bool:
    return bool(name) and os.path.exists(user_path(name))  # False of what can be no path, too


def _matching(name: str) -> list[str]:
    """The files of a pattern that no shell has replaced, else the name itself."""
    if _exists(name) or not glob.has_magic(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise UserError(f"no file matches {name!r}: check the pattern; a question comes last, once")
    return found


def _rows(place: str) -> OwnRows | None:
    """The rows of what was named; ``None``: it is an image, or a folder of images."""
    path = user_path(place)
    is_folder = os.path.isdir(path)
    if names_rows(place) or is_folder:
        rows = open_rows(place)
        if rows is not None and is_folder:
            print(f"hb-tta: reading {rows.name}", file=sys.stderr)
        return rows
    return open_rows(place) if not _exists(place) and is_hub_name(place) else None


def _images(place: str) -> list[Path]:
    path = user_path(place)
    if not os.path.isdir(path):
        return [path]
    found = images_below(path)
    if not found:
        raise UserError(f"the folder {place} holds no image: name one that does")
    return found
