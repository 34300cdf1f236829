"""lmms-eval's own command, killed again and again: it ends with what an unkilled run gives."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from test_lmms_eval_console import LMMS_EVAL, answers, command, run, scores  # noqa: E402

from hb_tta.store import Store  # noqa: E402

pytestmark = pytest.mark.soak

KILLS, QUESTIONS = 10, 60
ARGUMENTS = "family=pocket,n=2,steps=3,preset=paper"


def arguments(mllm: Path, folder: Path) -> list[str]:
    """A run into a folder of its own, store and all."""
    flags = ("--augment", "hummingbird", "--augment_args", f"{ARGUMENTS},store={folder / 'store'}")
    return command(mllm, folder / "out", *flags, limit=QUESTIONS)


def killed(line: list[str], store: Path, wait: float, chance: random.Random) -> bool:
    """Kill it some time after it began, or after it made something. False: it was quicker."""
    process = subprocess.Popen(
        [sys.executable, *LMMS_EVAL, *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before, began = made(store), time.monotonic()
    while process.poll() is None and time.monotonic() < began + wait:
        if made(store) > before:
            time.sleep(chance.uniform(0, 2))
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def made(store: Path) -> int:
    return sum(1 for _ in store.glob("*/??/*"))


def said(out: Path) -> dict[str, dict]:
    """The sidecar's lines by question."""
    (path,) = out.glob("hb_tta/*/pocket_mme_dev.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"{line['doc_id']}/{line['idx']}": line for line in lines}


def test_ten_kills_change_no_answer(tmp_path: Path) -> None:
    mllm = tiny_models.save_llava(tmp_path / "llava")
    whole, again = tmp_path / "whole", tmp_path / "again"
    started = time.monotonic()
    assert run(LMMS_EVAL, arguments(mllm, whole)).returncode == 0
    seconds, chance = time.monotonic() - started, random.Random(0)
    kept: dict[Path, int] = {}
    kills = 0
    while kills < KILLS:
        # Anywhere, also where all is made and it answers and writes.
        began, wait = time.monotonic(), chance.uniform(0, seconds)
        if killed(arguments(mllm, again), again / "store", wait, chance):
            kills += 1
        else:
            seconds = time.monotonic() - began  # nothing is left to generate
            shutil.rmtree(again / "out")
        if (again / "store").exists():
            assert Store(again / "store").verify() == []
        now = {path: path.stat().st_ino for path in again.glob("store/*/??/*")}
        assert {path: now.get(path) for path in kept} == kept  # the same files, untouched
        kept = now
    done = run(LMMS_EVAL, arguments(mllm, again))
    assert done.returncode == 0, done.stderr
    assert answers(again / "out") == answers(whole / "out")
    assert scores(again / "out") == scores(whole / "out")
    assert {k: line["answer"] for k, line in said(again / "out").items()} == {
        k: line["answer"] for k, line in said(whole / "out").items()
    }
