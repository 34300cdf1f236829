"""The frame counts what it should, and a few inputs of every part do no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzz import Part, Trial
from fuzz.trying import FINE, REFUSED, parts, try_inputs
from hypothesis import strategies as st

from hb_tta.errors import UserError

TESTS = Path(__file__).parents[1]


def reader(value: int) -> Any:
    """Wrong in every way there is."""
    match value:
        case 1:
            raise UserError("1 is no good: use 2")
        case 2:
            raise ValueError("a bug")
        case 3:
            raise UserError("")
        case 4:
            raise SystemExit(3)
    return value // 6


PLANTED = Part(
    "planted",
    count=100,
    inputs=st.integers(0, 6),
    lay=lambda value, folder: Trial(
        lambda: reader(value), lambda found: "it is no 0" if found else None
    ),
)


def test_every_kind_of_fault_is_seen():
    seen: dict[int, str] = {}
    try_inputs(PLANTED, 100, 0, lambda value, outcome, _: seen.update({value: outcome.kind}))
    assert seen == {
        0: FINE,
        1: REFUSED,
        2: "traceback",
        3: "bad sentence",
        4: "traceback",
        5: FINE,
        6: "silent change",
    }


@pytest.mark.parametrize("name", sorted(parts()))
def test_a_few_inputs_of_every_part(name):
    part, kinds, told = parts()[name], Counter[str](), []

    def on_outcome(value: Any, outcome: Any, folder: Path) -> None:
        kinds[outcome.kind] += 1
        if outcome.kind not in (FINE, REFUSED):
            told.append(f"{outcome.kind}: {outcome.said}\n{value!r:.1500}")

    try_inputs(part, 30, 0, on_outcome)
    assert told == []
    assert kinds.total() == 30


SLEEPY = """
import os, pathlib, sys, time
import fuzz.__main__ as command
from fuzz import Part, Trial
from hypothesis import strategies as st

def act(value):
    tried = pathlib.Path(__file__).with_suffix(".tried")
    before = tried.read_text() if tried.exists() else ""
    tried.write_text(before + ".")
    if len(before) == 1:
        time.sleep(60)
    if len(before) == 3:
        os.kill(os.getpid(), 9)

part = Part("sleepy", 8, st.integers(0, 99), lambda v, folder: Trial(lambda: act(v)), seconds=1.5)
command.parts = lambda: {"sleepy": part}
command.LINE = [sys.executable, __file__]
sys.exit(command.main())
"""


def test_what_hangs_or_dies_is_counted_and_the_others_go_on(tmp_path):
    script = tmp_path / "sleepy.py"
    script.write_text(SLEEPY)
    told = subprocess.run(
        [sys.executable, str(script), "sleepy"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1, told.stderr
    row = next(line for line in told.stdout.splitlines() if line.startswith("sleepy  "))
    inputs, fine, refused, tracebacks, hangs, *_ = (int(word) for word in row.split()[1:])
    assert (inputs, refused) == (8, 0)
    assert (fine, tracebacks, hangs) == (6, 1, 1)
