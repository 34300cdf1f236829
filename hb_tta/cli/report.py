"""``hb-tta report``: what lmms-eval and ``hb-tta tpt`` wrote, as a table, JSON and one page."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hb_tta.cli.options import add_store, positive
from hb_tta.disk import write_aside
from hb_tta.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta report RESULTS [RESULTS …] [options]"
    parser.description = (
        "Scores of any task of lmms-eval that has a number a question, with intervals over\n"
        "images, a paired test against the run without augmentation, and the difference that the\n"
        "sample could have shown; of MME, ACC and ACC+ by category. And a page that shows every\n"
        "question with its views. Results of `hb-tta tpt` make a table on the same page."
    )
    parser.epilog = (
        "examples:\n"
        "  hb-tta report out/plain out/hummingbird\n"
        "  hb-tta report out --task mme --json report.json --out report.html\n"
        "  hb-tta report tpt.json"
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="a folder that was lmms-eval's --output_path (with --log_samples), a samples file, or "
        "what `hb-tta tpt --out` wrote",
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
    """Print the tables, write the page, and print where it is."""
    from hb_tta.tpt.results import is_results

    tuned = [source for source in arguments.results if is_results(Path(source))]
    evaluated = [source for source in arguments.results if source not in tuned]
    tuning = _tuning(tuned) if tuned else []
    texts, figures, html = _evaluation(evaluated, arguments, tuning) if evaluated else ([], {}, "")
    if tuning:
        from hb_tta.report import cells
        from hb_tta.tpt import table

        texts.append(table.text(tuning, shown=True))
        figures["prompt_tuning"] = cells.to_json(table.page_table(tuning))
        html = html or table.html(tuning)
    if arguments.json is not None:
        told = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False)
        _write(arguments.json, told + "\n", "--json")
    _write(arguments.out, html, "--out")
    print("\n\n".join(texts))
    print(f"\n{Path(arguments.out).resolve()}")
    return 0


def _tuning(sources: list[str]) -> list[dict[str, Any]]:
    """The results of all files of prompt tuning; of one method on one task those of the last."""
    from hb_tta.tpt.results import check_samples, read_results

    found = {}
    for source in sources:
        for result in read_results(Path(source)):
            found[result["augment"], result["task"]] = result
    results = list(found.values())
    check_samples(results, ", ".join(sources))
    return results


def _evaluation(
    sources: list[str], arguments: argparse.Namespace, tuning: list[dict[str, Any]]
) -> tuple[list[str], dict[str, Any], str]:
    """What is printed of lmms-eval's results, their figures, and the page."""
    from hb_tta.integrations.lmms_eval.results import read_runs
    from hb_tta.report import page, score, table
    from hb_tta.store import open_store
    from hb_tta.tpt import table as tuning_table

    task, runs = read_runs(sources, task=arguments.task, store=arguments.store)
    scored = score(runs)
    made = page.render(
        task,
        scored,
        store=open_store(arguments.store),
        gallery=arguments.gallery or page.GALLERY,
        more=[tuning_table.page_table(tuning, title=tuning_table.TITLE)] if tuning else [],
    )
    for name, count in made.missing.items():
        print(
            f"hb-tta: warning: {count} images of {name} are missing; the page has the command that "
            "makes them again",
            file=sys.stderr,
        )
    return [table.text(task, scored)], table.to_json(task, scored), made.html


def _write(path: str, text: str, option: str) -> None:
    try:
        write_aside(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): name another file with {option}"
        ) from error
