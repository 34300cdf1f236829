"""Making the descriptions and the views that a plan needs and the store lacks."""

from __future__ import annotations

import json
import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hb_tta.describe.drafts import JITTERED, Drafting
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.jitter import JitterSpec
from hb_tta.reading import parse_json
from hb_tta.store import AnyStore, NewEntry
from hb_tta.store.fill import filling, missing_keys, read_entries
from hb_tta.views.encode import encoded
from hb_tta.views.fills import TRIES, VANISHED, bar, have
from hb_tta.views.models import Models
from hb_tta.views.plan import PlannedContext, PlannedViews
from hb_tta.views.refusals import apart, tried
from hb_tta.views.words import NOTHING, Words, boxes_json

if TYPE_CHECKING:
    from hb_tta.context import DescribedContext

DESCRIPTIONS_PER_BATCH = 8  # of LLaVA v1.6's images, up to 2,900 tokens each
VIEWS_PER_BATCH = 16  # more of SDXL's views at once gain nothing
HAND_OUT_SECONDS = 1.0  # between two waits for the disk; the model stands still meanwhile
SHORTENED = "the description was too long for the text encoders and was shortened"
WORDLESS = "the describer wrote nothing of use: the views follow the image alone"

Stored = tuple[bytes, dict[str, Any]]
"""The payload and the ``meta`` of an entry."""


class ViewMaker:
    """Fills a store with what plans need, and reads it.

    Args:
        models: load themselves when the first missing entry is claimed.
        store: where the entries go.
        batch_size: views a call of the generator; ``None``: ``VIEWS_PER_BATCH``.
        drafting: of the descriptions.
        progress: tell how far it is; ``None``: where there is more than one batch.

    Attributes:
        refused: keys of descriptions and views that a model would not make, and why.
    """

    def __init__(
        self,
        models: Models,
        store: AnyStore,
        *,
        batch_size: int | None = None,
        drafting: Drafting = Drafting(),  # noqa: B008  frozen
        progress: bool | None = None,
    ) -> None:
        self._models = models
        self._store = store
        self._drafting = drafting
        # A batch's shape moves the last bit of its rows: equal bytes need one shape, of one row.
        alone = models.deterministic
        self._batch_size = 1 if alone else batch_size or VIEWS_PER_BATCH
        self._descriptions_size = 1 if alone else DESCRIPTIONS_PER_BATCH
        self._progress = progress
        self._words = Words(models, store, progress)
        self.refused: dict[str, UserError] = {}
        self._notes: dict[str, str | None] = {}  # of images by digest: what the models are not for

    # Descriptions.

    def descriptions(self, contexts: Iterable[PlannedContext]) -> dict[str, str]:
        """Description key → text, read from the store or written now; of none in ``refused``."""
        wanted = {k: (c, i) for c in contexts for i, k in enumerate(c.description_keys)}
        texts: dict[str, str] = {}
        have(
            self._store,
            "descriptions",
            wanted,
            _text_in,
            lambda keys: self._describe([wanted[key] for key in keys]),
            texts,
            refused=self.refused,
            job=("describing", "image"),
            batch_size=self._descriptions_size,
            progress=self._progress,
            before=lambda missing: _warn_of({wanted[key][0]: None for key in missing}),
        )
        return texts

    def read_descriptions(self, keys: Iterable[str], texts: dict[str, str]) -> list[str]:
        """Adds what the store has to ``texts`` and gives the keys of the rest."""
        return read_entries(self._store, "descriptions", keys, _text_in, texts)

    def _describe(self, drafts: Sequence[tuple[PlannedContext, int]]) -> Iterator[NewEntry]:
        """The entries of one batch: a context and the number of its draft each."""
        read = tried(drafts, lambda draft: self._to_describe(*draft))
        self._look([context for context, _ in drafts], read)
        numbers = [number for _, number in drafts]
        pairs = zip(read, numbers, strict=True)
        whole = [(seen, n) for seen, n in pairs if not isinstance(seen, UserError)]
        written = iter(apart(whole, self._drafted, "the describer"))
        for (context, number), each in zip(drafts, read, strict=True):
            key = context.description_keys[number]
            text = each if isinstance(each, UserError) else next(written)
            if isinstance(text, UserError):
                self.refused[key] = text
                continue
            payload = json.dumps({"description": text}, ensure_ascii=False).encode()
            about = {**self._about_description(context), **self._drafting.of(number)}
            yield NewEntry(key, payload, about)

    def _drafted(self, drafts: Sequence[tuple[DescribedContext, int]]) -> list[str]:
        """What the describer writes of contexts, each with the number of its draft."""
        jittered = self._drafting.kind == JITTERED
        seeds = [None if jittered or number == 0 else number for _, number in drafts]
        return self._models.describe([context for context, _ in drafts], seeds)

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
        """Have every view of the plans in the store, but for those in ``refused``."""
        missing = self._missing(plans)
        for _ in self._filling(plans, missing, seconds=math.inf):
            pass

    def views(
        self, plans: Sequence[PlannedViews]
    ) -> Iterator[tuple[PlannedViews, list[Stored] | UserError]]:
        """The plans in order, each with its views' entries, as soon as those are there.

        Of a context that a model refuses, why.
        """
        waiting, missing = deque(plans), self._missing(plans)
        yield from self._complete(waiting, missing)
        for there in self._filling(plans, missing, seconds=HAND_OUT_SECONDS):
            for key in there:
                missing.pop(key, None)
            yield from self._complete(waiting, missing)

    def lacks(self, plans: Sequence[PlannedViews]) -> bool:
        """Whether a view of the plans is still to be made."""
        return bool(self._missing(plans))

    def missing(self, namespace: str, keys: Sequence[str]) -> dict[str, None]:
        """Those of the keys that the store lacks."""
        return missing_keys(self._store, namespace, keys)

    def _missing(self, plans: Sequence[PlannedViews]) -> dict[str, None]:
        return self.missing("views", [key for plan in plans for key in plan.keys])

    def _complete(
        self, waiting: deque[PlannedViews], missing: Mapping[str, None]
    ) -> Iterator[tuple[PlannedViews, list[Stored] | UserError]]:
        """Takes the plans off the queue that lack nothing, up to the first that does."""
        while waiting and missing.keys().isdisjoint(waiting[0].keys):
            plan = waiting.popleft()
            yield plan, self.why(plan) or self.read(plan, plan.keys)

    def why(self, plan: PlannedViews) -> UserError | None:
        """Why a plan has no views; ``None``: it has, or can have."""
        return next((self.refused[key] for key in plan.keys if key in self.refused), None)

    def read(self, plan: PlannedViews, keys: Sequence[str]) -> list[Stored]:
        """Some of a plan's entries, made again where they are damaged or somebody removed them."""
        found: dict[str, Stored] = {}
        self._store.fetch("views", keys)
        for _ in range(TRIES):
            for key in keys:
                if key not in found and (entry := self._store.read("views", key)) is not None:
                    found[key] = entry
            lost = {key: None for key in keys if key not in found}
            if not lost:
                return [found[key] for key in keys]
            for _ in self._filling([plan], lost, seconds=math.inf):
                pass
            if (why := self.why(plan)) is not None:
                raise why
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
        self._words.look(list(dict.fromkeys(plan for plan, _ in views.values())))
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
        read = tried(
            list(zip(batch, fitted, strict=True)),
            lambda each: self._context(each[0][0], each[1]["description"]),
        )
        self._look([plan.context for plan, _ in batch], read)
        whole = [
            (context, [seed for _, _, seed in group])
            for context, (_, group) in zip(read, batch, strict=True)
            if not isinstance(context, UserError)
        ]
        made = iter(apart(whole, self._generated, "the generator"))
        keys, metas, images = [], [], []
        for context, (plan, group), about in zip(read, batch, fitted, strict=True):
            its_images = context if isinstance(context, UserError) else next(made)
            if isinstance(its_images, UserError):
                self.refused |= {key: its_images for key, _, _ in group}
                continue
            about = {**about, **self._seen(plan)}
            for (key, _, seed), image in zip(group, its_images, strict=True):
                keys.append(key)
                images.append(image)
                metas.append(self._about_view(plan, about, seed))
        with ThreadPoolExecutor() as pool:  # zlib and libwebp work outside Python's lock
            files = pool.map(partial(encoded, format=self._models.format), images)
            yield from map(NewEntry, keys, files, metas)

    def _context(self, plan: PlannedViews, description: str | None) -> DescribedContext:
        """What the generator is told."""
        return plan.context.context(description)._replace(boxes=self._words.of(plan))

    def _generated(self, asked: Sequence[tuple[Any, list[int]]]) -> list[list[Any]]:
        """Images of (context, seeds) pairs."""
        return self._models.generate([it[0] for it in asked], [it[1] for it in asked])

    def _about_view(self, plan: PlannedViews, about: dict[str, Any], seed: int) -> dict[str, Any]:
        """What people find beside a view."""
        generator = self._models.generator_json
        note = self._notes.get(plan.context.digest)
        unlike = {} if note is None else {"unlike": note}
        digest = plan.context.digest
        return {"pixels": digest, **about, **unlike, "generator": generator, "seed": seed}

    def _look(self, planned: Sequence[PlannedContext], read: Sequence[Any]) -> None:
        """Say of an image that the models are not for it, before anything is made of it."""
        familiar = self._models.familiar
        new = {
            context.digest: described.image
            for context, described in zip(planned, read, strict=True)
            if not isinstance(described, UserError) and context.digest not in self._notes
        }
        if familiar is None or not new:
            return
        distances = apart(list(new.values()), familiar.distances, "the image encoder")
        for digest, distance in zip(new, distances, strict=True):
            note = None if isinstance(distance, UserError) else familiar.note(distance)
            self._notes[digest] = note
            if note is not None:
                warnings.warn(familiar.sentence, HbTtaWarning, stacklevel=2)

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
        told = {"told": text} if shortened else {}  # what the key is made of
        return {"description": description, "shortened": shortened, **told}

    def _seen(self, plan: PlannedViews) -> dict[str, Any]:
        """Where the image shows the words, for a generator that looks."""
        boxes = self._words.of(plan)
        if boxes is not None and not boxes:
            warnings.warn(NOTHING, HbTtaWarning, stacklevel=2)
        return {} if boxes is None else {"boxes": boxes_json(boxes)}


def _text_in(payload: bytes) -> str | None:
    """The description that an entry holds; None where it is not of our making."""
    with suppress(ValueError, KeyError, TypeError):
        text = parse_json(payload)["description"]
        return text if isinstance(text, str) else None
    return None


def numbered(number: int, error: UserError) -> UserError:
    """A sentence about one context of a call."""
    return UserError(f"context {number}: {error}")


def _warn_of(contexts: Iterable[PlannedContext]) -> None:
    for note in (note for context in contexts for note in context.warnings):
        warnings.warn(note, HbTtaWarning, stacklevel=4)
