"""``make fuzz``: every part in a process of its own, the counts of all.

python -m fuzz [PART …] [--count N] [--seed N] [--jobs N] [--keep DIR]
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.trying import FAULTS, FINE, REFUSED, Outcome, parts, try_inputs

KINDS = (FINE, REFUSED, *FAULTS)
TOLD = 10  # faults of a part that are shown
LINE = [sys.executable, "-m", "fuzz"]  # the process of a part
MOST_RESTARTS = 20  # processes that may hang or die before a part is given up


@dataclass
class Count:
    """What came of a part's inputs."""

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, kind: str, told: str = "") -> None:
        self.kinds[kind] += 1
        if kind in FAULTS:
            self.faults.append(f"{self.name}: {kind}: {told}")


def main() -> int:
    arguments = _arguments()
    if arguments.worker:
        return _work(arguments)
    known = parts()
    unknown = set(arguments.parts) - known.keys()
    if unknown:
        print(f"there is no part {', '.join(unknown)}: choose from {', '.join(known)}")
        return 2
    chosen = arguments.parts or list(known)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        counts = list(pool.map(lambda name: _watched(name, known[name].count, arguments), chosen))
    _tell(counts)
    return 1 if any(count.faults for count in counts) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--count", type=int, help="inputs of each part (default: the part's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", help="a folder for the inputs that found a fault")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ── The process that watches ─────────────────────────────────────────────────────────────────────


def _watched(name: str, usual: int, arguments: argparse.Namespace) -> Count:
    """Have a part tried by processes: one that hangs or dies ends, and the next goes on."""
    count, started = Count(name), time.monotonic()
    wanted = arguments.count or usual
    for restart in range(MOST_RESTARTS):
        left = wanted - count.kinds.total()
        if left <= 0:
            break
        _one_process(count, left, arguments.seed + 1000 * restart, arguments.keep)
    count.seconds = time.monotonic() - started
    return count


def _one_process(count: Count, left: int, start: int, keep: str | None) -> None:
    line = [*LINE, "--worker", count.name]
    line += ["--count", str(left), "--seed", str(start), *(["--keep", keep] if keep else [])]
    with tempfile.TemporaryDirectory(prefix="fuzz-home-") as home:
        own = {"XDG_CACHE_HOME": home, "HB_TTA_STORE": f"{home}/store", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            line,
            env={**os.environ, **own, "OMP_NUM_THREADS": "1", "TMPDIR": home},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        written, error = process.communicate()
        told = [json.loads(line) for line in written.split("\n") if line]
    running = None
    for one in told:
        if "kind" in one:
            count.add(one["kind"], one.get("told", ""))
            running = None
        else:
            running = one["input"]
    hung, died = "Timeout (" in error, process.returncode < 0
    if running is not None and (hung or died):
        count.add("hang" if hung else "traceback", f"{running}\n{error[-2000:]}")
    elif process.returncode:
        raise SystemExit(f"the part {count.name} itself is at fault:\n{error}")


def _tell(counts: list[Count]) -> None:
    for count in counts:
        for told in count.faults[:TOLD]:
            print(told, end="\n\n")
    print(f"{'part':<12}", *(f"{column:>14}" for column in ("inputs", *KINDS, "seconds")))
    for count in counts:
        _row(count.name, count.kinds, round(count.seconds))
    total = sum((count.kinds for count in counts), Counter[str]())
    _row("all", total, round(max(count.seconds for count in counts)))


def _row(name: str, kinds: Counter[str], seconds: int) -> None:
    numbers = (kinds.total(), *(kinds[kind] for kind in KINDS), seconds)
    print(f"{name:<12}", *(f"{number:>14,}" for number in numbers))


# ── The process that tries ───────────────────────────────────────────────────────────────────────


def _work(arguments: argparse.Namespace) -> int:
    """Try the inputs of one part; every outcome is a line of JSON on stdout."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the commands under trial print
    part = parts()[arguments.parts[0]]
    number = 0

    def on_outcome(value: Any, outcome: Outcome, folder: Path) -> None:
        nonlocal number
        faulthandler.cancel_dump_traceback_later()
        number += 1
        line = {"kind": outcome.kind}
        if outcome.kind in FAULTS:
            line["told"] = f"{outcome.said}\n  {value!r:.600}"
            if arguments.keep:
                kept = Path(arguments.keep, f"{part.name}-{arguments.seed}-{number}")
                shutil.copytree(folder, kept, dirs_exist_ok=True, symlinks=True)
        print(json.dumps(line), file=out)

    def before(value: Any) -> None:
        print(json.dumps({"input": f"{value!r:.300}"}), file=out)
        faulthandler.dump_traceback_later(part.seconds, exit=True)

    try_inputs(part, arguments.count, arguments.seed, on_outcome, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
