"""Results of a long run, a line of JSON each: a stopped run goes on with the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.locks import held
from hb_tta.progress import progress
from hb_tta.store import content_key


def kept_lines(
    folder: Path,
    name: str,
    decided_by: dict[str, Any],
    count: int,
    make: Callable[[int], Iterator[Any]],
    *,
    unit: str = "question",
    quiet: bool = False,
) -> list[Any]:
    """``count`` results, those that are missing made now and kept one by one.

    Another process that is asked for the same results waits, and then reads them.

    Args:
        folder: of the files; the same results in another experiment are found again.
        name: what is told while they are made.
        decided_by: plain JSON of all that decides them; its digest is the file's name.
        make: from the number of the first missing result to those from there on.
    """
    path = folder / f"{content_key(decided_by)[:24]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_suffix(".lock"), timeout=-1):
        found = _read(path, decided_by)[:count]
        if len(found) < count:
            _make_rest(path, name, found, count, make, unit=unit, quiet=quiet)
    assert len(found) == count, f"{name}: {len(found)} results of {count}"
    return found


def _make_rest(
    path: Path,
    name: str,
    found: list[Any],
    count: int,
    make: Callable[[int], Iterator[Any]],
    *,
    unit: str,
    quiet: bool,
) -> None:
    with (
        open(path, "a", encoding="utf-8") as file,
        progress(name, unit, count, done=len(found), shown=not quiet) as bar,
    ):
        for result in make(len(found)):
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
            file.flush()
            found.append(result)
            bar.update()


def _read(path: Path, decided_by: dict[str, Any]) -> list[Any]:
    """The whole lines of a file; what a killed run left unfinished is taken off."""
    head = json.dumps({"decided by": decided_by}, ensure_ascii=False)
    lines: Sequence[str] = ()
    if path.exists():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # behind the last end: unfinished
    found = []
    for line in lines[1:]:
        try:
            found.append(json.loads(line))
        except ValueError:  # and what stands behind it
            break
    whole = [head, *lines[1 : 1 + len(found)]]
    write_aside(path, "".join(f"{line}\n" for line in whole).encode())
    return found
