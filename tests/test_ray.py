"""Views by a Ray cluster of this host: as one process makes them, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from augmenting import GOLDEN, picture

from hb_tta.families import get_family
from hb_tta.images import load_image
from hb_tta.store import Store

pytest.importorskip("ray.data", reason="the extra ray is not installed: see `make test-scale`")
psutil = pytest.importorskip("psutil", reason="psutil is not installed: see `make test-scale`")

COMMAND = [sys.executable, "-c", "import sys; from hb_tta.cli import main; sys.exit(main())"]
JITTER = ["--method=jitter", "--family=pocket"]
POCKET = ["--family=pocket", "--steps=10"]
TWO = ["--engine=ray", "--generators=2", "--describers=0"]


def rows_of(folder: Path, count: int) -> Path:
    """A file of rows; every fifth image stands in two of them, with other questions."""
    lines = []
    for number in range(count):
        name = f"{number - number % 5 if number % 5 == 4 else number}.png"
        picture(int(name[:-4])).save(folder / name)
        lines.append(json.dumps({"image": name, "question": f"Is there a circle? {number}"}))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def started(rows: Path, store: str | Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "augment", str(rows), "-n2", f"--store={store}", f"--out={out}", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # Ray's own is to let everything else go first, which on a busy machine takes its time.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def run(*given: Any, status: int = 0) -> str:
    process = started(*given)
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == status, said
    return said


def manifest(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def views(store: Path) -> dict[str, tuple[int, int]]:
    """Of each view the file that it is: one that is made again is another."""
    found = [(entry.key, entry.path.stat()) for entry in Store(store).entries("views")]
    return {key: (status.st_ino, status.st_mtime_ns) for key, status in found}


def until(there: Callable[[], Any], seconds: float = 900.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := there():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def actors(driver: int) -> list[Any]:
    """The processes of a driver's own cluster in which views are made."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if "MapBatches(Generator)" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def left_behind() -> Iterator[list[Any]]:
    """Processes that end with the test."""
    processes: list[Any] = []
    yield processes
    for process in processes:
        if process.is_running():
            process.kill()


def test_two_actors_make_what_one_process_makes(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 24)
    with rows.open("a") as file:
        file.write('\n{"image": "nobody.png", "question": "Is it?"}')
    run(rows, tmp_path / "one", tmp_path / "out1", *JITTER, status=1)
    said = run(rows, tmp_path / "two", tmp_path / "out2", *JITTER, *TWO, status=1)
    assert "Running Dataset" in said and "images that failed: 1" in said
    assert manifest(tmp_path / "out1") == manifest(tmp_path / "out2")
    assert set(views(tmp_path / "one")) == set(views(tmp_path / "two"))
    for view in sorted((tmp_path / "out1" / "views").iterdir()):
        assert view.read_bytes() == (tmp_path / "out2" / "views" / view.name).read_bytes()
    assert list((tmp_path / "two" / ".ray").iterdir()) == []  # no run is unfinished
    again = run(rows, tmp_path / "two", tmp_path / "out2", *JITTER, *TWO, status=1)
    assert "Running Dataset" not in again  # nothing lacks, so no cluster is started


def test_describers_and_generators_and_an_image_that_a_model_refuses(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 6)
    picture(1).resize((700, 3)).save(tmp_path / "1.png")
    models = ["--family=pocket", f"--base={GOLDEN / 'pipeline'}", "--lora=none", "--steps=1"]
    models.append(f"--describer={tiny_models.save_qwen_vl(tmp_path / 'qwen')}")
    stages = ["--engine=ray", "--generators=1", "--describers=1"]
    run(rows, tmp_path / "one", tmp_path / "out1", *models, status=1)
    said = run(rows, tmp_path / "two", tmp_path / "out2", *models, *stages, status=1)
    assert "MapBatches(Describer)" in said and "MapBatches(Generator)" in said
    one, two = manifest(tmp_path / "out1"), manifest(tmp_path / "out2")
    assert one == two and "the describer refuses the image" in two[1]["failure"]
    for file in sorted((tmp_path / "out1" / "views").iterdir()):
        pair = [load_image(tmp_path / out / "views" / file.name) for out in ("out1", "out2")]
        first, second = (np.asarray(image).astype(int) for image in pair)
        assert np.abs(first - second).max() <= 2  # rounding: batches are others


def test_a_dead_actor_is_started_again_and_nothing_is_made_twice(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 40)
    process = started(rows, tmp_path / "store", tmp_path / "out", *POCKET, *TWO)
    before = until(lambda: len(found := views(tmp_path / "store")) >= 4 and found)
    killed = until(lambda: actors(process.pid))[0]
    killed.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    after = views(tmp_path / "store")
    shown = {
        view["file"].split("-")[2][:8] for it in manifest(tmp_path / "out") for view in it["views"]
    }
    assert {key[:8] for key in after} == shown
    assert before.items() <= after.items() and len(manifest(tmp_path / "out")) == 40


def test_a_killed_driver_goes_on_where_it_was(tmp_path: Path, left_behind: list[Any]) -> None:
    rows = rows_of(tmp_path, 40)
    process = started(rows, tmp_path / "store", tmp_path / "out", *POCKET, *TWO)
    left_behind.append(psutil.Process(process.pid))
    checkpoint = tmp_path / "store" / ".ray"
    until(lambda: list(checkpoint.rglob("checkpoint/*.parquet")))
    left_behind += psutil.Process(process.pid).children(recursive=True)
    working = actors(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(working, timeout=600)
    assert working and not left  # whoever makes views goes with the driver
    before = views(tmp_path / "store")
    assert 0 < len(before) < 80
    said = run(rows, tmp_path / "store", tmp_path / "out", *POCKET, *TWO)
    after = views(tmp_path / "store")
    assert "views: 80, of images: 40" in said and len(manifest(tmp_path / "out")) == 40
    assert before.items() <= after.items() and list(checkpoint.iterdir()) == []
    run(rows, tmp_path / "one", tmp_path / "out1", *POCKET)
    assert set(views(tmp_path / "one")) == set(after)
    assert manifest(tmp_path / "out1") == manifest(tmp_path / "out")


def test_what_an_actor_has_to_say_is_a_sentence(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 4)
    said = run(
        rows, tmp_path / "s", tmp_path / "o", *JITTER, "--engine=ray", "--generators=99", status=1
    )
    assert "the actors need 99 and the cluster has" in said and "Traceback" not in said
    base = shutil.copytree(get_family("pocket").weights("generator").location, tmp_path / "base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    said = run(rows, tmp_path / "s", tmp_path / "o", *POCKET, *TWO, f"--base={base}", status=1)
    assert re.search(r"^hb-tta: .*base", said, re.M) and "in <module>" not in said
    nobody = ["--engine=ray", "--address=127.0.0.1:1"]
    said = run(rows, tmp_path / "s", tmp_path / "o", *JITTER, *nobody, status=1)
    assert "there is no Ray cluster at 127.0.0.1:1" in said and "Traceback" not in said
