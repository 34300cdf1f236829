"""Where training samples come from: rows of a data set, with their images read.

A source is read by row numbers, so that a run is cut into pieces, shared among processes and
resumed anywhere. A row that cannot be used is a ``BadRecord``: counted and listed, never silent.
What a data set's files say is read in ``hb_tta.datasets``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hb_tta.datasets.bongard_hoi import BongardExamples
from hb_tta.datasets.hub import gqa, vqav2
from hb_tta.datasets.imagenet import imagenet_examples
from hb_tta.datasets.own import OwnExamples, is_hub_name, open_rows
from hb_tta.datasets.pocket import PocketExamples
from hb_tta.datasets.pocket_training import PocketHoiExamples, PocketObjectExamples
from hb_tta.datasets.rows import Columns
from hb_tta.datasets.samples import Example, Examples
from hb_tta.errors import UserError, choose_from
from hb_tta.images import load_image
from hb_tta.reading import user_path
from hb_tta.training.recipes import Settings

LAYOUTS: dict[str, Callable[[Path | None], Examples]] = {
    "pocket": PocketExamples,
    "pocket-hoi": PocketHoiExamples,
    "pocket-object": PocketObjectExamples,
    "vqav2": vqav2,
    "gqa": gqa,
    "bongard-hoi": BongardExamples,
    "imagenet": imagenet_examples,
}
"""Data sets by name: of the hub or of this package without a folder, else in the folder's files."""


@dataclass(frozen=True)
class BadRecord:
    """A row that cannot be used, and why."""

    reason: str


class Source(Protocol):
    """Rows of samples. An example's image is RGB pixels, its ground truth told to the describer."""

    def fingerprint(self) -> Any:
        """Plain JSON that differs where the samples do."""
        ...

    def size(self) -> int | None:
        """The number of rows; ``None`` where only reading on tells."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Example | BadRecord]:
        """Rows ``start`` to ``stop``, fewer where the source ends."""
        ...


class Rows:
    """The rows of a data set as a source."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def fingerprint(self) -> Any:
        """Of the data set."""
        return self.examples.fingerprint()

    def size(self) -> int | None:
        """Of the data set."""
        return self.examples.size()

    def read(self, start: int, stop: int) -> Iterator[Example | BadRecord]:
        """See ``Source.read``."""
        for called, row in self.examples.rows(start, stop):
            try:
                yield _with_pixels(self.examples.example(row))
            except (ValueError, KeyError, TypeError, IndexError, UserError, OSError) as error:
                yield BadRecord(f"{called}: {_reason(error)}")


class Interleaved:
    """The rows of several sources in turn, as long as all last."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources

    def fingerprint(self) -> Any:
        """Of all sources."""
        return {"interleaved": [source.fingerprint() for source in self.sources]}

    def size(self) -> int | None:
        """Of the shortest, times their number."""
        sizes = [source.size() for source in self.sources]
        known = [size for size in sizes if size is not None]
        return min(known) * len(self.sources) if len(known) == len(sizes) else None

    def read(self, start: int, stop: int) -> Iterator[Example | BadRecord]:
        """See ``Source.read``."""
        number = len(self.sources)
        streams = [
            source.read((start - i + number - 1) // number, (stop - i + number - 1) // number)
            for i, source in enumerate(self.sources)
        ]
        for row in range(start, stop):
            found = next(streams[row % number], None)
            if found is None:
                return
            yield found


class Redescribed:
    """Another source's samples without the descriptions that it brings.

    Args:
        source: the other one.
        generic: whether the describer is asked for a caption of everything, whatever the task.
    """

    def __init__(self, source: Source, *, generic: bool) -> None:
        self.source, self.generic = source, generic

    def fingerprint(self) -> Any:
        """Of the samples, and of how they are described."""
        how = "generic" if self.generic else "by task"
        return {"described": how, "samples": self.source.fingerprint()}

    def size(self) -> int | None:
        """See ``Source.size``."""
        return self.source.size()

    def read(self, start: int, stop: int) -> Iterator[Example | BadRecord]:
        """See ``Source.read``."""
        for one in self.source.read(start, stop):
            yield one if isinstance(one, BadRecord) else self._without(one)

    def _without(self, one: Example) -> Example:
        context = one.context
        if self.generic:
            context = replace(context, guidance="", task="generic", ground_truth=None)
        return replace(one, context=context, description=None)


def described_by(source: Source, prompt: str) -> Source:
    """A source as ``prompt`` of a training's settings has it."""
    return source if prompt == "own" else Redescribed(source, generic=prompt == "generic")


def open_source(
    data: str | None,
    data_format: str | None = None,
    *,
    needs: bool = True,
    columns: Columns | None = None,
) -> Source | None:
    """A source by its name or path.

    Args:
        data: a name of ``LAYOUTS``, several joined by "+" (their rows take turns), whatever
            ``hb_tta.datasets.own`` reads, or a folder in the layout of ``data_format``.
        data_format: the name whose layout a folder has; a file's is known by its name.
        needs: whether missing data is an error; ``None`` is returned else.
        columns: what a person's own are called.

    Raises:
        UserError: there is no such data.
    """
    if data is None:
        raise UserError("the recipe names no data: give a file or folder with --data")
    names = data.split("+")
    if all(name in LAYOUTS for name in names):
        return _opened([LAYOUTS[name] for name in names], None, needs)
    path = user_path(data)
    if not needs and not path.exists():
        return None
    if path.is_dir() and data_format:
        return _opened([_layout(name) for name in data_format.split("+")], path, needs)
    try:
        rows = open_rows(data)
    except UserError as error:
        if path.exists() or is_hub_name(data):
            raise
        raise UserError(
            f"{data!r} is no file and no known data{choose_from(data, LAYOUTS)}, or name a file or "
            "folder of yours"
        ) from error
    if rows is None:
        raise UserError(
            f"{data!r} holds no file of rows: put one with image, question and answer into it, or "
            f"say its layout by --set data_format=… with one of {', '.join(LAYOUTS)}"
        )
    return Rows(OwnExamples(rows, columns))


def columns_of(settings: Settings) -> Columns:
    """What a training's settings say of the columns of a person's own rows."""
    return Columns(settings.image_column, settings.question_column)


def _layout(name: str) -> Callable[[Path | None], Examples]:
    if name not in LAYOUTS:
        raise UserError(f"data_format={name!r} is not known{choose_from(name, LAYOUTS)}")
    return LAYOUTS[name]


def _opened(
    layouts: list[Callable[[Path | None], Examples]], path: Path | None, needs: bool
) -> Source | None:
    try:
        sources: list[Source] = [Rows(layout(path)) for layout in layouts]
    except UserError:
        if needs:
            raise
        return None
    return sources[0] if len(sources) == 1 else Interleaved(sources)


def _with_pixels(example: Example) -> Example:
    context = example.context
    return replace(example, context=replace(context, image=load_image(context.image)))


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return " ".join(str(error).split())[:200] or type(error).__name__
