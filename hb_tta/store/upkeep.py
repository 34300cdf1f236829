"""Looking after a store: counting, verifying, making room."""

from __future__ import annotations

import math
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hb_tta.store.entries import DamagedEntry, load_entry
from hb_tta.store.layout import Entry, Layout

# The age at which a writer's temporary file counts as left behind by a killed process. A write
# takes milliseconds; the rest is for clocks of other hosts.
LEFTOVER_SECONDS = 3600.0


@dataclass(frozen=True)
class Damage:
    """A damaged entry that ``Store.verify`` found."""

    namespace: str
    key: str
    path: Path
    reason: str


@dataclass(frozen=True)
class Usage:
    """How many files, how many bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.files + other.files, self.bytes + other.bytes)


@dataclass(frozen=True)
class StoreInfo:
    """What ``Store.info`` counts.

    Attributes:
        root: the store's folder, which need not exist yet.
        namespaces: the entries of each namespace.
        set_aside: damaged entries that were moved out of the way.
        leftovers: temporary files, of writers at work or killed.
        here: of a store at an address, what is kept on this machine.
        waiting: entries that are here and still to be sent there.
    """

    root: Path | str
    namespaces: dict[str, Usage]
    set_aside: Usage
    leftovers: Usage
    here: StoreInfo | None = None
    waiting: int = 0


@dataclass(frozen=True)
class Pruned:
    """What ``Store.prune`` removed: sound entries (by age or size), damaged ones, leftovers."""

    entries: Usage
    damaged: Usage
    leftovers: Usage


def size_told(count: float) -> str:
    """A number of bytes for people."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def count(layout: Layout) -> StoreInfo:
    """See ``Store.info``."""
    namespaces: defaultdict[str, Usage] = defaultdict(Usage)
    for entry in layout.entries():
        namespaces[entry.namespace] += Usage(1, entry.size)
    return StoreInfo(
        root=layout.root,
        namespaces=dict(sorted(namespaces.items())),
        set_aside=_usage(layout.set_aside()),
        leftovers=_usage(layout.leftovers()),
    )


def damages(layout: Layout) -> Iterator[Damage]:
    """Every entry that is damaged or cannot be read; all are read whole."""
    for entry in layout.entries():
        try:
            load_entry(entry.namespace, entry.key, entry.path)
        except FileNotFoundError:
            continue
        except (DamagedEntry, OSError) as error:
            yield Damage(entry.namespace, entry.key, entry.path, str(error))


def is_damaged(namespace: str, key: str, path: Path) -> bool:
    """Whether the bytes are wrong; an entry that this user cannot read may be sound."""
    try:
        load_entry(namespace, key, path)
    except DamagedEntry:
        return True
    except OSError:
        return False
    return False


def little_used(
    entries: Callable[[], Iterable[Entry]], older_than: float | None, max_bytes: int | None
) -> Iterator[Entry]:
    """The entries that an age (seconds) and a size limit leave no room for.

    They are looked through twice, with 16 bytes an entry in memory.
    """
    used, sizes = array("d"), array("q")
    for entry in entries():
        used.append(entry.used)
        sizes.append(entry.size)
    too_old = -math.inf if older_than is None else time.time() - older_than
    until, ties = _least_recent(used, sizes, max_bytes)
    for entry in entries():
        at_the_cut = entry.used == until and ties > 0
        ties -= at_the_cut
        if entry.used < max(too_old, until) or at_the_cut:
            yield entry


def _least_recent(
    used: Sequence[float], sizes: Sequence[int], max_bytes: int | None
) -> tuple[float, int]:
    """Before when entries were last used that have to go, and how many of that very time."""
    if max_bytes is None or sum(sizes) <= max_bytes:
        return -math.inf, 0
    import numpy as np

    times, bytes_ = np.asarray(used), np.asarray(sizes)
    order = np.argsort(times, kind="stable")
    left = bytes_.sum() - np.cumsum(bytes_[order])
    number = int(np.argmax(left <= max_bytes)) + 1
    until = float(times[order[number - 1]])
    return until, number - int((times < until).sum())


def remove(paths: Iterable[Path]) -> Usage:
    """Remove files, and count those that were there."""
    removed = Usage()
    for path in paths:
        with suppress(FileNotFoundError):  # another process was quicker
            size = path.stat().st_size
            path.unlink()
            removed += Usage(1, size)
    return removed


def _usage(paths: Iterator[Path]) -> Usage:
    total = Usage()
    for path in paths:
        with suppress(FileNotFoundError):
            total += Usage(1, path.stat().st_size)
    return total
