"""Carrying an experiment out: what is missing of its runs, how long it takes, what it shows."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.experiments.checking import missing
from hb_tta.experiments.lacking import Missing
from hb_tta.experiments.pages import page
from hb_tta.experiments.reproduction import Experiment, Options, Shown
from hb_tta.experiments.tables import tables_of
from hb_tta.report import cells, renderers

Tell = Callable[[str], None]


def to_stderr(line: str) -> None:
    """A line for the person, not for who reads the table."""
    print(line, file=sys.stderr, flush=True)


def prepared(experiment: Experiment, options: Options) -> set[str]:
    """The methods that have to be left out, once everything else is known to be there.

    Raises:
        UserError: something is missing that the experiment needs, or that a method needs and
            nobody allowed it to be skipped.
    """
    lacking = missing(experiment, options)
    needed = [one for one in lacking if not one.method or not options.skip_missing]
    if needed:
        raise UserError(_sentence(experiment, needed))
    skipped = {one.method for one in lacking}
    for one in lacking:
        warnings.warn(f"{one.method} is left out, {one}", HbTtaWarning, stacklevel=2)
    return skipped


def _sentence(experiment: Experiment, needed: list[Missing]) -> str:
    first = needed[0]
    more = f" (and {len(needed) - 1} more: see --check)" if len(needed) > 1 else ""
    way = "; --skip-missing leaves that method out" if first.method else ""
    return f"{experiment.name} lacks {first}{way}{more}"


def carry_out(
    experiment: Experiment, options: Options, skipped: set[str], tell: Tell = to_stderr
) -> dict[str, Any]:
    """The results of all runs by name; only what is missing is done.

    Args:
        skipped: methods that are left out.
        tell: how far it is, and how long it may take still.
    """
    # Known beforehand, for the forecast; what a training leads to is planned once it is done.
    known = [run.seconds for run in experiment.plan(options) if run.needs not in skipped]
    runs = (run for run in experiment.plan(options) if run.needs not in skipped)
    results: dict[str, Any] = {}
    done = spent = 0.0
    for place, run in enumerate(runs):
        left = sum(known[place:])
        rate = spent / done if done > 60 else 1.0  # measured, once there is something to measure
        tell(
            f"{experiment.name}, {place + 1} of {max(len(known), place + 1)}: {run.name}"
            + (f" (at most {spoken(left * rate)} to go)" if left else "")
        )
        began = time.monotonic()
        results[run.name] = run.do()
        took = time.monotonic() - began
        if took > 0.2 * run.seconds:  # else it was there
            spent, done = spent + took, done + run.seconds
    return results


def spoken(seconds: float) -> str:
    """A length of time in words."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def reproduce(experiment: Experiment, options: Options, tell: Tell = to_stderr) -> Shown:
    """Check, run what is missing, write the results, and give what is to be shown.

    Raises:
        UserError: see ``prepared``; or a run fails for a reason that a person can mend.
    """
    skipped = prepared(experiment, options)
    results = carry_out(experiment, options, skipped, tell)
    shown = experiment.show(results, options)
    write(experiment, shown, options)
    return shown


def write(experiment: Experiment, shown: Shown, options: Options) -> None:
    """The tables as Markdown and JSON, the page, and what else there is."""
    folder = options.folder
    text = markdown(experiment, shown)
    found = {
        "experiment": experiment.name,
        "source": experiment.source,
        "family": options.family.name,
        "split": options.split,
        "tables": [cells.to_json(table) for table in tables_of(shown)],
        "missing": list(shown.missing),
    }
    write_aside(folder / f"{experiment.name}.md", text.encode())
    json_bytes = json.dumps(found, indent=1, ensure_ascii=False).encode()
    write_aside(folder / f"{experiment.name}.json", json_bytes)
    write_aside(folder / f"{experiment.name}.html", page(experiment, shown, options).encode())
    for name, content in shown.files.items():
        write_aside(Path(folder, name), content)


def markdown(experiment: Experiment, shown: Shown) -> str:
    """The tables, and what is missing."""
    parts = [renderers.markdown(table) for table in tables_of(shown)]
    parts += [f"{experiment.name}: {one}" for one in shown.missing]
    return "\n\n".join(parts) + "\n"
