"""The views of a batch's questions, made together.

Without a store on disk what is made for a batch is gone after it: nothing stays, and nothing of one
client's is there for another.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hb_tta.augment import Augmentation, Augmenter
from hb_tta.context import MultimodalContext
from hb_tta.errors import UserError
from hb_tta.serve.job import Job
from hb_tta.serve.limits import MB, Limits
from hb_tta.settings.augmented import DESCRIBE, AugmentSettings
from hb_tta.store import AnyStore, MemoryStore, Store, TieredStore

TRIM_SECONDS = 30.0
"""Between two looks at how large the store on disk is."""


@dataclass
class Made:
    """What was made for a question.

    Attributes:
        job: the question.
        augmentations: one an image.
        store: where its candidates are.
        failed: why there are none.
    """

    job: Job
    augmentations: list[Augmentation]
    store: AnyStore
    failed: UserError | None = None


class Views:
    """Makes views with one set of models, whatever else clients ask for.

    Args:
        settings: the server's own.
        store: on disk; None: nothing is kept.
        limits: the store's size is one.
    """

    def __init__(
        self, settings: AugmentSettings, store: Store | TieredStore | None, limits: Limits
    ) -> None:
        self._base = settings.views.augmenter(store=MemoryStore())
        self._store, self._most = store, limits.store_mb * MB
        self._trimmed = -TRIM_SECONDS

    def make(self, jobs: Sequence[Job]) -> Iterator[list[Made]]:
        """What is made for each job, those of one kind of settings at a time.

        Raises:
            UserError: a model cannot be loaded, or the store cannot be written.
        """
        alike: dict[AugmentSettings, list[Job]] = {}
        for job in jobs:
            assert job.settings is not None
            alike.setdefault(job.settings, []).append(job)
        for settings, its in alike.items():
            yield self._make(settings, its)
        self.trim()

    def trim(self, *, now: bool = False) -> None:
        """Remove from the store what was used least recently, where it is too large."""
        if self._store is not None and (now or time.monotonic() - self._trimmed > TRIM_SECONDS):
            self._store.prune(max_bytes=self._most)
            self._trimmed = time.monotonic()

    def _make(self, settings: AugmentSettings, jobs: Sequence[Job]) -> list[Made]:
        store = MemoryStore() if self._store is None else self._store
        augmenter = settings.views.augmenter(store=store).with_models_of(self._base)
        made = [Made(job, [], store) for job in jobs]
        whose = [one for one in made for _ in one.job.conversation.images]
        contexts = [
            MultimodalContext(image, job.conversation.question)
            for job in jobs
            for image in job.conversation.images
        ]
        failed: dict[int, UserError] = {}
        told = any(job.progress for job in jobs) and augmenter.describer_spec is not None
        if settings.combining.combine == DESCRIBE or (told and settings.n):
            self._describe(augmenter, contexts, whose, failed, keep=not settings.n)
        if settings.n:
            for place, its in _placed(augmenter, contexts, settings, failed):
                whose[place].augmentations.append(its)
        elif settings.combining.combine != DESCRIBE:
            for one in whose:
                one.augmentations.append(Augmentation([], [], None, {}))
        for place, error in failed.items():
            whose[place].failed = error
        return made

    def _describe(
        self,
        augmenter: Augmenter,
        contexts: Sequence[MultimodalContext],
        whose: Sequence[Made],
        failed: dict[int, UserError],
        *,
        keep: bool,
    ) -> None:
        """Have the descriptions written first: whoever watches has something to read."""
        for place, (one, text) in enumerate(
            zip(whose, augmenter.descriptions(contexts, progress=False), strict=True)
        ):
            one.job.stage("described", description=text)
            if keep and place not in failed:
                one.augmentations.append(Augmentation([], [], text, {}))


def _placed(
    augmenter: Augmenter,
    contexts: Sequence[MultimodalContext],
    settings: AugmentSettings,
    failed: dict[int, UserError],
) -> Iterator[tuple[int, Augmentation]]:
    """Views with the place of their context; those that fail are told apart."""
    place = -1
    for its in augmenter.iter_augment(
        contexts,
        settings.n,
        settings.views.seed,
        progress=False,
        on_failure=failed.__setitem__,
    ):
        place = next(p for p in itertools.count(place + 1) if p not in failed)
        yield place, its
