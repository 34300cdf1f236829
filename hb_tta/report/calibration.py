"""Gate, judge and combiner for somebody's own model, from a run's views: what each would gain.

The gain of a choice is cross-fitted: the questions' images are split into parts, what is best on
all parts but one is scored on that one, and the scores are put together. So no figure is of the
questions that it was chosen on. What is told to be typed is chosen on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hb_tta.metrics import PairedTest, bootstrap_interval, paired_test
from hb_tta.report.cells import Cell, Table
from hb_tta.report.records import Run
from hb_tta.report.replay import Said, Setting, Shares, plain, replayed, said

FOLDS = 5
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8)
"""Of the questions that gates of the grid let through, and of the views that thresholds drop."""

Ungated = dict[Setting, tuple[Shares, Shares]]
GATE, JUDGE, COMBINER = "gate", "judge", "combiner"
_RULES = (
    *(("mean", weight) for weight in (1.0, 2.0, 4.0)),
    *((rule, 1.0) for rule in ("confidence", "selection", "zero")),
)


@dataclass(frozen=True)
class Choice:
    """A way to choose, what it chooses, and what that brings.

    Attributes:
        name: what is chosen.
        setting: on all questions.
        right_N: of each question, chosen without its image: 1 or 0.
        shown_N: views shown, the same way.
        test: against the plain answers, over images.
    """

    name: str
    setting: Setting
    right_N: Shares
    shown_N: Shares
    test: PairedTest


@dataclass(frozen=True)
class Calibration:
    """Of one run.

    Attributes:
        run: it.
        said: what its views said.
        choices: the first is what was run, with all views and their mean.
        agree: the share of questions whose replayed answer is right or wrong as the run's was.
    """

    run: Run
    said: Said
    choices: Sequence[Choice]
    agree: float

    @property
    def best(self) -> Choice:
        """The one to type: the highest cross-fitted gain, of equal ones the fewest views."""
        return max(self.choices, key=lambda its: (its.test.difference, -its.shown_N.mean()))


def calibrate(run: Run) -> Calibration:
    """What gates, judges' thresholds and rules would have made of a run.

    Raises:
        UserError: the run does not say what every view said: see ``replay.said``.
    """
    its = said(run)
    grids = _grids(its)
    ungated: Ungated = {}
    fixed = [_fitted("all views, their mean", its, [Setting()], ungated)]
    names = [(GATE,), (JUDGE,), (COMBINER,), (GATE, JUDGE), (GATE, JUDGE, COMBINER)]
    usable = [name for name in names if JUDGE not in name or its.scores_NV is not None]
    if its.scores_NV is None:
        usable.append((GATE, COMBINER))
    found = [_fitted(" and ".join(name), its, _settings(name, grids), ungated) for name in usable]
    own = Setting(
        combine=str(run.settings.get("combine", "mean")),
        real_weight=float(run.settings.get("real_weight", 1.0)),
    )
    was = np.array([record.score for record in run.records])
    try:
        agree = float((replayed(its, own)[0] == was).mean())
    except Exception:  # another package's rule, or one that is about texts
        agree = float("nan")
    return Calibration(run, its, [*fixed, *found], agree)


# ── What there is to choose from ─────────────────────────────────────────────────────────────────


def _grids(its: Said) -> Mapping[str, Sequence]:
    gates = sorted({_written(gate) for gate in np.quantile(its.sure_N, _SHARES)})
    scores: list[float | str | None] = [None]
    if its.scores_NV is not None:
        real_N1, views_NV = its.scores_NV[:, :1], its.scores_NV[:, 1:]
        scores += sorted({_written(score) for score in np.quantile(views_NV, _SHARES)})
        beyond = sorted({_written(score) for score in np.quantile(views_NV - real_N1, _SHARES)})
        scores += ["real", *(f"real{score:+g}" for score in beyond if score)]
    return {GATE: [0.0, *gates, None], JUDGE: scores, COMBINER: _RULES}


def _written(value: float) -> float:
    """As short as it is typed."""
    return float(f"{value:.4g}")


def _settings(names: Sequence[str], grids: Mapping[str, Sequence]) -> list[Setting]:
    gates = grids[GATE] if GATE in names else [None]
    scores = grids[JUDGE] if JUDGE in names else [None]
    rules = grids[COMBINER] if COMBINER in names else [("mean", 1.0)]
    return [Setting(gate, score, *rule) for rule, score, gate in product(rules, scores, gates)]


# ── Cross-fitting ────────────────────────────────────────────────────────────────────────────────


def _fitted(name: str, its: Said, settings: Sequence[Setting], ungated: Ungated) -> Choice:
    each = [replayed(its, setting, ungated) for setting in settings]
    right_SN, shown_SN = (np.stack(one) for one in zip(*each, strict=True))
    folds_N = _folds(its.groups_N)
    right_N, shown_N = np.zeros(len(folds_N)), np.zeros(len(folds_N))
    for fold in sorted(set(folds_N.tolist())):
        here = folds_N == fold
        chosen = _best(right_SN[:, ~here], shown_SN[:, ~here])
        right_N[here], shown_N[here] = right_SN[chosen, here], shown_SN[chosen, here]
    test = paired_test(right_N, plain(its), groups=its.groups_N)
    return Choice(name, settings[_best(right_SN, shown_SN)], right_N, shown_N, test)


def _best(right_SN: Shares, shown_SN: Shares) -> int:
    """The setting with most right answers; of equal ones the one that shows fewest views."""
    right_S, shown_S = right_SN.sum(1), shown_SN.sum(1)
    return int(np.lexsort((np.arange(len(right_S)), shown_S, -right_S))[0])


def _folds(groups_N: np.ndarray) -> np.ndarray:
    """A part for each question; those of one image are in one part. It hangs on their order."""
    _, images_N = np.unique(groups_N, return_inverse=True)
    number = int(images_N.max()) + 1
    parts = np.arange(number) % min(FOLDS, number)
    return np.random.default_rng(0).permutation(parts)[images_N]


# ── What is told ─────────────────────────────────────────────────────────────────────────────────


def table(calibrations: Sequence[Calibration]) -> Table:
    """A row a run and a way to choose."""
    rows: list[list[Cell | str]] = []
    for one in calibrations:
        right_N, groups = plain(one.said), one.said.groups_N
        accuracy = Cell.of(bootstrap_interval(right_N, groups=groups))
        rows.append([one.run.name, "plain", accuracy, "", "0.00", "gate=0"])
        for choice in one.choices:
            fixed = int((choice.right_N > right_N).sum())
            broken = int((choice.right_N < right_N).sum())
            gain = Cell.difference(choice.test, "plain", note=f"{fixed} fixed, {broken} broken")
            views = f"{choice.shown_N.mean():.2f}"
            accuracy = Cell.of(bootstrap_interval(choice.right_N, groups=groups))
            rows.append([one.run.name, choice.name, accuracy, gain, views, _told(choice.setting)])
    notes = [
        f"Points of accuracy against the plain answers, with 95 % bootstrap intervals over images; "
        f"cross-fitted in {FOLDS} parts, so that no answer counts for a choice that it helped to "
        "make. Not corrected for the number of rows.",
    ]
    for one in calibrations:
        notes.append(
            f"{one.run.name}: {len(one.said.yes_N)} questions, {one.choices[0].test.n} images; "
            f"replayed, {100 * one.agree:.1f} % are right or wrong as they were."
        )
    heads = ["run", "chosen", "ACC", "gain", "views shown", "on all questions"]
    return Table(heads, rows, notes=notes, heads=2)


def asked(setting: Setting) -> dict[str, object]:
    """A setting as ``--augment_args`` has it."""
    told: dict[str, object] = {"gate": setting.gate, "combine": setting.combine}
    if setting.min_score is not None:
        told["min_score"] = setting.min_score
    if setting.real_weight != 1:
        told["real_weight"] = setting.real_weight
    return told


def _told(setting: Setting) -> str:
    return ", ".join(f"{k}={'none' if v is None else v}" for k, v in asked(setting).items())
