"""Data sets of the Hugging Face hub, or copies of them in a folder, by the package ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.datasets.files import listing_digest
from hb_tta.datasets.samples import Example, Examples, example
from hb_tta.errors import UserError
from hb_tta.network import hub_answers


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


def load_rows(name: str, path: Path | None, config: str | None, split: str) -> Any:
    """A stream of a data set's rows; an image is its bytes or its path.

    Raises:
        UserError: ``datasets`` is not installed, or cannot load it.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{name} is read by the package datasets: pip install 'hb-tta[train]'"
        ) from error
    if path is None and not hub_answers():
        raise UserError(
            f"the data {name!r} lie on the hub, which cannot be reached: connect, or name a copy "
            "of them with --data"
        )
    try:
        rows = datasets.load_dataset(str(path or name), config, split=split, streaming=True)
    except Exception as error:  # the library raises of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the data {str(path or name)!r} ({split}) cannot be read: {reason}"
        ) from error
    features = rows.features or {}
    for column, kind in features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


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
