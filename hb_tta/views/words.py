"""Which words of a description its image shows, and where: kept in the store's "boxes"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hb_tta.context import DescribedContext, SeenWord
from hb_tta.errors import UserError
from hb_tta.reading import parse_json
from hb_tta.store import AnyStore, NewEntry
from hb_tta.views.fills import have
from hb_tta.views.models import Models
from hb_tta.views.plan import PlannedViews, boxes_key
from hb_tta.views.refusals import apart, tried

PER_BATCH = 8  # images
NOTHING = "none of the description's words was found in the image: the views follow the words alone"


class Words:
    """Looks for the words of descriptions, once, where a generator wants to know.

    Args:
        models: the finder is one of them.
        store: where boxes are kept.
        progress: show a progress bar.

    Attributes:
        refused: keys of boxes that the finder would not find, and why.
    """

    def __init__(self, models: Models, store: AnyStore, progress: bool | None = None) -> None:
        self._models, self._store, self._progress = models, store, progress
        self._size = 1 if models.deterministic else PER_BATCH
        self._found: dict[str, tuple[SeenWord, ...]] = {}
        self.refused: dict[str, UserError] = {}

    def look(self, plans: Sequence[PlannedViews]) -> None:
        """Have the boxes of all plans; nothing where the generator does not look at them."""
        if self._models.finder_json is None:
            return
        wanted = {self._key(plan): plan for plan in plans}
        have(
            self._store,
            "boxes",
            wanted,
            _boxes_in,
            lambda keys: self._find([(key, wanted[key]) for key in keys]),
            self._found,
            refused=self.refused,
            job=("finding", "image"),
            batch_size=self._size,
            progress=self._progress,
        )

    def of(self, plan: PlannedViews) -> tuple[SeenWord, ...] | None:
        """The boxes of a plan that was looked at; ``None``: nobody wants to know.

        Raises:
            UserError: the finder refuses the image.
        """
        if self._models.finder_json is None:
            return None
        key = self._key(plan)
        if key in self.refused:
            raise self.refused[key]
        return self._found[key]

    def _find(self, asked: Sequence[tuple[str, PlannedViews]]) -> Iterator[NewEntry]:
        read = tried([plan for _, plan in asked], self._context)
        whole = [each for each in read if not isinstance(each, UserError)]
        found = iter(apart(whole, self._models.find, "the detector"))
        for (key, plan), each in zip(asked, read, strict=True):
            boxes = each if isinstance(each, UserError) else next(found)
            if isinstance(boxes, UserError):
                self.refused[key] = boxes
                continue
            payload = json.dumps({"boxes": boxes_json(boxes)}, ensure_ascii=False).encode()
            about = {"pixels": plan.context.digest, "description": self._text(plan)}
            yield NewEntry(key, payload, {**about, "finder": self._models.finder_json})

    def _context(self, plan: PlannedViews) -> DescribedContext:
        return plan.context.context(self._text(plan))

    def _text(self, plan: PlannedViews) -> str:
        """What the generator is told: the boxes are of its characters."""
        return self._models.fit(plan.description or "")[0]

    def _key(self, plan: PlannedViews) -> str:
        finder = self._models.finder_json
        assert finder is not None
        return boxes_key(plan.context.digest, self._text(plan), finder)


def boxes_json(boxes: Sequence[SeenWord]) -> list[dict[str, Any]]:
    """Plain JSON; corners in pixels, to a hundredth."""
    return [
        {**word._asdict(), "box": [round(float(corner), 2) for corner in word.box]}
        for word in boxes
    ]


def _boxes_in(payload: bytes) -> tuple[SeenWord, ...] | None:
    """The boxes that an entry holds; None where it is not of our making."""
    try:
        return tuple(map(_seen, parse_json(payload)["boxes"]))
    except (ValueError, KeyError, TypeError):
        return None


def _seen(found: dict[str, Any]) -> SeenWord:
    left, top, right, bottom = map(float, found["box"])
    box = (left, top, right, bottom)
    return SeenWord(
        str(found["word"]), int(found["start"]), int(found["end"]), box, float(found["score"])
    )
