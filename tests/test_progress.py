"""How far a job is: lines for a log, bars for a terminal."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from hb_tta import progress as module
from hb_tta.progress import Lines, progress, spoken


def test_without_a_terminal_there_are_plain_lines_also_while_no_step_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    with progress("tuning", "sample", 500) as job:
        time.sleep(0.3)  # nothing is done yet
        job.update(100)
        job.set_postfix_str("reward 0.5")
        time.sleep(0.3)
    told = capsys.readouterr().err
    assert "\r" not in told
    lines = told.splitlines()
    assert all(line.startswith("hb-tta: tuning: ") for line in lines)
    assert lines[0].startswith("hb-tta: tuning: 0 of 500 samples in 0 s")
    assert "100 of 500 samples" in lines[-1] and "left; reward 0.5" in lines[-1]
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # the job is over


def test_a_line_says_how_long_it_will_take() -> None:
    job = Lines("generating", "view", 100, done=50)
    job.update(10)
    assert job.line(60) == "generating: 60 of 100 views in 60 s; about 4 min left"
    job.close()
    assert Lines("planning", "image", None).line(5) == "planning: 0 images in 5 s"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(7, "7 s"), (720, "12 min"), (9000, "2.5 h"), (864_000, "10.0 days"), (3.2e9, "101 years")],
)
def test_times_as_people_say_them(seconds: float, told: str) -> None:
    assert spoken(seconds) == told


def test_a_terminal_has_a_bar_and_who_wants_none_sees_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    with progress("generating", "view", 4) as job:
        job.update(4)
    assert "generating: 100%" in capsys.readouterr().err
    with progress("generating", "view", 4, shown=False) as job:
        job.update(4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("close", ["sys.stderr.close()", "sys.stderr = None"])
def test_nobody_listening_is_no_error(close: str) -> None:
    code = f"""
import sys, time
from hb_tta import progress
progress.SECONDS = 0.02
with progress.progress("a", "b", 3) as job:
    {close}
    time.sleep(0.2)
    job.update()
with progress.progress("a", "b", 3):
    time.sleep(0.1)
print("done")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "done\n" and "Traceback" not in ran.stderr
