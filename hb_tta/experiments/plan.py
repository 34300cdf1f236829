"""What experiments share: a plan of runs, and their tables in a folder.

An experiment is a module with

    plan(options)     the runs that it takes, as ``PlannedRun``s
    tables(results)   their results → ``Table``s
    main()            the command: carries the plan out and writes the tables

The same command again does what is missing: each run keeps its result on disk.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.report import cells, renderers
from hb_tta.report.cells import Table


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan.

    Attributes:
        name: its results' name.
        do: does what is missing of it, and gives its result.
        seconds: about how long it takes from an empty store; 0: nobody knows.
        needs: the method without which it cannot be done; "": none.
    """

    name: str
    do: Callable[[], Any]
    seconds: float = 0.0
    needs: str = ""


def carry_out(plan: Iterable[PlannedRun]) -> Iterator[dict[str, Any]]:
    """Do one run after the other; all results so far, by name, after each."""
    results: dict[str, Any] = {}
    for run in plan:
        results[run.name] = run.do()
        yield results


def kept(path: Path, decided_by: dict[str, Any], make: Callable[[], Any]) -> Any:
    """A result that is on disk, if what decides it is the same; else it is made and put there.

    Args:
        path: of the JSON file.
        decided_by: every setting that changes the result, plain JSON.
        make: gives the result, plain JSON.
    """
    if path.exists():
        found = json.loads(path.read_text())
        if found["key"] == decided_by:
            return found["figures"]
    figures = make()
    write_aside(path, json.dumps({"key": decided_by, "figures": figures}).encode())
    return figures


def run_command(*arguments: str, **settings: Any) -> int:
    """Run ``hb-tta`` as a person would, in a process of its own; its exit status.

    Args:
        arguments: what stands behind ``hb-tta``.
        settings: of ``subprocess.run``.
    """
    command = Path(sysconfig.get_path("scripts")) / "hb-tta"
    return subprocess.run([str(command), *arguments], **settings).returncode


def write_tables(path: Path, tables: Sequence[Table]) -> str:
    """Write tables as Markdown, and as JSON with every digit beside it; gives the Markdown.

    Args:
        path: of the Markdown file; the other one ends in ``.json``.
    """
    text = "\n\n".join(map(renderers.markdown, tables)) + "\n"
    write_aside(path, text.encode())
    figures = json.dumps([cells.to_json(table) for table in tables], indent=1)
    write_aside(path.with_suffix(".json"), figures.encode())
    return text
