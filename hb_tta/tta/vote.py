"""A vote among answers in words, where a model gives no logits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

_LEADING = re.compile(r"(yes|no)\b", re.IGNORECASE)


def vote(answers: Sequence[str], real_weight: float = 1.0) -> int:
    """Which answer to give: the first of those that most votes agree with.

    Answers agree that begin with the same yes or no, or that are the same but for case, spaces and
    a full stop. A tie goes to the side that the real image is on, else to the earlier view.

    Args:
        answers: one a view, the real image's first.
        real_weight: the real image's votes beside one of each other view.
    """
    votes: dict[str, float] = defaultdict(float)
    sides = [_side(answer) for answer in answers]
    for number, side in enumerate(sides):
        votes[side] += 1.0 if number else real_weight
    most = max(votes.values())
    return next(number for number, side in enumerate(sides) if votes[side] == most)


def _side(answer: str) -> str:
    text = " ".join(answer.split()).strip(" .").casefold()
    leading = _LEADING.match(text)
    return leading[1] if leading else text
