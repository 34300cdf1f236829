"""What a call of the augmenter would have to make."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hb_tta.context import DescribedContext
    from hb_tta.views.plan import PlannedContext, PlannedViews

SOME = 64  # contexts that lack something, kept to try the speed on


@dataclass(frozen=True)
class Outlook:
    """Counts; equal views of several contexts count once.

    Attributes:
        contexts: that were looked at.
        candidates: that all of them have together; ``shown`` of them at most.
        to_describe, to_make, to_judge: descriptions, candidates and scores that the store lacks.
        unknown: contexts whose description is still to be written. The keys of their candidates
            follow from it: all of them count as lacking, so ``to_make`` is the most.
    """

    contexts: int
    candidates: int
    shown: int
    to_describe: int
    to_make: int
    to_judge: int
    unknown: int

    @property
    def entries(self) -> int:
        """Files that the store will have more, at most."""
        return self.to_describe + self.to_make + self.to_judge


class Look(NamedTuple):
    """A context, and what the store lacks of it.

    Attributes:
        context: as it was given.
        planned: the same, and where its description is kept.
        plan: of its candidates; ``None``: its description is still to be written.
        descriptions, views: keys that the store lacks.
        scores: how many it lacks, at most.
    """

    context: DescribedContext
    planned: PlannedContext
    plan: PlannedViews | None
    descriptions: Collection[str]
    views: Collection[str]
    scores: int

    @property
    def lacks(self) -> bool:
        """Whether a model is needed for it."""
        return self.plan is None or bool(self.views) or self.scores > 0
