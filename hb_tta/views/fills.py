"""Having the store hold what a call needs: read what is there, make the rest, look again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from hb_tta.errors import UserError
from hb_tta.progress import Progress
from hb_tta.progress import progress as told
from hb_tta.store import AnyStore, NewEntry
from hb_tta.store.fill import fill, read_entries

TRIES = 3  # at an entry that somebody else removes again as soon as it is made

VANISHED = "entries vanish from the store as soon as they are made: stop whoever prunes it"

T = TypeVar("T")


def have(
    store: AnyStore,
    namespace: str,
    keys: Collection[str],
    read: Callable[[bytes], T | None],
    make: Callable[[list[str]], Iterable[NewEntry]],
    into: dict[str, T],
    *,
    refused: Collection[str],
    job: tuple[str, str],
    batch_size: int,
    progress: bool | None,
    before: Callable[[Sequence[str]], object] = lambda missing: None,
) -> None:
    """Adds what entries hold to ``into``; those that the store lacks are made first.

    Args:
        read: what a payload holds; None where it is not of our making.
        make: keys of one batch → their entries; those that it will not make it puts in ``refused``.
        into: key → what was read, of this call or of earlier ones.
        job: what is done and of what, for the progress.
        batch_size, progress: see ``ViewMaker``.
        before: told the keys that are to be made.

    Raises:
        UserError: entries vanish as soon as they are made.
    """
    for _ in range(TRIES):
        left = [key for key in keys if key not in into and key not in refused]
        missing = read_entries(store, namespace, left, read, into)
        if not missing:
            return
        before(missing)
        with bar(*job, len(missing), batch_size, progress) as shown:
            fill(store, namespace, missing, make, batch_size=batch_size, on_progress=shown.update)
    raise UserError(VANISHED)


def bar(
    name: str, unit: str, total: int | None, batch_size: int, progress: bool | None
) -> Progress:
    """The progress of a job; by default where there is more than one batch."""
    few = total is not None and total <= batch_size
    return told(name, unit, total, shown=not few if progress is None else progress, leave=None)
