"""What fewer steps cost in fidelity: DDIM beside DPM-Solver++, on the same contexts and seeds.

    python -m hb_tta.experiments.solvers --out DIR [--split dev|sealed] [--images 100]

One view a question, from the description that the question's template gives. A view is faithful
where the reader answers the question about it as about its reference (fidelity.py); the difference
to DDIM's 25 steps is of the same questions, in pairs, with an interval over images. Everything is
kept in DIR; the same command again does what is missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hb_tta.augment import Augmenter
from hb_tta.experiments.fidelity import FAMILY, Asked
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import get_family
from hb_tta.metrics import bootstrap_interval, paired_test
from hb_tta.pocket.edition import BUNDLED
from hb_tta.pocket.tasks import SPLITS
from hb_tta.report.cells import NOTHING, Cell, Table, could_have_shown

# Name → (solver, steps); each is set beside the first.
ARMS = {
    "DDIM, 25 steps": ("ddim", 25),
    "DDIM, 12 steps": ("ddim", 12),
    "DPM-Solver++, 12 steps": ("dpmsolver++", 12),
    "DPM-Solver++, 10 steps": ("dpmsolver++", 10),
}


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the table."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        path = options.out / f"solvers.{options.split}.md"
        text = write_tables(path, [table(results, options.images)])
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run an arm."""
    for arm in options.arms:
        yield PlannedRun(arm, lambda arm=arm: _measured(arm, options))  # type: ignore[misc]


def _measured(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    solver, steps = ARMS[arm]
    augmenter = Augmenter.from_pretrained(
        "hummingbird", family=FAMILY, store=options.out / "store", solver=solver, steps=steps
    )
    decided_by = {
        "images": options.images,
        "spec": augmenter.spec,
        "reader": get_family(FAMILY).weights("reader").fingerprint(),
    }
    path = options.out / f"solvers.{solver}.{steps}.{options.split}.json"
    return kept(path, decided_by, lambda: measure(augmenter, options))


def measure(augmenter: Augmenter, options: argparse.Namespace) -> dict[str, Any]:
    """By category 0/1 a question, two in a row of one image; processor seconds of all views."""
    faithful, seconds = {}, 0.0
    for category in BUNDLED.categories:
        asked = Asked.of(category, options.split, options.images)
        augmenter.descriptions(asked.contexts)
        began = time.process_time()
        made = augmenter.augment(asked.contexts, n=1)
        seconds += time.process_time() - began
        faithful[category] = [float(row[0]) for row in asked.faithful([its.views for its in made])]
    return {"faithful": faithful, "seconds": seconds}


def table(results: dict[str, dict[str, Any]], images: int) -> Table:
    """A row an arm, its difference to the first, and what the sample could have shown."""
    title = (
        f"Faithful views by solver, %: {images} images a category, two questions each, one view a "
        "question, the same contexts and seeds; intervals over images. Seconds: of the processor, "
        "a view, on whatever else the machine did."
    )
    base = _all(next(iter(results.values())))
    groups = np.arange(len(base)) // 2
    rows: list[list[Cell | str]] = []
    for arm, found in results.items():
        values = _all(found)
        share = Cell.of(bootstrap_interval(values, groups=groups))
        seconds = f"{found['seconds'] / len(values):.2f}"
        if not rows:
            rows.append([arm, share, NOTHING, NOTHING, NOTHING, seconds])
            continue
        test = paired_test(values, base, groups=groups)
        won_lost = f"{int((values > base).sum())} : {int((values < base).sum())}"
        difference = Cell.difference(test, next(iter(results)))
        rows.append([arm, share, difference, won_lost, could_have_shown(test), seconds])
    heads = ["solver", "faithful", "difference", "won : lost", "could have shown", "s a view"]
    return Table(heads, rows, title)


def _all(found: dict[str, Any]) -> np.ndarray:
    return np.array([value for its in found["faithful"].values() for value in its])


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same again goes on")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--images", type=int, default=100, help="a category")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
