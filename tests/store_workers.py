"""Processes that write to a store until they are done or killed, for the tests of the store.

Run as ``python tests/store_workers.py ROLE STORE LOG SEED COUNT``. Imports no torch, so that a
hundred of them start in seconds.
"""

import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from hb_tta.store import Store, content_key


def key_of(index: int) -> str:
    return content_key({"index": index})


def payload_of(index: int) -> bytes:
    """What belongs under ``key_of(index)``: up to 400 kB, to be in the middle of when killed."""
    return random.Random(index).randbytes(index * 7919 % 400_000)


def start(role: str, store: Path, log: Path, seed: int, count: int) -> subprocess.Popen[bytes]:
    arguments = [role, str(store), str(log), str(seed), str(count)]
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE)


def logged(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def write_all(store: Store, log: int, seed: int, count: int) -> None:
    """Put entries one after the other, saying of each in the log that it is finished."""
    for index in range(seed, seed + count):
        with store.lock("views", key_of(index)):
            store.put("views", key_of(index), payload_of(index), {"index": index})
        os.write(log, b"%d\n" % index)


def make_each(store: Store, log: int, seed: int, count: int) -> None:
    """Make what is missing, one at a time: lock, then look again."""
    for index in random.Random(seed).sample(range(count), count):
        with store.lock("views", key_of(index)):
            if not store.has("views", key_of(index)):
                make(store, log, index)


def make_batches(store: Store, log: int, seed: int, count: int) -> None:
    """Make what is missing, in batches of what nobody else is making just now."""
    missing = random.Random(seed).sample(range(count), count)
    while missing:
        with ExitStack() as held:
            free = [
                index
                for index in missing[:16]
                if held.enter_context(store.try_lock("views", key_of(index)))
            ]
            for index in free:
                if not store.has("views", key_of(index)):
                    make(store, log, index)
        if not free:
            time.sleep(0.01)
        missing = [index for index in missing if not store.has("views", key_of(index))]


def make(store: Store, log: int, index: int) -> None:
    os.write(log, b"%d\n" % index)
    time.sleep(0.002)
    store.put("views", key_of(index), b"%d" % index, {})


ROLES = {"write_all": write_all, "make_each": make_each, "make_batches": make_batches}


def main() -> None:
    role, root, log, seed, count = sys.argv[1:]
    assert "torch" not in sys.modules
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    print("ready", flush=True)
    ROLES[role](Store(root), descriptor, int(seed), int(count))


if __name__ == "__main__":
    main()
