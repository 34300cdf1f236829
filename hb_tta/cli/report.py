"""``hb-tta report``: what lmms-eval wrote, as a table, JSON and one HTML page."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hb_tta.cli.options import add_store, positive
from hb_tta.disk import write_aside
from hb_tta.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta report RESULTS [RESULTS …] [options]"
    parser.description = (
        "ACC and ACC+ of MME, or of a task that scores alike, by category, with intervals over\n"
        "images and a paired test against the run without augmentation; and a page that shows\n"
        "every question with its views."
    )
    parser.epilog = (
        "examples:\n"
        "  hb-tta report out/plain out/hummingbird\n"
        "  hb-tta report out --task mme --json report.json --out report.html"
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="a folder that was lmms-eval's --output_path (with --log_samples), or a samples file",
    )
    parser.add_argument("--task", metavar="NAME", help="which task, where there are several")
    parser.add_argument(
        "--out",
        default="hb-tta-report.html",
        metavar="FILE",
        help="the page (default: hb-tta-report.html)",
    )
    parser.add_argument("--json", metavar="FILE", help="write every figure there too")
    parser.add_argument(
        "--gallery",
        type=positive,
        metavar="N",
        help="most questions on the page; those that changed come first (default: 400)",
    )
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table, write the page, and print where it is."""
    from hb_tta.integrations.lmms_eval.results import read_runs
    from hb_tta.report import page, score, table
    from hb_tta.store import Store

    task, runs = read_runs(arguments.results, task=arguments.task, store=arguments.store)
    scored = score(runs)
    if arguments.json is not None:
        figures = json.dumps(table.to_json(task, scored), indent=2, ensure_ascii=False)
        _write(arguments.json, figures + "\n", "--json")
    gallery = arguments.gallery or page.GALLERY
    made = page.render(task, scored, store=Store(arguments.store), gallery=gallery)
    _write(arguments.out, made.html, "--out")
    print(table.text(task, scored))
    for name, count in made.missing.items():
        print(
            f"hb-tta: warning: {count} images of {name} are missing; the page has the command that "
            "makes them again",
            file=sys.stderr,
        )
    print(f"\n{Path(arguments.out).resolve()}")
    return 0


def _write(path: str, text: str, option: str) -> None:
    try:
        write_aside(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): name another file with {option}"
        ) from error
