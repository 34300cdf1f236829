"""Filling a store: each entry once, shared between processes, none lost, nobody waits for ever."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hb_tta.store import MemoryStore, NewEntry, Store, content_key
from hb_tta.store.fill import fill, filling, missing_keys

KEYS = [content_key({"number": number}) for number in range(40)]

# Fills a store with KEYS, forwards or backwards, slowly, and logs what it makes.
FILLER = """
import sys, time
from hb_tta.store.fill import fill
from hb_tta.store import NewEntry, Store, content_key
root, log, step, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
def make(keys):
    for key in keys:
        time.sleep(pause)
        with open(log, "a") as file:
            file.write(key + "\\n")
        yield NewEntry(key, key.encode(), {})
keys = [content_key({"number": number}) for number in range(40)][::step]
fill(Store(root), "views", keys, make, batch_size=3)
"""


def start(store: Path, log: Path, step: int, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", FILLER, str(store), str(log), str(step), str(pause)]
    )


def echo(keys: list[str]) -> Iterator[NewEntry]:
    for key in keys:
        yield NewEntry(key, key.encode(), {"for": "people"})


@pytest.mark.parametrize("in_memory", [True, False])
def test_it_makes_what_is_missing_in_order_and_in_batches(in_memory: bool, tmp_path: Path) -> None:
    store = MemoryStore() if in_memory else Store(tmp_path)
    store.put("views", KEYS[1], b"there", {})
    batches: list[list[str]] = []
    progress: list[int] = []

    def make(keys: list[str]) -> Iterator[NewEntry]:
        batches.append(keys)
        return echo(keys)

    fill(store, "views", [*KEYS[:6], KEYS[0]], make, batch_size=2, on_progress=progress.append)
    assert batches == [[KEYS[0], KEYS[2]], [KEYS[3], KEYS[4]], [KEYS[5]]]
    assert sum(progress) == 6
    assert store.read("views", KEYS[1]) == (b"there", {})
    assert store.read("views", KEYS[5]) == (KEYS[5].encode(), {"for": "people"})
    assert list(missing_keys(store, "views", KEYS[4:8] * 2)) == KEYS[6:8]


def test_what_is_there_is_told_after_every_batch_and_without_a_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("views", KEYS[1], b"there", {})
    told = []
    for there in filling(store, "views", KEYS[:6], echo, batch_size=2):
        told.append(there)
        assert all(store.read("views", key) for key in there)
        assert free_elsewhere(tmp_path, KEYS[:6])
    assert sorted(key for there in told for key in there) == sorted(KEYS[:6])
    assert len(told) == 3 and set(told[0]) == set(KEYS[:3])


def test_who_wants_no_more_has_what_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = filling(store, "views", KEYS, echo, batch_size=2)
    next(made)
    made.close()
    assert list(missing_keys(store, "views", KEYS)) == KEYS[2:]
    assert free_elsewhere(tmp_path, KEYS)


def free_elsewhere(root: Path, keys: list[str]) -> bool:
    """Whether a thread gets the keys' locks."""
    seen: list[bool] = []
    store = Store(root)
    thread = threading.Thread(target=lambda: seen.extend(free(store, key) for key in keys))
    thread.start()
    thread.join()
    return len(seen) == len(keys) and all(seen)


def test_an_interruption_loses_nothing_that_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(keys: list[str]) -> Iterator[NewEntry]:
        yield from echo(keys[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(store, "views", KEYS, make, batch_size=4)
    assert list(missing_keys(store, "views", KEYS)) == KEYS[2:]
    fill(store, "views", KEYS, echo, batch_size=4)  # the locks were let go
    assert not missing_keys(store, "views", KEYS)


def test_processes_with_the_same_keys_share_the_work(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = [start(tmp_path / "store", log, step, 0.02) for step in (1, -1, 1, -1)]
    for process in running:
        assert process.wait(timeout=120) == 0
    assert sorted(log.read_text().split()) == sorted(KEYS)


def test_the_batch_of_a_process_that_died_is_made_by_who_waits_for_it(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    dying = start(tmp_path / "store", log, 1, 3600)
    while not any(not free(store, key) for key in KEYS[:3]):
        assert dying.poll() is None
        time.sleep(0.01)
    made: list[str] = []

    def make(keys: list[str]) -> Iterator[NewEntry]:
        made.extend(keys)
        return echo(keys)

    waiting = threading.Thread(
        target=lambda: fill(Store(tmp_path / "store"), "views", KEYS, make, batch_size=8)
    )
    waiting.start()
    while len(made) < len(KEYS) - 3:  # all but what the other holds
        time.sleep(0.01)
    time.sleep(0.2)
    assert waiting.is_alive() and not set(made) & set(KEYS[:3])
    dying.kill()
    dying.wait()
    waiting.join(timeout=60)
    assert not waiting.is_alive()
    assert sorted(made) == sorted(KEYS) and not missing_keys(store, "views", KEYS)


def free(store: Store, key: str) -> bool:
    with store.try_lock("views", key) as mine:
        return mine
