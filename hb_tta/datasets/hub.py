"""Data sets of the Hugging Face hub, or copies of them in a folder, by the package ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.files import listing_digest
from hb_tta.datasets.rows import Row
from hb_tta.datasets.samples import Example, Examples, example
from hb_tta.errors import UserError, choose_from
from hb_tta.file_index import file_digest
from hb_tta.network import hub_answers
from hb_tta.reading import user_path


class HubExamples:
    """A data set of the hub, or a copy of one in a folder.

    Args:
        name: of the data set.
        path: of the copy; ``None``: the hub.
        config, split: of the data set.
        read: what a row says; its image may be undecoded bytes and a path, as ``datasets`` has it.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        config: str | None,
        split: str,
        read: Callable[[dict[str, Any]], Example],
    ) -> None:
        self.name, self.path, self.config, self.split = name, path, config, split
        self._read = read

    @cached_property
    def stream(self) -> Any:
        """The stream of rows."""
        return load_rows(self.name, self.path, self.config, self.split)

    def fingerprint(self) -> Any:
        """The name, and of a copy its files' names and sizes."""
        return {"hub": self.name, "split": self.split, "copy": listing_digest(self.path)}

    def size(self) -> int | None:
        """As the data set's own card tells it, if it does."""
        info = getattr(self.stream, "info", None)
        split = (getattr(info, "splits", None) or {}).get(self.split)
        return getattr(split, "num_examples", None) or None

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        found = islice(self.stream.skip(start), stop - start)
        return ((f"row {number}", row) for number, row in enumerate(found, start))

    def example(self, row: dict[str, Any]) -> Example:
        """See ``Examples``."""
        return self._read(row)


class TableRows:
    """A person's own rows in Parquet files, or in a data set of the hub or a copy of one.

    Args:
        place: a Parquet file, a folder, or a name of the hub, ``owner/name`` or
            ``owner/name/config``.
        split: of it; ``None``: the only one.

    Raises:
        UserError: ``datasets`` is not installed, cannot read it, or finds several splits.
    """

    def __init__(self, place: str, split: str | None = None) -> None:
        path = user_path(place)
        self.name, self.split, self._path = place, split, path if path.exists() else None
        self.root = path if path.is_dir() else path.parent
        self.columns: tuple[str, ...] | None = tuple(self._stream.features or ()) or None

    def __iter__(self) -> Iterator[Row]:
        """See ``OwnRows``."""
        return self._numbered(self._stream, 0)

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """See ``OwnRows``."""
        return self._numbered(islice(self._stream.skip(start), stop - start), start)

    def size(self) -> int | None:
        """As the data set's own card tells it, if it does."""
        splits = getattr(self._stream.info, "splits", None) or {}
        return getattr(splits.get(self.split), "num_examples", None) or None

    def fingerprint(self) -> Any:
        """The name, and of files their names and sizes."""
        if self._path is not None and self._path.is_file():
            return {"table": file_digest(self._path)}
        return {"hub": self.name, "split": self.split, "copy": listing_digest(self._path)}

    @cached_property
    def _stream(self) -> Any:
        if self._path is not None and self._path.is_file():
            return load_rows("parquet", None, None, "train", data_files=str(self._path))
        if self._path is not None:
            return load_rows(self.name, self._path, None, self.split)
        owner, name, *config = self.name.split("/")
        return load_rows(f"{owner}/{name}", None, config[0] if config else None, self.split)

    def _numbered(self, stream: Any, start: int) -> Iterator[Row]:
        for number, row in enumerate(_read(stream, self.name), start + 1):
            yield Row(number, f"row {number}", row)


def _read(stream: Any, name: str) -> Iterator[Any]:
    """The rows of a stream, whose files may turn out damaged as late as here."""
    try:
        yield from stream
    except Exception as error:  # the library raises of every kind
        raise UserError(f"the data {name!r} cannot be read to its end: {_reason(error)}") from error


def load_rows(
    name: str, path: Path | None, config: str | None, split: str | None, **files: Any
) -> Any:
    """A stream of a data set's rows; an image is its bytes or its path.

    Args:
        split: ``None``: the only one.
        files: ``data_files`` of the library, where the name is that of a format.

    Raises:
        UserError: ``datasets`` is not installed, or cannot load it; or there are several splits.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{name} is read by the package datasets: pip install 'hb-tta[train]'"
        ) from error
    shown = str(files.get("data_files") or path or name)
    if path is None and not files and not hub_answers():
        raise UserError(
            f"the data {name!r} lie on the hub, which cannot be reached: connect, or name a copy "
            "of them"
        )
    try:
        if path is not None and (path / _SAVED[0]).exists() | (path / _SAVED[1]).exists():
            found = datasets.load_from_disk(str(path))
        else:
            place = str(path or name)
            found = datasets.load_dataset(place, config, split=split, streaming=True, **files)
    except Exception as error:  # the library raises of every kind
        raise UserError(
            f"the data {shown!r}{f' ({split})' if split else ''} cannot be read: {_reason(error)}"
        ) from error
    rows = _the_split(found, split, shown)
    features = rows.features or {}
    for column, kind in features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


_SAVED = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` writes into its folder."""


def _the_split(found: Any, split: str | None, name: str) -> Any:
    """The rows of one split, as a stream."""
    if isinstance(found, dict):
        if split is None and len(found) != 1:
            raise UserError(
                f"{name!r} has the splits {', '.join(found)}: name one behind it, as in "
                f"{name}:{next(iter(found), 'train')}"
            )
        chosen = split or next(iter(found))
        if chosen not in found:
            raise UserError(f"{name!r} has no split {chosen!r}{choose_from(chosen, found)}")
        found = found[chosen]
    return found.to_iterable_dataset() if hasattr(found, "to_iterable_dataset") else found


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def vqav2(path: Path | None) -> Examples:
    """VQAv2's split with answers on the hub."""
    return HubExamples(
        "lmms-lab/VQAv2", path, None, "validation",
        lambda row: example(
            as_file(row["image"]), row["question"], "vqa", row["multiple_choice_answer"]
        ),
    )  # fmt: skip


def gqa(path: Path | None) -> Examples:
    """GQA's balanced training questions; the hub keeps images and questions apart."""
    name = "lmms-lab/GQA"
    images: dict[str, Any] = {}

    def read(row: dict[str, Any]) -> Example:
        if not images:
            pictures = load_rows(name, path, "train_balanced_images", "train")
            images.update((picture["id"], as_file(picture["image"])) for picture in pictures)
        if row["imageId"] not in images:
            raise UserError(f"there is no image {row['imageId']!r}")
        truth = row["fullAnswer"] or row["answer"]
        return example(images[row["imageId"]], row["question"], "vqa", truth)

    return HubExamples(name, path, "train_balanced_instructions", "train", read)


def as_file(image: Any) -> Any:
    """An undecoded image's bytes, or its path."""
    return image["bytes"] or image["path"] if isinstance(image, dict) else image
