"""Which candidates are shown: the best n by a judge's scores, and none that it distrusts.

Numbers in, places out; ``choice.py`` finds the numbers. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hb_tta.context import MOST_VIEWS
from hb_tta.errors import UserError
from hb_tta.spelling import Unfit
from hb_tta.views.judges import JudgeSpec

REAL = "real"
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_RELATIVE = re.compile(rf"{REAL}\s*(?:([+-])\s*({_NUMBER}))?", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """How the shown views are chosen among the candidates.

    Attributes:
        judge: who scores them; ``None``: nobody, and all candidates are shown.
        candidates: how many there are of a context; ``None``: as many as are shown.
        min_score: a view below it is never shown: a number on the judge's scale, or "real", the
            real image's own score, with a number added or taken off ("real-0.1"); then no view
            of an image that is unlike those that the family knows is trusted either, whatever its
            score (``familiar.py``). ``None``: none is too low.

    Raises:
        UserError: candidates or min_score say something and there is no judge; or they are none.
    """

    judge: JudgeSpec | None = None
    candidates: int | None = None
    min_score: float | str | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "min_score", read_min_score(self.min_score))
        except Unfit as error:
            raise UserError(f"min_score={self.min_score!r} {error}") from None
        if self.judge is None and self.min_score is not None:
            raise UserError(
                f"min_score={self.min_score} has no meaning without a judge: name one, as in "
                "judge=fine_grained, or leave min_score out"
            )

    def number(self, n: int) -> int:
        """How many candidates there are where ``n`` views are shown.

        Raises:
            UserError: there would be fewer, or more and nobody to choose.
        """
        check_candidates(self.candidates, n, judged=self.judge is not None)
        return self.candidates or n

    def least(self, real_score: float, *, unlike: bool) -> float:
        """The least score of a view that is shown.

        Args:
            real_score: of the real image.
            unlike: whether the family knows no such images: neither its generator's views nor its
                judge's scores mean anything then.
        """
        if unlike and self.min_score is not None:
            return math.inf
        return threshold(self.min_score, real_score)

    def to_json(self, judge: dict[str, Any]) -> dict[str, Any]:
        """Plain JSON of all that decides which candidates are shown, n aside.

        Args:
            judge: ``JudgeSpec.to_json()``.
        """
        return {"judge": judge, "candidates": self.candidates, "min_score": self.min_score}


def check_candidates(candidates: int | None, n: int, *, judged: bool) -> None:
    """Raises UserError unless so many candidates give n views."""
    if candidates is not None and candidates > MOST_VIEWS:
        raise UserError(f"candidates={candidates} are too many: use up to {MOST_VIEWS}")
    if candidates is not None and candidates < n:
        raise UserError(
            f"candidates={candidates} are fewer than the {n} views to be shown: use {n} or more, "
            "or a smaller n"
        )
    if candidates is not None and candidates > n and not judged:
        raise UserError(
            f"candidates={candidates} without a judge would show the first {n} of them: name a "
            "judge, as in judge=fine_grained, or leave candidates out"
        )


def choose(scores: Sequence[float], n: int, least: float = -math.inf) -> list[int]:
    """The places of the best n scores that are not below ``least``, in order of place.

    Of equal scores the earlier place is the better one.
    """
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return sorted(place for place in ranked[:n] if scores[place] >= least)


def read_min_score(value: Any) -> float | str | None:
    """A least score as a person spells it: a number, "real", "real-0.1", "none".

    Raises:
        Unfit: it is neither.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    found = _RELATIVE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None:
        sign, number = found.groups()
        return REAL if number is None or float(number) == 0 else f"{REAL}{sign}{float(number)!r}"
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise Unfit('is no score: give a number, "real", or "real-0.1"')
    return score


def threshold(min_score: float | str | None, real_score: float) -> float:
    """The least score of a view that is shown.

    Args:
        min_score: as ``read_min_score`` gives it.
        real_score: of the real image.
    """
    if min_score is None:
        return -math.inf
    if isinstance(min_score, str):
        return real_score + float(min_score.removeprefix(REAL) or 0)
    return min_score
