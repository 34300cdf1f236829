"""``hb-tta calibrate``: gate, judge and combiner for one's own model, out of a run's views."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.cli.output import write_result
from hb_tta.spelling import ARGS

if TYPE_CHECKING:
    from hb_tta.report.calibration import Calibration

DESCRIPTION = """\
From an evaluation by lmms-eval whose every question has its views (--augment METHOD
--augment_args preset=paper, and judge=NAME for a judge's scores): below which probability of
the plain answer views are worth it (gate), which views are worth showing (min_score), and
how answers are combined. Nothing is asked or generated again.

Each gain is cross-fitted over images, with an interval; at the end stands the line to type.
What holds for the bundled models is not known for yours. Tasks are those that are answered
by yes or no and scored as MME is."""

EXAMPLES = """\
examples:
  lmms-eval --tasks mme --augment hummingbird --augment_args preset=paper \\
      --log_samples --output_path out
  hb-tta calibrate out"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta calibrate RUN [RUN …] [options]"
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a folder that was lmms-eval's --output_path (with --log_samples)",
    )
    parser.add_argument("--task", metavar="NAME", help="which task, where there are several")
    parser.add_argument("--json", metavar="FILE", help="write the table's figures there too")


def run(arguments: argparse.Namespace) -> int:
    """Print the table, and the line to type for each run."""
    from pathlib import Path

    from hb_tta.errors import UserError
    from hb_tta.integrations.lmms_eval.results import read_runs
    from hb_tta.report import cells, renderers
    from hb_tta.report.calibration import calibrate, table

    task, runs = read_runs(arguments.runs, task=arguments.task)
    augmented = [one for one in runs if not one.plain]
    if not augmented:
        raise UserError(
            f"{arguments.runs[0]} has no run with --augment: evaluate with --augment METHOD "
            f"{ARGS} preset=paper"
        )
    found = [calibrate(one) for one in augmented]
    shown = table(found)
    if arguments.json is not None:
        text = json.dumps({"task": task, **cells.to_json(shown)}, indent=1, ensure_ascii=False)
        write_result(Path(arguments.json), text.encode())
    print(f"{task}\n\n{renderers.text(shown)}")
    for one in found:
        print(f"\n{verdict(one)}\n  {line_to_type(one)}")
    return 0


def verdict(one: Calibration) -> str:
    """What the figures say of the best choice, in a sentence."""
    test, name = one.best.test, one.best.name
    gain = f"{100 * test.difference:+.1f} [{100 * test.low:+.1f}, {100 * test.high:+.1f}] points"
    if test.low > 0:
        return f"{one.run.name}: {name} gains {gain} on questions that it was not chosen on."
    return (
        f"{one.run.name}: no choice is told from the plain answers here (the best, {name}: {gain}; "
        f"{test.n} images). gate=0 is plain; else:"
    )


def line_to_type(one: Calibration) -> str:
    """The command of the run with what was chosen; its settings alone where it is not known."""
    from hb_tta.report.calibration import asked
    from hb_tta.settings import by_name

    chosen = asked(one.best.setting)
    if one.run.command is None:
        return f"{ARGS} {spelling.written(chosen)}"
    words = shlex.split(one.run.command)
    place = words.index(ARGS) + 1
    given: dict[str, Any] = {**by_name(words[place]), **chosen}
    words[place] = spelling.written(given)
    return shlex.join(words)
