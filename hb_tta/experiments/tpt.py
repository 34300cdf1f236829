"""Test-time prompt tuning at pocket scale: the paper's table 3 (objects) and table 2 (relations).

    python -m hb_tta.experiments.tpt objects --out DIR [--split dev|sealed]
    python -m hb_tta.experiments.tpt relations --out DIR [--split dev|sealed]

A run a method: ``hb-tta tpt`` on all parts of the task, with that method's views. Features, views
and answers are kept in the store; the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hb_tta.experiments.plan import PlannedRun, carry_out, run_command, write_tables
from hb_tta.report.cells import Table
from hb_tta.tpt import table

METHODS = ("none", "randaugment", "i2t2i", "hummingbird")
# What stands behind ``hb-tta tpt``; chosen on neither split of these tables.
TASKS = {
    "objects": "--task pocket_objects_all --limit 40 -n 4 --preset paper --crops 0 --selection 0.5",
    "relations": "--task pocket_hoi --limit 30 -n 1 --preset paper --views-of supports",
}


def main(argv: list[str] | None = None) -> None:
    """Evaluates what is missing, and prints the table."""
    options = _options(argv)
    text = ""
    for results in carry_out(plan(options)):
        text = write_tables(options.out / f"{options.task}.{options.split}.md", tables(results))
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run a method."""
    for method in options.methods:
        yield PlannedRun(method, lambda method=method: evaluate(method, options))  # type: ignore[misc]


def evaluate(method: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What ``hb-tta tpt`` says of a method's views, a part of the task after the other."""
    out = options.out / f"{options.task}.{method}.{options.split}.json"
    arguments = [*TASKS[options.task].split(), "--split", options.split, "--augment", method]
    arguments += ["--family", "pocket", "--out", str(out)]
    if options.limit is not None:
        arguments += ["--limit", str(options.limit)]
    if options.store is not None:
        arguments += ["--store", options.store]
    # Its own table is this method's part of ours.
    if status := run_command("tpt", *arguments, stdout=subprocess.DEVNULL):
        sys.exit(status)
    return json.loads(out.read_text())["results"]


def tables(results: dict[str, list[dict[str, Any]]]) -> list[Table]:
    """A row a method and what was done with its views, a column a part of the task."""
    return [table.table([result for its in results.values() for result in its])]


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same again goes on")
    parser.add_argument("--split", choices=("dev", "sealed"), default="dev")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--limit", type=int, help="samples of each part (default: as published)")
    parser.add_argument("--store", help="where features, views and answers are kept")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
