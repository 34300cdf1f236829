"""Runs → scores by part, with intervals over images and tests against the plain run.

The parts are MME's categories, with ACC and ACC+; or, of a task of other metrics, each metric as a
whole, and the first of them in each category. Shares are between 0 and 1 here; percent is for
people (table.py, parts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hb_tta.metrics import Interval, PairedTest, bootstrap_interval, paired_test
from hb_tta.report.records import ACC, Metric, Record, Run
from hb_tta.report.t_test import TTest, clustered_error, paired_t_test, standard_error

ALL = "all"
"""The name of all categories together; each question counts once."""

CHANGES = {
    False: ("fixed", "broken", "right", "wrong"),
    True: ("better", "worse", "same", "same"),
}
"""What may become of a question, by whether its metric is graded: ``change_of`` gives one."""

Figure = tuple[Interval | None, PairedTest | None]


@dataclass(frozen=True)
class Change:
    """A run against the plain run of the same model, over the same questions.

    Attributes:
        acc, acc_plus: the differences, and whether they could be chance.
        fixed: questions that the plain run answers wrongly and this one rightly; of a graded
            metric those that became better.
        broken: the other way round.
        t_test: the difference once more, as harnesses test it.
    """

    acc: PairedTest
    acc_plus: PairedTest | None
    fixed: int
    broken: int
    t_test: TTest | None = None


@dataclass(frozen=True)
class Score:
    """How well a run answers a part.

    Attributes:
        acc: mean score of the questions: the share that is answered rightly.
        acc_plus: share of images both of whose questions are; None where images do not have two.
        questions, images: how many count.
        left_out: questions whose image lacks the other one (an odd ``--limit``), so that ACC and
            ACC+ are over the same images, and ACC+ ≤ ACC.
        change: None for the plain run, and where there is none.
        metric, category: what it is of.
        error, clustered: the mean's standard errors as harnesses have them: with each question a
            unit of its own, and each image.
    """

    acc: Interval
    acc_plus: Interval | None
    questions: int
    images: int
    left_out: int
    change: Change | None
    metric: Metric = ACC
    category: str = ALL
    error: float | None = None
    clustered: float | None = None

    @property
    def figures(self) -> tuple[Figure, Figure]:
        """ACC and ACC+, each with its test against the plain run."""
        if self.change is None:
            return (self.acc, None), (self.acc_plus, None)
        return (self.acc, self.change.acc), (self.acc_plus, self.change.acc_plus)


@dataclass(frozen=True)
class Scored:
    """A run, its scores by part, and the run it is compared with.

    The parts of ``ACC`` have the categories' names, ``ALL`` last; others begin with their metric's.
    """

    run: Run
    scores: dict[str, Score]
    plain: Run | None

    @property
    def total(self) -> Score:
        """Of all questions; of the first metric where there are several."""
        return next(score for score in self.scores.values() if score.category == ALL)

    @property
    def by_metric(self) -> bool:
        """Whether its parts are metrics."""
        return not self.run.metrics[0].pairs


def score(runs: Sequence[Run]) -> list[Scored]:
    """Score runs over the same questions.

    Args:
        runs: of one task. A run is compared with the first plain one of its model.

    Returns:
        One a run, in order.
    """
    return [_scored(run, plain_run_of(run, runs)) for run in runs]


def plain_run_of(run: Run, runs: Sequence[Run]) -> Run | None:
    """What a run is compared with; None for that one itself, and where there is none."""
    plain = [other for other in runs if other.plain and _same_model(run, other)]
    return plain[0] if plain and plain[0] is not run else None


def categories(runs: Iterable[Run]) -> list[str]:
    """The categories of the runs in the order of their questions."""
    return list(dict.fromkeys(record.category for run in runs for record in run.records))


def change_of(record: Record, plain: Record | None, metric: Metric = ACC) -> str:
    """What became of a question, of ``CHANGES``: the last two where nothing is compared."""
    better, worse, right, wrong = CHANGES[metric.graded]
    value = record.value(metric)
    before = value if plain is None else plain.value(metric)
    if value is None or before is None:
        return wrong
    gain = _worth(value, metric) - _worth(before, metric)
    if gain:
        return better if gain > 0 else worse
    return right if value >= 0.5 else wrong


def _worth(value: float, metric: Metric) -> float:
    """What is compared of an answer: only whether it is right, where there is right and wrong."""
    if not metric.graded:
        return float(value >= 0.5)
    return -value if metric.lower_is_better else value


def _same_model(one: Run, other: Run) -> bool:
    return one.model is None or other.model is None or one.model == other.model


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────


def _scored(run: Run, plain: Run | None) -> Scored:
    scores = {}
    for metric, category in _parts(run):
        records = _of(run, metric, category)
        others = None if plain is None else _of(plain, metric, category)
        scores[_name(metric, category)] = _score(records, others, metric, category)
    return Scored(run, scores, plain)


def _parts(run: Run) -> list[tuple[Metric, str]]:
    """What is scored; of one category there is nothing to tell apart."""
    first, *others = run.metrics
    names = categories([run])
    if first.pairs:
        return [(first, name) for name in (*names, ALL)]
    split = [(first, name) for name in names if len(names) > 1 and _of(run, first, name)]
    return [(first, ALL), *split, *((metric, ALL) for metric in others)]


def _name(metric: Metric, category: str) -> str:
    if metric.pairs:
        return category
    return metric.name if category == ALL else f"{metric.name}, {category or 'no category'}"


def _of(run: Run, metric: Metric, category: str) -> list[Record]:
    """The records of a part, in their order: harnesses sum them in it."""
    return [
        record
        for record in run.records
        if category in (record.category, ALL) and record.value(metric) is not None
    ]


# ── A part's figures ─────────────────────────────────────────────────────────────────────────────


def _score(
    records: list[Record], plain: list[Record] | None, metric: Metric, category: str
) -> Score:
    kept = _whole(records) if metric.pairs else records
    values, images = _values(kept, metric), _images(kept, metric)
    pairs = _pairs(kept, metric)
    return Score(
        # Summed in the questions' order, as harnesses do: equal to the last digit.
        acc=replace(bootstrap_interval(values, groups=images), estimate=sum(values) / len(values)),
        acc_plus=bootstrap_interval(pairs) if pairs else None,
        questions=len(kept),
        images=len(set(images)),
        left_out=len(records) - len(kept),
        change=None if plain is None else _change(kept, plain, metric),
        metric=metric,
        category=category,
        error=standard_error(values),
        clustered=clustered_error(values, images),
    )


def _change(records: list[Record], plain: list[Record], metric: Metric) -> Change:
    before_of = {record.question: record for record in plain}
    before = [before_of[record.question] for record in records]
    values, values_before = _values(records, metric), _values(before, metric)
    pairs, pairs_before = _pairs(records, metric), _pairs(before, metric)
    changes = Counter(change_of(*both, metric) for both in zip(records, before, strict=True))
    better, worse, *_ = CHANGES[metric.graded]
    return Change(
        acc=paired_test(values, values_before, groups=_images(records, metric)),
        acc_plus=paired_test(pairs, pairs_before) if pairs else None,
        fixed=changes[better],
        broken=changes[worse],
        t_test=paired_t_test(values, values_before),
    )


def _whole(records: list[Record]) -> list[Record]:
    """The records without those whose image lacks one of two questions that others have."""
    counts = Counter(_images(records, ACC))
    if set(counts.values()) != {1, 2}:
        return records
    return [
        r for r, image in zip(records, _images(records, ACC), strict=True) if counts[image] == 2
    ]


def _pairs(records: list[Record], metric: Metric) -> list[float]:
    """An image after the other, 1 where both questions are right; [] where there are no pairs."""
    images = _images(records, metric)
    counts = Counter(images)
    if not metric.pairs or set(counts.values()) != {2}:
        return []
    right = Counter(image for record, image in zip(records, images, strict=True) if record.right)
    return [float(right[image] == 2) for image in sorted(counts)]


def _images(records: list[Record], metric: Metric) -> list[str]:
    """The unit that is resampled: MME counts its images anew in each category."""
    if not metric.pairs:
        return [record.group for record in records]
    return [f"{record.category}\0{record.group}" for record in records]


def _values(records: list[Record], metric: Metric) -> list[float]:
    found = [record.value(metric) for record in records]
    return [value for value in found if value is not None]
