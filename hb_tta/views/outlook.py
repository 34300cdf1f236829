"""What a call of the augmenter would have to make."""

from __future__ import annotations

from dataclasses import dataclass

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
