"""What data sets are read as: tasks to score, and examples to train or to augment.

Reading is deterministic and mutates nothing. Labels and ground truths come with the samples; what a
model may see of them is decided by whoever runs the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL.Image import Image

from hb_tta.context import MultimodalContext

_SUBSET_SEED = 0


class LabelledImage(NamedTuple):
    """An image (a file, or pixels) and the index of its class."""

    image: Path | Image
    label: int


@dataclass(frozen=True)
class Classification:
    """A classification task.

    Attributes:
        name: of the task.
        class_names: what the labels count.
        images: the samples; ``total`` where not all are taken.
        total: how many samples the whole task has.
    """

    name: str
    class_names: tuple[str, ...]
    images: Sequence[LabelledImage]
    total: int


class HoiImage(NamedTuple):
    """An image of a few-shot task with its annotation; label 0 is positive, 1 negative."""

    image: Path | Image
    label: int
    agent: str
    action: str
    object: str


@dataclass(frozen=True)
class HoiTask:
    """Supports, whose annotations are inputs, and queries, whose labels are for scoring alone."""

    supports: tuple[HoiImage, ...]
    queries: tuple[HoiImage, ...]


@dataclass(frozen=True)
class FewShot:
    """Few-shot tasks of one split; ``total`` where not all are taken."""

    name: str
    tasks: Sequence[HoiTask]
    total: int


@dataclass(frozen=True)
class Example:
    """An image, what is asked of it and what is true.

    Attributes:
        context: with its ground truth where the data set has one. Its image may still be a path or
            the bytes of a file, for ``hb_tta.images.load_image``.
        description: where the data set brings its own; else a describer writes one.
    """

    context: MultimodalContext
    description: str | None = None


class Examples(Protocol):
    """A data set of examples, read in pieces, a row at a time."""

    def fingerprint(self) -> Any:
        """Plain JSON that differs where the examples do."""
        ...

    def size(self) -> int | None:
        """The number of rows; ``None`` where only reading on tells."""
        ...

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """Rows ``start`` to ``stop``, fewer where the data set ends.

        Returns:
            What a person calls each row, such as "line 3", and what ``example`` takes.
        """
        ...

    def example(self, row: Any) -> Example:
        """What a row says.

        Raises:
            UserError: it cannot be used.
            KeyError, ValueError, TypeError, IndexError: it is not as the data set's rows are.
        """
        ...


def example(
    image: Any, guidance: str, task: str, truth: str | None, description: str | None = None
) -> Example:
    """An ``Example`` of an image in any form that ``load_image`` takes."""
    return Example(MultimodalContext(image, guidance, task, truth), description)


def subset(number: int, limit: int | None) -> list[int]:
    """Indices of a subset: always the same one, drawn from all, in order."""
    if limit is None or limit >= number:
        return list(range(number))
    chosen = np.random.default_rng(_SUBSET_SEED).permutation(number)[:limit]
    return sorted(chosen.tolist())
