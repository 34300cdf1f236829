"""Runs → ACC and ACC+ by category, with intervals over images and tests against the plain run.

Shares are between 0 and 1 here; percent is for people (table.py, page.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hb_tta.metrics import Interval, PairedTest, bootstrap_interval, paired_test
from hb_tta.report.records import Record, Run

ALL = "all"
"""The name of all categories together; each question counts once."""

Figure = tuple[Interval | None, PairedTest | None]


@dataclass(frozen=True)
class Change:
    """A run against the plain run of the same model, over the same questions.

    Attributes:
        acc, acc_plus: the differences, and whether they could be chance.
        fixed: questions that the plain run answers wrongly and this one rightly.
        broken: the other way round.
    """

    acc: PairedTest
    acc_plus: PairedTest | None
    fixed: int
    broken: int


@dataclass(frozen=True)
class Score:
    """How well a run answers a category.

    Attributes:
        acc: mean score of the questions: the share that is answered rightly.
        acc_plus: share of images both of whose questions are; None where images do not have two.
        questions, images: how many count.
        left_out: questions whose image lacks the other one (an odd ``--limit``), so that ACC and
            ACC+ are over the same images, and ACC+ ≤ ACC.
        change: None for the plain run, and where there is none.
    """

    acc: Interval
    acc_plus: Interval | None
    questions: int
    images: int
    left_out: int
    change: Change | None

    @property
    def figures(self) -> tuple[Figure, Figure]:
        """ACC and ACC+, each with its test against the plain run."""
        if self.change is None:
            return (self.acc, None), (self.acc_plus, None)
        return (self.acc, self.change.acc), (self.acc_plus, self.change.acc_plus)


@dataclass(frozen=True)
class Scored:
    """A run, its scores by category (``ALL`` last), and the name of the run it is compared with."""

    run: Run
    scores: dict[str, Score]
    plain: Run | None


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


def change_of(record: Record, plain: Record | None) -> str:
    """ "fixed", "broken", "right" or "wrong"; the last two where nothing changed."""
    if plain is None or plain.right == record.right:
        return "right" if record.right else "wrong"
    return "fixed" if record.right else "broken"


def _same_model(one: Run, other: Run) -> bool:
    return one.model is None or other.model is None or one.model == other.model


def _scored(run: Run, plain: Run | None) -> Scored:
    scores = {}
    for name in [*categories([run]), ALL]:
        records = _of(run, name)
        scores[name] = _score(records, None if plain is None else _of(plain, name))
    return Scored(run, scores, plain)


def _of(run: Run, category: str) -> list[Record]:
    chosen = [record for record in run.records if category in (record.category, ALL)]
    return sorted(chosen, key=lambda record: record.question)


def _score(records: list[Record], plain: list[Record] | None) -> Score:
    kept = _whole(records)
    images = _images(kept)
    pairs = _pairs(kept)
    return Score(
        acc=bootstrap_interval(_scores(kept), groups=images),
        acc_plus=bootstrap_interval(pairs) if pairs else None,
        questions=len(kept),
        images=len(set(images)),
        left_out=len(records) - len(kept),
        change=None if plain is None else _change(kept, _whole(plain)),
    )


def _change(records: list[Record], plain: list[Record]) -> Change:
    assert [r.question for r in records] == [r.question for r in plain], "other questions"
    pairs, plain_pairs = _pairs(records), _pairs(plain)
    changes = Counter(change_of(*both) for both in zip(records, plain, strict=True))
    return Change(
        acc=paired_test(_scores(records), _scores(plain), groups=_images(records)),
        acc_plus=paired_test(pairs, plain_pairs) if pairs else None,
        fixed=changes["fixed"],
        broken=changes["broken"],
    )


def _whole(records: list[Record]) -> list[Record]:
    """The records without those whose image lacks one of two questions that others have."""
    counts = Counter(_images(records))
    if set(counts.values()) != {1, 2}:
        return records
    return [r for r, image in zip(records, _images(records), strict=True) if counts[image] == 2]


def _pairs(records: list[Record]) -> list[float]:
    """An image after the other, 1 where both questions are right; [] where there are no pairs."""
    counts = Counter(_images(records))
    if set(counts.values()) != {2}:
        return []
    right = Counter(i for r, i in zip(records, _images(records), strict=True) if r.right)
    return [float(right[image] == 2) for image in counts]


def _images(records: list[Record]) -> list[str]:
    """The unit that is resampled: MME counts its images anew in each category."""
    return [f"{record.category}\0{record.group}" for record in records]


def _scores(records: list[Record]) -> list[float]:
    return [record.score for record in records]
