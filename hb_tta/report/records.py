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
        first: the first token of what it would answer by itself, where that was kept.
        share: that token's probability.
        score: a judge's, of how well the image shows its description; None: nobody judged it.
    """

    label: str
    pictures: Sequence[Picture] = ()
    yes: float | None = None
    no: float | None = None
    answer: str | None = None
    first: str | None = None
    share: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Metric:
    """A number that a task gives for each of its questions.

    Attributes:
        name: the task's.
        kind: of ``cells.KINDS``: "percent" of a share between 0 and 1, "fine" of anything else.
        lower_is_better: as errors are.
        pairs: whether the two questions of an image also count together, as MME's do.
    """

    name: str
    kind: str = "percent"
    lower_is_better: bool = False
    pairs: bool = False

    @property
    def graded(self) -> bool:
        """Whether there is no right and wrong, but better and worse."""
        return self.kind != "percent" or self.lower_is_better


ACC = Metric("ACC", pairs=True)
"""MME's."""


@dataclass(frozen=True)
class Record:
    """How well one question was answered, and what was seen and said.

    Attributes:
        question: its id; the same in every run of the same task, once in each.
        group: what questions of one image share, within a category: the unit that intervals
            resample.
        category: of the task; may be empty.
        score: 1 for a right answer, 0 for a wrong one; between them where a task gives parts. Of
            the first metric that the question has, where a task has several.
        scores: by metric, where a task has others than ``ACC``; a metric may leave questions out.
        text: of the question.
        target, answer: what is right, and what was said.
        options: what there was to choose from, in order.
        description: what the generator was told.
        seen: the real image, then the views; empty where they were not kept.
        combined: yes and no of all that was seen together.
        dropped: candidates that a judge did not let through: the model did not see them.
        sure: how sure the model was of its plain answer, where a gate asked; with nothing but the
            real image in ``seen`` that answer stood.
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
    dropped: Sequence[Seen] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    options: Sequence[str] = ()
    sure: float | None = None

    @property
    def right(self) -> bool:
        """Whether the answer counts as right, where there is right and wrong."""
        return self.score >= 0.5

    def value(self, metric: Metric) -> float | None:
        """The number of a metric; None where the question has none."""
        return self.score if metric.pairs else self.scores.get(metric.name)


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
        metrics: what its records have numbers of; the same in all runs of a task.
        own: what the harness itself says of all questions, by metric.
        without: metrics of the task that have no number a question.
        unit: what ``Record.group`` stands for, in words; "question" where each is its own.
    """

    name: str
    records: Sequence[Record]
    plain: bool = False
    model: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    metrics: Sequence[Metric] = (ACC,)
    own: Mapping[str, float] = field(default_factory=dict)
    without: Sequence[str] = ()
    unit: str = "image"

    def metric_of(self, record: Record) -> Metric:
        """The first metric that a question has a number of."""
        found = (metric for metric in self.metrics if record.value(metric) is not None)
        return next(found, self.metrics[0])
