"""A folder that somebody exported → a store. Every entry is proved before it is kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.reading import read_json
from hb_tta.sharing.entries import FORMAT, INDEX, Container, Damage, SharedEntry
from hb_tta.sharing.exporting import CONTAINERS
from hb_tta.store import NewEntry, Store, TieredStore
from hb_tta.views.proof import SHARED

_KEY = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 64  # entries that are flushed together


@dataclass
class Imported:
    """What became of a set's entries.

    Attributes:
        taken, there: by namespace, those that are new and those that the store had.
        damaged: what was not taken, and why.
        missing: by namespace, how many fewer the set holds than it says.
    """

    taken: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    damaged: list[Damage] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all that the set says it holds is in the store now."""
        return not self.damaged and not self.missing


def import_set(folder: Path, store: Store | TieredStore) -> Imported:
    """Take a set's entries into a store; what is damaged is left out and told.

    Raises:
        UserError: it is no set, or the store cannot be written.
    """
    index, done = _index(folder), Imported()
    container: Container = CONTAINERS[index["container"]]()
    for namespace in SHARED:
        group: list[NewEntry] = []
        for path in sorted((folder / namespace).glob(f"*{container.suffix}")):
            for entry in _proved(container, path, namespace, done):
                if store.has(namespace, entry.key):
                    done.there[namespace] += 1
                    continue
                group.append(NewEntry(entry.key, entry.payload, entry.meta))
                done.taken[namespace] += 1
                if len(group) == _AT_ONCE:
                    store.put_group(namespace, group)
                    group = []
        store.put_group(namespace, group)
    for namespace, count in index["entries"].items():
        lost = count - done.taken[namespace] - done.there[namespace]
        if lost > 0:
            done.missing[namespace] = lost
    store.learn_weights(index["weights"])
    return done


def _proved(
    container: Container, path: Path, namespace: str, done: Imported
) -> Iterator[SharedEntry]:
    seen: set[str] = set()
    for entry in container.read(path):
        if isinstance(entry, Damage):
            done.damaged.append(entry)
            continue
        wrong = "it stands among those of another kind" if entry.namespace != namespace else None
        if not isinstance(entry.key, str) or not _KEY.fullmatch(entry.key):
            wrong = "its key is none"
        elif entry.key in seen:
            wrong = "it stands twice"
        why = wrong or entry.fault()
        if why is None:
            seen.add(entry.key)
            yield entry
        else:
            done.damaged.append(Damage(f"{path.name}/{str(entry.key)[:64]}", why))


def _index(folder: Path) -> dict[str, Any]:
    """What a set tells of itself, its shape checked."""
    path = folder / INDEX
    try:
        found = read_json(path)
    except OSError:
        raise UserError(
            f"{str(folder)!r} is no whole set of views, it has no {INDEX}: name the folder that "
            "`hb-tta store export` wrote"
        ) from None
    except ValueError:
        found = None
    try:
        if found["format"] != FORMAT:
            raise UserError(
                f"{path} is of format {found['format']!r:.20}, and this version reads {FORMAT}: "
                "upgrade hb-tta"
            )
        sound = (
            found["container"] in CONTAINERS
            and all(isinstance(n, int) and name in SHARED for name, n in found["entries"].items())
            and all(isinstance(f, str) for f in found["weights"].values())
        )
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{path} is damaged: get a whole copy of the set")
    return found
