"""MUMU's table: what crops say beside words, what is copied that nobody asked for, by tokens.

    python -m hb_tta.experiments.mumu --mumu FOLDER --out DIR [--scenes 600] [--split dev|sealed]

Every arm draws one picture of each of the same scenes (paired), the family's reader judges: every
named colour there, each on its shape, the relation right. Beside them the filling, which only a
crop can say; which of word and crop wins where they differ; held-out looks; the ground of the
crops' scene in pictures that were asked for another; a baseline that pastes the crops. What is
run is in mumu_study.py. Everything is kept in DIR; the same command again does what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from hb_tta.experiments.mumu_study import NAMES, RUNS, Figures, Study, run_on
from hb_tta.experiments.plan import PlannedRun, carry_out, write_tables
from hb_tta.families import get_family
from hb_tta.metrics import PairedTest, bootstrap_interval, paired_test
from hb_tta.pocket.tasks import SPLITS
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown
from hb_tta.report.parts import SHOWN, SHOWN_NOTE


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the tables."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        text = write_tables(options.out / f"mumu.{options.split}.md", tables(results))
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run a row."""
    study = study_of(options)
    for name in (*RUNS, *(f"tokens {number}" for number in options.tokens)):
        yield PlannedRun(name, lambda name=name: run_on(study, name))  # type: ignore[misc]


def study_of(options: argparse.Namespace) -> Study:
    """What the command line asks for."""
    named = {"generator": options.generator, "mumu": options.mumu and str(options.mumu)}
    family = get_family(options.family).with_roles(**{k: v for k, v in named.items() if v})
    settings = {"steps": options.steps, "guidance": options.guidance}
    return Study(
        family, options.out, options.scenes, options.split,
        store=str(options.out / "store"), settings=settings, batch_size=options.batch_size,
    )  # fmt: skip


# ── Tables ──────────────────────────────────────────────────────────────────────────────────────


def tables(results: dict[str, Figures]) -> list[Table]:
    """What is there so far."""
    judged = {name: its for name, its in results.items() if is_judged(its)}
    made = [judged_table(judged)] if judged else []
    if others := {name: its for name, its in results.items() if name not in judged}:
        made.append(others_table(others))
    return made


def is_judged(its: Figures) -> bool:
    """Whether an arm's verdicts, not something else that is measured."""
    return set(NAMES) <= set(its)


def judged_table(judged: dict[str, Figures]) -> Table:
    """A row an arm, a column an attribute; each is compared with the first row that it can be."""
    rows: list[list[Cell | str]] = []
    for arm, its in judged.items():
        base = _base_of(arm, judged)
        cells = [_cell(its, name, base, judged) for name in NAMES]
        rows.append([arm, *cells, _shown(its, judged.get(base))])
    notes = [_NOTE]
    if len(judged) > 1:
        notes.append(f"{_BEHIND.format(next(iter(judged)))} {SHOWN_NOTE} Of “bound”.")
    title = "What the picture shows of what was asked"
    return Table(["prompt", *NAMES, SHOWN], rows, title=title, notes=notes)


def others_table(others: dict[str, Figures]) -> Table:
    """A row a figure."""
    told: list[list[Cell | str]] = [
        [name, figure, Cell.of(bootstrap_interval(values), kind=_kind(figure))]
        for name, its in others.items()
        for figure, values in _said(its).items()
        if values
    ]
    return Table(["measure", "figure", "value"], told, title="Beside it", heads=2)


def compared(ours: Sequence[float], base: Sequence[float]) -> PairedTest | None:
    """The paired difference on the scenes that both could be asked of; None: there is none."""
    mine, theirs = np.array(ours), np.array(base)
    both = (mine >= 0) & (theirs >= 0)
    return paired_test(mine[both], theirs[both]) if both.sum() > 1 else None


_NOTE = (
    "Of scenes: every named colour is in the picture; each on its shape; the relation holds. The "
    "filling is that of the crops, where the shapes are there; of three, chance is 33."
)
_BEHIND = "Behind a value: its paired difference from “{}”, on the same scenes, and the p-value."
_HELD_OUT = "words, held-out looks"


def _base_of(arm: str, judged: dict[str, Figures]) -> str:
    """The row that an arm is compared with: the first, or the one of the same held-out scenes."""
    return _HELD_OUT if "held-out" in arm else next(iter(judged))


def _cell(its: Figures, name: str, base: str, judged: dict[str, Figures]) -> Cell | str:
    values = np.array(its[name])
    there = values >= 0
    if not there.any():
        return ""
    interval = bootstrap_interval(values[there])
    test = _test(its, judged.get(base), name)
    return Cell.of(interval, None if test is None else Comparison.of(test, base))


def _test(its: Figures, base: Figures | None, name: str) -> PairedTest | None:
    if base is None or its is base or len(base[name]) != len(its[name]):
        return None
    return compared(its[name], base[name])


def _shown(its: Figures, base: Figures | None) -> Cell | str:
    test = _test(its, base, "bound")
    return "" if test is None else could_have_shown(test)


def _said(its: Figures) -> Figures:
    if "crop wins" not in its:
        return its
    groups = np.array(its["crop wins"])
    return {
        "crop wins": (groups == 1).astype(float).tolist(),
        "word wins": (groups == 0).astype(float).tolist(),
    }


def _kind(figure: str) -> str:
    return "fine" if figure in ("CLIP score", "words", "crops of the scene") else "percent"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of all results")
    parser.add_argument("--mumu", type=Path, help="what a training wrote (default: the family's)")
    parser.add_argument("--family", default="pocket")
    parser.add_argument("--generator", help="another base, in the family's place (finding 4)")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
