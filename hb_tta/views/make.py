"""Making the descriptions and the views that a plan needs and the store lacks."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hb_tta.describe.drafts import JITTERED, Drafting
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.jitter import JitterSpec
from hb_tta.store import MemoryStore, NewEntry, Store
from hb_tta.store.fill import fill, filling, missing_keys
from hb_tta.views.models import Models
from hb_tta.views.plan import PlannedContext, PlannedViews

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.context import DescribedContext

DESCRIPTIONS_PER_BATCH = 8  # of LLaVA v1.6's images, up to 2,900 tokens each
VIEWS_PER_BATCH = 16  # more of SDXL's views at once gain nothing
HAND_OUT_SECONDS = 1.0  # between two waits for the disk; the model stands still meanwhile
TRIES = 3  # at an entry that somebody else removes again as soon as it is made

SHORTENED = "the description was too long for the text encoders and was shortened"
WORDLESS = "the describer wrote nothing of use: the views follow the image alone"
VANISHED = "entries vanish from the store as soon as they are made: stop whoever prunes it"

Stored = tuple[bytes, dict[str, Any]]
"""The payload and the ``meta`` of an entry."""


class ViewMaker:
    """Fills a store with what plans need, and reads it.

    Args:
        models: load themselves when the first missing entry is claimed.
        store: where the entries go.
        batch_size: views a call of the generator; ``None``: ``VIEWS_PER_BATCH``.
        drafting: of the descriptions.
        progress: show progress bars; ``None``: where there is more than one batch, in a terminal.
    """

    def __init__(
        self,
        models: Models,
        store: Store | MemoryStore,
        *,
        batch_size: int | None = None,
        drafting: Drafting = Drafting(),  # noqa: B008  frozen
        progress: bool | None = None,
    ) -> None:
        self._models = models
        self._store = store
        self._batch_size = batch_size or VIEWS_PER_BATCH
        self._drafting = drafting
        self._progress = progress

    # Descriptions.

    def descriptions(self, contexts: Iterable[PlannedContext]) -> dict[str, str]:
        """Description key → text, read from the store or written now."""
        wanted = {k: (c, i) for c in contexts for i, k in enumerate(c.description_keys)}
        texts: dict[str, str] = {}
        for _ in range(TRIES):
            missing = self.read_descriptions([key for key in wanted if key not in texts], texts)
            if not missing:
                return texts
            _warn_of({context: None for context, _ in map(wanted.__getitem__, missing)})
            size = DESCRIPTIONS_PER_BATCH
            with bar("describing", "image", len(missing), size, self._progress) as shown:
                fill(
                    self._store,
                    "descriptions",
                    missing,
                    lambda keys: self._describe([wanted[key] for key in keys]),
                    batch_size=size,
                    on_progress=shown.update,
                )
        raise UserError(VANISHED)

    def read_descriptions(self, keys: Iterable[str], texts: dict[str, str]) -> list[str]:
        """Adds what the store has to ``texts`` and gives the keys of the rest."""
        missing = []
        for key in keys:
            found = self._store.read("descriptions", key)
            if found is None:
                missing.append(key)
            else:
                texts[key] = json.loads(found[0])["description"]
        return missing

    def _describe(self, drafts: Sequence[tuple[PlannedContext, int]]) -> Iterator[NewEntry]:
        """The entries of one batch: a context and the number of its draft each."""
        jittered = self._drafting.kind == JITTERED
        seeds = [None if jittered or number == 0 else number for _, number in drafts]
        contexts = [self._to_describe(context, number) for context, number in drafts]
        texts = self._models.describe(contexts, seeds)
        for (context, number), text in zip(drafts, texts, strict=True):
            payload = json.dumps({"description": text}, ensure_ascii=False).encode()
            about = {**self._about_description(context), **self._drafting.of(number)}
            yield NewEntry(context.description_keys[number], payload, about)

    def _to_describe(self, context: PlannedContext, number: int) -> DescribedContext:
        """A context as the describer sees it for a draft: later ones may be of a jittered copy."""
        seen = context.context(None)
        if number == 0 or self._drafting.kind != JITTERED:
            return seen
        return seen._replace(image=JitterSpec().change(seen.image, number))

    def _about_description(self, context: PlannedContext) -> dict[str, Any]:
        """What people find beside a description; no ground truth is known here."""
        return {
            "pixels": context.digest,
            "guidance": context.guidance,
            "task": context.task,
            "describer": self._models.describer_json,
        }

    # Views.

    def make(self, plans: Sequence[PlannedViews]) -> None:
        """Have every view of the plans in the store."""
        missing = self._missing(plans)
        for _ in self._filling(plans, missing, seconds=math.inf):
            pass

    def views(self, plans: Sequence[PlannedViews]) -> Iterator[tuple[PlannedViews, list[Stored]]]:
        """The plans in order, each with its views' entries, as soon as those are there."""
        waiting, missing = deque(plans), self._missing(plans)
        yield from self._complete(waiting, missing)
        for there in self._filling(plans, missing, seconds=HAND_OUT_SECONDS):
            for key in there:
                missing.pop(key, None)
            yield from self._complete(waiting, missing)

    def lacks(self, plans: Sequence[PlannedViews]) -> bool:
        """Whether a view of the plans is still to be made."""
        return bool(self._missing(plans))

    def _missing(self, plans: Sequence[PlannedViews]) -> dict[str, None]:
        return missing_keys(self._store, "views", [key for plan in plans for key in plan.keys])

    def _complete(
        self, waiting: deque[PlannedViews], missing: Mapping[str, None]
    ) -> Iterator[tuple[PlannedViews, list[Stored]]]:
        """Takes the plans off the queue that lack nothing, up to the first that does."""
        while waiting and missing.keys().isdisjoint(waiting[0].keys):
            plan = waiting.popleft()
            yield plan, self.read(plan, plan.keys)

    def read(self, plan: PlannedViews, keys: Sequence[str]) -> list[Stored]:
        """Some of a plan's entries, made again where they are damaged or somebody removed them."""
        found: dict[str, Stored] = {}
        for _ in range(TRIES):
            for key in keys:
                if key not in found and (entry := self._store.read("views", key)) is not None:
                    found[key] = entry
            lost = {key: None for key in keys if key not in found}
            if not lost:
                return [found[key] for key in keys]
            for _ in self._filling([plan], lost, seconds=math.inf):
                pass
        raise UserError(VANISHED)

    def _filling(
        self, plans: Sequence[PlannedViews], missing: Mapping[str, None], *, seconds: float
    ) -> Iterator[list[str]]:
        views = {
            key: (plan, seed)
            for plan in reversed(plans)  # of equal keys the first plan counts
            for key, seed in zip(plan.keys, plan.seeds, strict=True)
            if key in missing
        }
        if not views:
            return
        with bar("generating", "view", len(views), self._batch_size, self._progress) as shown:
            yield from filling(
                self._store,
                "views",
                list(missing),
                lambda keys: self._generate([(key, *views[key]) for key in keys]),
                batch_size=self._batch_size,
                on_progress=shown.update,
                seconds=seconds,
            )

    def _generate(self, views: Sequence[tuple[str, PlannedViews, int]]) -> Iterator[NewEntry]:
        """The entries of one batch: (key, plan, seed) each."""
        batch = [(plan, list(group)) for plan, group in groupby(views, key=lambda view: view[1])]
        fitted = [self._fitted(plan) for plan, _ in batch]
        images = self._models.generate(
            [
                plan.context.context(told["description"])
                for (plan, _), told in zip(batch, fitted, strict=True)
            ],
            [[seed for _, _, seed in group] for _, group in batch],
        )
        keys = [key for _, group in batch for key, _, _ in group]
        metas = [
            {
                "pixels": plan.context.digest,
                **told,
                "generator": self._models.generator_json,
                "seed": seed,
            }
            for (plan, group), told in zip(batch, fitted, strict=True)
            for _, _, seed in group
        ]
        with ThreadPoolExecutor() as pool:  # zlib works outside Python's lock
            payloads = pool.map(to_png, (image for its_images in images for image in its_images))
            yield from map(NewEntry, keys, payloads, metas)

    def _fitted(self, plan: PlannedViews) -> dict[str, Any]:
        """What the text encoders take of the description, and whether it had to be shortened."""
        text = plan.description
        if text is None:
            return {"description": None, "shortened": False}
        description, shortened = self._models.fit(text)
        if shortened:
            warnings.warn(f"{SHORTENED}: it begins {text[:40]!r}", HbTtaWarning, stacklevel=2)
        if plan.context.description_keys and not text:
            warnings.warn(WORDLESS, HbTtaWarning, stacklevel=2)
        return {"description": description, "shortened": shortened}


def to_png(image: Image) -> bytes:
    """The bytes that the store keeps of a view."""
    file = io.BytesIO()
    # Level 1 takes a fifth of the default's time and a tenth more room on photographs.
    image.convert("RGB").save(file, "PNG", compress_level=1)
    return file.getvalue()


def bar(name: str, unit: str, total: int | None, batch_size: int, progress: bool | None) -> Any:
    """A progress bar; by default in a terminal alone, where there is more than one batch."""
    few = total is not None and total <= batch_size
    hidden = (True if few else None) if progress is None else not progress
    # A bar below another one goes when it is full.
    return tqdm(total=total, desc=name, unit=unit, disable=hidden, leave=None)


def _warn_of(contexts: Iterable[PlannedContext]) -> None:
    for note in (note for context in contexts for note in context.warnings):
        warnings.warn(note, HbTtaWarning, stacklevel=4)
