"""What must hold of a store whatever its processes do; the soak tests ask it for longer."""

import random
import time
import warnings
from pathlib import Path

from store_workers import key_of, logged, payload_of, start

from hb_tta.store import Store


def got(store: Store, namespace: str, key: str) -> bytes | None:
    """The payload of an entry that the store reads whole."""
    found = store.read(namespace, key)
    return None if found is None else found[0]


def survives_kills(folder: Path, kills: int, seed: int) -> int:
    """Kill a writer again and again at random moments; how many temporary files that left.

    After each kill every entry that the writer had finished is there, bit for bit, no entry is
    damaged, and the writer's lock is free.
    """
    store, moments = Store(folder / "store"), random.Random(seed)
    for kill in range(kills):
        log = folder / f"log{kill}"
        writer = start("write_all", store.root, log, seed=10_000 * kill, count=10_000)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.0, 0.1))
        writer.kill()
        writer.communicate()
        finished = logged(log)
        in_work = 10_000 * kill + len(finished)
        with warnings.catch_warnings(action="error"):  # a damaged entry would be one
            for index in finished:
                assert got(store, "views", key_of(index)) == payload_of(index), index
            assert got(store, "views", key_of(in_work)) in (None, payload_of(in_work))
        with store.try_lock("views", key_of(in_work)) as free:
            assert free
    assert store.verify() == []
    return store.info().leftovers.files


def makes_each_once(folder: Path, role: str, processes: int, count: int) -> None:
    """Processes that all want the same entries, in different orders, make each exactly once."""
    log = folder / "log"
    workers = [start(role, folder / "store", log, seed, count) for seed in range(processes)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * processes
    assert sorted(logged(log)) == list(range(count))
    store = Store(folder / "store")
    assert all(got(store, "views", key_of(index)) == b"%d" % index for index in range(count))
