"""What one run said of one question, whatever harness asked it.

Only the first attributes of each class are needed for the figures; the rest is what the page shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """Where an image is: in a file, or in the store's "views" under a key."""

    file: Path | None = None
    key: str | None = None


@dataclass(frozen=True)
class Seen:
    """An image that was shown to the model, and what the model said of it.

    Attributes:
        label: "real", or its seed.
        pictures: one, or as many as the question shows images.
        yes, no: logarithms of the probabilities that the answer begins with yes, with no; None
            where they were not kept.
        answer: in words, where each view was asked for its own.
        score: of the judge, where there was one.
    """

    label: str
    pictures: Sequence[Picture] = ()
    yes: float | None = None
    no: float | None = None
    answer: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Record:
    """How well one question was answered, and what was seen and said.

    Attributes:
        question: its id; the same in every run of the same task, once in each.
        group: what questions of one image share, within a category: the unit that intervals
            resample.
        category: of the task.
        score: 1 for a right answer, 0 for a wrong one; between them where a task gives parts.
        text: of the question.
        target, answer: what is right, and what was said.
        description: what the generator was told.
        seen: the real image, then the views; empty where they were not kept.
        combined: yes and no of all that was seen together.
    """

    question: str
    group: str
    category: str
    score: float
    text: str = ""
    target: str = ""
    answer: str = ""
    description: str | None = None
    seen: Sequence[Seen] = ()
    combined: Seen | None = None

    @property
    def right(self) -> bool:
        """Whether the answer counts as right."""
        return self.score >= 0.5


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        name: tells it from the other runs.
        records: one a question.
        plain: whether it is what the other runs of its model are compared with, that is, without
            augmentation.
        model: who answered. None: not known, which is taken for the same.
        settings: of the evaluation, for people to read.
        command: what makes its missing views again; None where that is not known.
    """

    name: str
    records: Sequence[Record]
    plain: bool = False
    model: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
