"""lmms-eval's own command, in processes of its own: what the entry point does to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.integrations.lmms_eval import outcome  # noqa: E402

AUGMENT = ["--augment", "randaugment", "--augment_args", "family=pocket,n=2"]


@pytest.fixture(scope="module")
def mllm(tmp_path_factory):
    return tiny_models.save_llava(tmp_path_factory.mktemp("models") / "llava")


def command(mllm: Path, out: Path, *flags: str, limit: int = 4) -> list[str]:
    return [
        *("--model", "llava_hf", "--model_args", f"pretrained={mllm},device_map=cpu"),
        *("--tasks", "pocket_mme_dev", "--limit", str(limit), "--device", "cpu"),
        *("--output_path", str(out), "--log_samples", *flags),
    ]


def run(launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *launcher, *arguments], capture_output=True, text=True, timeout=1800
    )


LMMS_EVAL = ["-m", "lmms_eval"]
OURS = ["-m", "hb_tta.cli", "lmms-eval"]
TWO = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", *LMMS_EVAL]


def scores(out: Path) -> dict:
    (path,) = out.glob("*/*_results.json")
    found = json.loads(path.read_text())["results"]["pocket_mme_dev"]
    return {name: value for name, value in found.items() if name.startswith(("acc", "mme"))}


def answers(out: Path) -> dict[int, str]:
    (path,) = out.glob("*/*_samples_*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["doc_id"]: line["filtered_resps"] for line in lines}


def test_one_flag(mllm, tmp_path):
    done = run(LMMS_EVAL, command(mllm, tmp_path, *AUGMENT))
    assert done.returncode == 0, done.stderr
    assert "hb_augment=randaugment" in done.stdout
    assert len(answers(tmp_path)) == 4
    assert list(tmp_path.glob("hb_tta/*/pocket_mme_dev.jsonl"))


def test_a_mistake_ends_it_with_status_1(mllm, tmp_path):
    done = run(LMMS_EVAL, command(mllm, tmp_path, "--augment", "sdedit"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("hb-tta: --augment sdedit: there is no such")


@pytest.fixture
def newer_filelock(tmp_path) -> dict[str, str]:
    """An environment whose filelock has no ``_api``, as from 4.3 on."""
    import filelock

    folder = tmp_path / "path" / "filelock"
    shutil.copytree(Path(filelock.__file__).parent, folder)
    (folder / "_api.py").rename(folder / "_moved.py")
    for path in folder.glob("*.py"):
        path.write_text(re.sub(r"\b_api\b", "_moved", path.read_text(encoding="utf-8")))
    return {**os.environ, "PYTHONPATH": str(folder.parent)}


@pytest.mark.parametrize("launcher", [LMMS_EVAL, OURS], ids=["lmms-eval", "hb-tta"])
def test_a_run_without_results_ends_with_status_1(launcher, mllm, tmp_path, newer_filelock):
    """lmms-eval prints the error and ends with 0."""
    done = subprocess.run(
        [sys.executable, *launcher, *command(mllm, tmp_path / "out", *AUGMENT)],
        capture_output=True, text=True, timeout=1800, env=newer_filelock,
    )  # fmt: skip
    assert "filelock._api" in done.stderr + done.stdout
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hb-tta: lmms-eval ended without results")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--tasks", "mme"], True),
        (["eval", "--model", "x"], True),
        (["--tasks", "list"], False),
        (["--tasks=list_groups"], False),
        (["tasks", "list"], False),
        (["--help"], False),
        (["eval"], False),
    ],
)
def test_only_evaluations_have_to_bring_results(arguments, asked):
    assert outcome._asks_for_results(arguments) is asked


@pytest.mark.soak
def test_the_second_door(mllm, tmp_path):
    for name, launcher in (("lmms", LMMS_EVAL), ("ours", OURS)):
        done = run(launcher, command(mllm, tmp_path / name, *AUGMENT))
        assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "lmms") == answers(tmp_path / "ours")


@pytest.mark.soak
def test_two_processes_give_the_scores_of_one(mllm, tmp_path):
    for name, launcher in (("one", LMMS_EVAL), ("two", TWO)):
        done = run(launcher, command(mllm, tmp_path / name, *AUGMENT, limit=20))
        assert done.returncode == 0, done.stderr
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    assert answers(tmp_path / "one") == answers(tmp_path / "two")


@pytest.mark.soak
def test_a_failure_ends_all_processes(mllm, tmp_path):
    """A family without weights for the describer: found out before anything is answered."""
    flags = ["--augment", "i2t2i", "--augment_args", f"family=pocket,describer={tmp_path}"]
    assert run(TWO, command(mllm, tmp_path / "out", *flags)).returncode != 0
    assert not list(tmp_path.glob("out/*/*_results.json"))


@pytest.mark.soak
def test_a_killed_run_makes_only_what_is_missing(mllm, tmp_path):
    """Views of 200 questions; the run is killed when the store has some of them."""
    store = tmp_path / "store"
    flags = ["--augment", "randaugment", "--augment_args", f"family=pocket,n=8,store={store}"]
    arguments = command(mllm, tmp_path / "out", *flags, limit=200)
    process = subprocess.Popen([sys.executable, *LMMS_EVAL, *arguments])
    while not (made := list(store.rglob("*.png"))):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    written = {path: path.stat().st_ino for path in made}
    done = run(LMMS_EVAL, arguments)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_ino for path in written} == written
    assert len(list(store.rglob("*.png"))) == 100 * 8  # two questions an image, one picture each
