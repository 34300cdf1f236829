"""The augmenter under a hundred kills, and eight of it on one store."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from augmenting import Forked, Forker, contents, finish, logged, settings, start

from hb_tta.store import Store

pytest_plugins = ["augmenting"]
pytestmark = pytest.mark.soak

KILLS = 100
FRESH = 0.1  # of the processes start from nothing; the others find everything imported


def killed(process: subprocess.Popen[str] | Forked, log: Path, chance: random.Random) -> bool:
    """Kill it: sometimes while it starts, mostly while it generates. False: it was quicker."""
    before = len(logged(log))
    patience = time.monotonic() + (chance.uniform(0, 5) if chance.random() < 0.2 else 600)
    while time.monotonic() < patience and process.poll() is None:
        if len(logged(log)) > before:
            time.sleep(chance.uniform(0, 1))
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_hundred_kills_lose_no_finished_view(tiny_mllm: Path, tmp_path: Path) -> None:
    store, log, chance = Store(tmp_path / "store"), tmp_path / "log", random.Random(0)
    wanted = settings(
        tiny_mllm, tmp_path, images=40, n=250, batch_size=3
    )  # more than can be made meanwhile
    finished: dict[str, tuple[int, int, str]] = {}
    progressed = 0
    forker = Forker()
    for _ in range(KILLS):
        begin = start if chance.random() < FRESH else forker.start
        assert killed(begin(tmp_path, log, wanted), log, chance)
        assert store.verify() == []
        now = contents(store)
        assert {key: now[key] for key in finished} == finished  # the same files, untouched
        progressed += len(now) > len(finished)
        finished = now
    forker.close()
    assert progressed > KILLS // 3  # most kills fell into generation
    assert len(logged(log)) == len(set(logged(log)))
    last = settings(tiny_mllm, tmp_path, images=2, n=20)
    result = finish(start(tmp_path, log, last))
    after = contents(store)
    assert set(result["keys"]) <= after.keys()
    assert {key: after[key] for key in finished} == finished


@pytest.mark.parametrize("batch_size", [1, 16])
def test_eight_processes_make_nothing_twice(
    tiny_mllm: Path, tmp_path: Path, batch_size: int
) -> None:
    log = tmp_path / "log"
    wanted = settings(tiny_mllm, tmp_path, images=12, n=10, batch_size=batch_size)
    orders = [wanted["contexts"], wanted["contexts"][::-1], sorted(wanted["contexts"])]
    running = [start(tmp_path, log, {**wanted, "contexts": orders[i % 3]}) for i in range(8)]
    keys = [finish(process)["keys"] for process in running]
    assert all(sorted(each) == sorted(keys[0]) for each in keys)
    assert sorted(logged(log)) == sorted(set(keys[0]))
    descriptions = [line for line in log.read_text().splitlines() if line.startswith("desc")]
    assert len(descriptions) == len(set(descriptions)) == 12
