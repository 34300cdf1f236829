"""Views over a cluster: Ray on this host, two actors, and what is killed of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="the extra ray is not installed: see `make test-scale`")

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.integrations.ray import Stages
from hb_tta.store import Store

ROWS = 48
ASKED = ("rows.jsonl", "--method", "jitter", "-n", "2", "--sheet", "0", "--task", "vqa")
RAY = ("--engine", "ray", "--ray", "generators=2,generator_cpus=0.5")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows whose views take a while each, and one without an image."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for number in range(ROWS):
        pixels = noise.integers(0, 256, (320, 320, 3), np.uint8)
        Image.fromarray(pixels).save(f"{number}.png", compress_level=1)
    rows = [{"image": f"{n}.png", "question": f"Is it {n}?"} for n in range(ROWS)]
    rows.append({"image": "none.png", "question": "Is it?"})
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def lines(folder: str) -> list[dict[str, Any]]:
    text = (Path(folder) / "manifest.jsonl").read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def made() -> dict[str, tuple[int, float]]:
    return {entry.key: (entry.size, entry.path.stat().st_mtime) for entry in Store().entries()}


def actors() -> list[int]:
    """The processes of Ray's actors that make views."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::MapWorker(MapBatches(Generating"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "hb_tta.cli", "augment", *arguments])


def wait_until(there: Any, process: subprocess.Popen[bytes], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not there() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert there()


def test_two_actors_do_what_one_process_does_though_one_is_killed(work):
    process = started(*ASKED, *RAY, "--out", "ray")
    wait_until(lambda: len(made()) >= 4 and actors(), process)
    os.kill(actors()[0], signal.SIGKILL)
    before = made()
    assert process.wait(600) == 1  # for the row without an image
    after = made()
    assert len(after) == 2 * ROWS and {key: after[key] for key in before} == before
    assert not (work / "ray/.ray").exists()
    assert main(["augment", *ASKED, "--out", "here", "--store", str(work / "other")]) == 1
    assert lines("ray") == lines("here")  # keys, seeds, files; jitter's views to the byte
    for path in (work / "here/views").iterdir():
        assert path.read_bytes() == (work / "ray/views" / path.name).read_bytes()


def test_a_killed_driver_goes_on_where_it_was(work):
    process = started(*ASKED, *RAY, "--out", "out")
    done = work / "out/.ray"
    wait_until(lambda: any(done.rglob("checkpoint/*")) and len(made()) >= 4, process)
    process.kill()
    process.wait()
    before = made()
    assert 4 <= len(before) < 2 * ROWS, "the kill came too late, so this has shown nothing"
    again = started(*ASKED, *RAY, "--out", "out")
    assert again.wait(900) == 1
    after = made()
    assert len(after) == 2 * ROWS and {key: after[key] for key in before} == before
    assert len(lines("out")) == ROWS + 1


def test_what_is_asked_of_ray_is_checked_first(work, capsys):
    assert main(["augment", *ASKED, "--address", "auto"]) == 1
    assert "--address is for --engine ray" in capsys.readouterr().err
    assert main(["augment", *ASKED, "--engine", "ray", "--ray", "generator=2"]) == 1
    assert "did you mean 'generators'?" in capsys.readouterr().err
    for text in ("generators=0", "generators=3-2", "describer_gpus=-1", "generator_cpus=x"):
        with pytest.raises(UserError, match="in --ray"):
            Stages.parse(text)
    assert Stages.parse("generators=1-4,describer_gpus=0.5").of("generator", "cuda:0") == {
        "concurrency": (1, 4),
        "num_gpus": 1.0,
        "num_cpus": 1.0,
        "max_restarts": -1,
        "max_task_retries": -1,
    }
