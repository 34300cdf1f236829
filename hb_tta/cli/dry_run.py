"""``hb-tta augment --dry-run``: what it would make, how long that takes here, what room it needs.

The time is no guess: some of what is missing is made, is kept in the store, and is timed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from hb_tta.augment import Augmenter
from hb_tta.settings import ViewSettings
from hb_tta.store import size_told
from hb_tta.views.outlook import Outlook

TRIED = 16  # views that are made to know the time of one: a batch


@dataclass(frozen=True)
class Measured:
    """What was made to know the time.

    Attributes:
        views: how many, beside those of the first image.
        seconds: a view, with its share of descriptions and scores.
        start: seconds until the first image had its views: loading, and what is slow at first.
        bytes: of a view's file, on average.
        device: on which.
    """

    views: int
    seconds: float
    start: float
    bytes: float
    device: str


@dataclass(frozen=True)
class Forecast:
    """What is left to do after what was tried.

    Attributes:
        before, left: to be made before and after.
        measured: ``None``: nothing was missing.
        failed: lines that cannot be used.
    """

    before: Outlook
    left: Outlook
    measured: Measured | None
    failed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: counts, seconds, bytes."""
        return {
            "images": self.before.contexts,
            "failed": self.failed,
            "to_make_before": asdict(self.before),
            "to_make": asdict(self.left),
            "measured": None if self.measured is None else asdict(self.measured),
            "seconds": self.seconds,
            "store": {"files": self.left.entries, "bytes": self.store_bytes},
            "out": {"files": self.before.shown, "bytes": self.out_bytes},
            "settings": self.settings,
        }

    @property
    def seconds(self) -> float:
        """For what is left, on one such device."""
        if self.measured is None or not self.left.entries:
            return 0.0
        return self.measured.start + self.left.to_make * self.measured.seconds

    @property
    def store_bytes(self) -> int | None:
        """That the store will have more; None: no view was made to measure."""
        return None if self.measured is None else round(self.left.to_make * self.measured.bytes)

    @property
    def out_bytes(self) -> int | None:
        """Of all views in ``--out``, as if none were there."""
        return None if self.measured is None else round(self.before.shown * self.measured.bytes)

    def text(self) -> str:
        """Lines for people."""
        before, left = self.before, self.left
        most = "at most " if left.unknown else ""
        lines = [
            f"images: {before.contexts}" + (f", and {self.failed} lines that cannot be used"
                                             if self.failed else ""),
            f"views: {before.candidates}, of which {most}{before.to_make} were missing",
            f"descriptions to write: {before.to_describe}; scores to give: {most}{before.to_judge}",
        ]  # fmt: skip
        if self.measured is None:
            return "\n".join([*lines, "nothing is missing: no model will be loaded"])
        its = self.measured
        tried = (
            f"{its.views} views in {its.views * its.seconds:.1f} s" if its.views else "one image"
        )
        return "\n".join(
            [
                *lines,
                f"tried on {its.device}: {tried}, {its.seconds:.2f} s a view, after "
                f"{its.start:.1f} s to the first; they are kept",
                f"left: {most}{left.to_make} views, about {_duration(self.seconds)} on one such "
                "device",
                f"room: store {left.entries} files, {size_told(self.store_bytes or 0)}; --out "
                f"{before.shown} files, {size_told(self.out_bytes or 0)}",
            ]
        )

    def json(self) -> str:
        """``to_json`` as text."""
        return json.dumps(self.to_json(), indent=2)


def forecast(augmenter: Augmenter, settings: ViewSettings, contexts: Iterable[Any]) -> Forecast:
    """Look at all contexts, try some, and say what is left."""
    number: dict[str, Any] = {"n": settings.n, "seed": settings.seed}
    lacking: list[Any] = []
    before = augmenter.outlook(contexts, **number, lacking=lacking)
    if not lacking:
        return Forecast(before, before, None, settings=settings.to_json())
    measured, tried = _tried(augmenter, number, lacking)
    return Forecast(before, _less(before, tried), measured, settings=settings.to_json())


def _tried(
    augmenter: Augmenter, number: dict[str, Any], lacking: Sequence[Any]
) -> tuple[Measured, Outlook]:
    """Make the views of the first image, then a batch: the time of one, and what was made."""
    first, rest = lacking[:1], lacking[1:]
    each = augmenter.outlook(first, **number).candidates
    some = list(islice(rest, max(1, TRIED // each)))
    asked = augmenter.outlook([*first, *some], **number)
    start = _seconds(augmenter, number, first)
    made = augmenter.outlook(some, **number).to_make if some else 0
    seconds = _seconds(augmenter, number, some) / made if made else start / each
    size = _mean_size(augmenter, augmenter.view_keys([*first, *some], **number))
    return Measured(made, seconds, start, size, augmenter.device), asked


def _seconds(augmenter: Augmenter, number: dict[str, Any], contexts: Sequence[Any]) -> float:
    began = time.perf_counter()
    if contexts:
        augmenter.make(contexts, **number, progress=False)
    return time.perf_counter() - began


def _mean_size(augmenter: Augmenter, keys: Sequence[list[str] | None]) -> float:
    assert augmenter.store is not None
    found = [augmenter.store.read("views", key) for its in keys for key in its or ()]
    sizes = [len(entry[0]) for entry in found if entry is not None]
    return sum(sizes) / max(1, len(sizes))


def _less(before: Outlook, made: Outlook) -> Outlook:
    """What is left when some of it was made."""
    return Outlook(
        before.contexts,
        before.candidates,
        before.shown,
        max(0, before.to_describe - made.to_describe),
        max(0, before.to_make - made.to_make),
        max(0, before.to_judge - made.to_judge),
        max(0, before.unknown - made.unknown),
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
