"""A run's answers under other settings, from what every view said: nothing is asked again.

A question is kept as the logarithms of what each view gives to an answer that begins with yes, with
no, and with anything else; a rule that combines views works on these three as on a vocabulary.

N questions, V views of each, the real image first, K = 3 beginnings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hb_tta.errors import UserError
from hb_tta.report.records import Record, Run, Seen
from hb_tta.tta.combine import Combiner
from hb_tta.views.select import threshold

YES, NO, OTHER = 0, 1, 2
_LEAST = 1e-9  # of a probability whose logarithm is taken

Shares = NDArray[np.float64]


class Setting(NamedTuple):
    """What could have been chosen for a run.

    Attributes:
        gate: see ``ViewSettings``; None: no gate; 0: no views at all.
        min_score: of a view that is shown: a number, or one relative to the real image's own score,
            as "real-0.1"; None: every view.
        combine, real_weight: of the rule.
    """

    gate: float | None = None
    min_score: float | str | None = None
    combine: str = "mean"
    real_weight: float = 1.0


@dataclass(frozen=True)
class Said:
    """A run as arrays.

    Attributes:
        logits_NVK: natural logarithms.
        scores_NV: of the judge, the real image's own first; None where the run had no judge.
        yes_N: whether yes is right.
        groups_N: the image of each question.
    """

    logits_NVK: Shares
    scores_NV: Shares | None
    yes_N: NDArray[np.bool_]
    groups_N: NDArray[np.str_]

    @property
    def sure_N(self) -> Shares:
        """The probability of each plain answer, as a gate reads it."""
        return np.exp(self.logits_NVK[:, 0, : OTHER + 1]).max(-1)

    @property
    def views(self) -> int:
        """Generated views of a question."""
        return self.logits_NVK.shape[1] - 1


def said(run: Run) -> Said:
    """What the views of a run said.

    Raises:
        UserError: the run was not made for that: a gate kept views from some questions, or answers
            do not begin with yes or no.
    """
    gate = run.settings.get("gate")
    if gate not in (None, "None") or run.settings.get("gate_share") not in (None, "None"):
        raise UserError(
            f"{run.name} was run with gate={gate}, so some questions have no views: run it with "
            "preset=paper (and judge=… for its scores)"
        )
    views = min((len(_views(record)) for record in run.records), default=0)
    asked = [record for record in run.records if _views(record)]
    if not views or len(asked) < len(run.records):
        raise UserError(
            f"{run.name} does not say yes and no of every view of every question: calibrate reads "
            "runs with --augment and preset=paper on tasks that are answered by yes or no"
        )
    right = [record.target.strip().lower().rstrip(".") for record in asked]
    if not set(right) <= {"yes", "no"}:
        raise UserError(
            f"{run.name} has the answer {next(t for t in right if t not in ('yes', 'no'))!r}: "
            "calibrate reads tasks that are answered by yes or no"
        )
    shown = [_views(record) for record in asked]
    if len({len(its) for its in shown}) > 1:
        raise UserError(
            f"{run.name} shows more views of some questions than of others: run it without "
            "min_score, calibrate finds one"
        )
    scores = [[its.score for its in row] for row in shown]
    judged = all(score is not None for row in scores for score in row)
    return Said(
        logits_NVK=np.array([[_beginnings(its) for its in row] for row in shown]),
        scores_NV=np.array(scores, dtype=np.float64) if judged else None,
        yes_N=np.array([answer == "yes" for answer in right]),
        groups_N=np.array([f"{record.category}/{record.group}" for record in asked]),
    )


def _views(record: Record) -> Sequence[Seen]:
    """The real image and its views, where each said yes and no; else nothing."""
    seen = list(record.seen)
    there = len(seen) > 1 and all(its.yes is not None and its.no is not None for its in seen)
    return seen if there else ()


def _beginnings(seen: Seen) -> list[float]:
    assert seen.yes is not None and seen.no is not None
    rest = max(1 - math.exp(seen.yes) - math.exp(seen.no), _LEAST)
    return [seen.yes, seen.no, math.log(rest)]


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────


def plain(said: Said) -> Shares:
    """1 for each question that the real image alone answers right, else 0."""
    return _right(said.logits_NVK[:, 0], said.yes_N)


def replayed(
    said: Said, setting: Setting, ungated: dict[Setting, tuple[Shares, Shares]] | None = None
) -> tuple[Shares, Shares]:
    """Under a setting, 1 for each right answer; and how many views each question is shown.

    Args:
        ungated: of settings that were replayed before, to go on from.
    """
    before = {} if ungated is None else ungated
    key = setting._replace(gate=None)
    if key not in before:
        kept_NV = kept(said, setting.min_score)
        combiner = Combiner(setting.combine, setting.real_weight)
        before[key] = _combined(said, kept_NV, combiner), kept_NV.sum(1).astype(np.float64)
    right_N, shown_N = before[key]
    if setting.gate is None:
        return right_N, shown_N
    open_N = said.sure_N < setting.gate
    return np.where(open_N, right_N, plain(said)), np.where(open_N, shown_N, 0.0)


def kept(said: Said, min_score: float | str | None) -> NDArray[np.bool_]:
    """(N, V − 1) which views are good enough."""
    if min_score is None or said.scores_NV is None:
        return np.ones((len(said.yes_N), said.views), bool)
    real_N1, views_NV = said.scores_NV[:, :1], said.scores_NV[:, 1:]
    bar_N1 = real_N1 if isinstance(min_score, str) else np.zeros_like(real_N1)
    return views_NV >= bar_N1 + threshold(min_score, 0.0)


def _combined(said: Said, kept_NV: NDArray[np.bool_], combiner: Combiner) -> Shares:
    """Questions that are shown equally many views together."""
    import torch

    right_N = plain(said)
    counts_N = kept_NV.sum(1)
    for count in sorted(set(counts_N[counts_N > 0].tolist())):
        rows = np.flatnonzero(counts_N == count)
        places = np.stack([np.flatnonzero(kept_NV[row]) for row in rows]) + 1
        places = np.concatenate([np.zeros((len(rows), 1), int), places], 1)
        logits_RVK = np.take_along_axis(said.logits_NVK[rows], places[..., None], 1)
        logits_VRK = torch.from_numpy(logits_RVK.transpose(1, 0, 2).copy())
        right_N[rows] = _right(combiner(logits_VRK).numpy(), said.yes_N[rows])
    return right_N


def _right(logits_NK: Shares, yes_N: NDArray[np.bool_]) -> Shares:
    """An answer that begins otherwise is wrong."""
    return (logits_NK.argmax(-1) == np.where(yes_N, YES, NO)).astype(np.float64)
