"""One call of the augmenter: contexts are planned, described, and given to who chooses views."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hb_tta.context import DescribedContext
from hb_tta.describe.drafts import SCORE, Drafting, settle
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests
from hb_tta.seen import Seen
from hb_tta.store import AnyStore
from hb_tta.views.choice import Chooser
from hb_tta.views.fills import bar
from hb_tta.views.make import ViewMaker
from hb_tta.views.models import Models
from hb_tta.views.outlook import SOME, Look, Outlook
from hb_tta.views.plan import FIRST_WINDOW, PlannedContext, PlannedViews, Planner, windows
from hb_tta.views.select import Selection

OnFailure = Callable[[int, UserError], object]
"""Told the number of a context of a call, and what is wrong with it."""


class Asked(NamedTuple):
    """What a call asks for.

    Attributes:
        shown: views of a context, at most.
        seeds: of the candidates.
        notes: what the caller should know of it.
    """

    shown: int
    seeds: range
    notes: Sequence[str] = ()


class Work:
    """What a call needs.

    Args:
        models: load themselves when something is missing.
        store: where everything is kept.
        needs_description, tells_guidance: whether the method does.
        selection, drafting, by_context: see ``Augmenter``.
        asked: what the call asks for.
        batch_size: views a call of the generator.
        progress: show progress bars.

    Attributes:
        chooser: makes candidates and chooses the views among them.
    """

    def __init__(
        self,
        models: Models,
        store: AnyStore,
        asked: Asked,
        *,
        needs_description: bool,
        tells_guidance: bool,
        selection: Selection,
        drafting: Drafting,
        by_context: bool,
        batch_size: int | None,
        progress: bool | None,
    ) -> None:
        self._drafting, self._asked, self._progress = drafting, asked, progress
        self._digests = PixelDigests()
        self._planner = Planner(
            models,
            needs_description=needs_description,
            tells_guidance=tells_guidance,
            digests=self._digests,
            drafting=drafting,
            by_context=by_context,
        )
        self._maker = ViewMaker(
            models, store, batch_size=batch_size, drafting=drafting, progress=progress
        )
        self.chooser = Chooser(
            models, store, self._maker, selection, asked.shown, progress=progress
        )

    def planned(
        self, contexts: Iterable[DescribedContext], fail: OnFailure
    ) -> Iterator[list[PlannedViews]]:
        """A window of contexts after the other, their descriptions written.

        Args:
            fail: told the number of a context that is at fault, and why; it is left out.
        """
        total = operator.length_hint(contexts) or None
        try:
            with bar("planning", "image", total, FIRST_WINDOW, self._progress) as shown:
                for window in windows(enumerate(contexts)):
                    read = []
                    for number, context in window:
                        try:
                            digest = self._digests.of(context.image)
                        except UserError as error:
                            fail(number, error)
                        else:
                            read.append(self._planner.context(context, number, digest))
                        shown.update()
                    texts = self._maker.descriptions(read)
                    yield list(self._sound(read, self._views(read, texts), fail))
        finally:
            self._digests.save()

    def looked(self, contexts: Iterable[DescribedContext]) -> Iterator[Look]:
        """What the store lacks of each context, in order; a window in memory at a time."""
        for window in windows(enumerate(contexts)):
            planned = [self._planner.context(context, number) for number, context in window]
            plans = self._planned_so_far(planned)
            for (_, context), one, plan in zip(window, planned, plans, strict=True):
                descriptions = self._maker.missing("descriptions", one.description_keys)
                views = {} if plan is None else self._maker.missing("views", plan.keys)
                scores = self._scores_to_come(plan, bool(views))
                yield Look(context, one, plan, descriptions, views, scores)
        self._digests.save()

    def outlook(
        self, contexts: Iterable[DescribedContext], lacking: list[DescribedContext]
    ) -> Outlook:
        """See ``Augmenter.outlook``."""
        described, made = Seen(), Seen()
        count, judged, unknown = 0, 0, 0
        for look in self.looked(contexts):
            count += 1
            described.update(look.descriptions)
            made.update(look.views)
            judged += look.scores
            unknown += look.plan is None
            if look.lacks and len(lacking) < SOME:
                lacking.append(look.context)
        candidates = len(self._asked.seeds)
        return Outlook(
            contexts=count,
            candidates=count * candidates,
            shown=count * self._asked.shown,
            to_describe=len(described),
            to_make=len(made) + unknown * candidates,
            to_judge=judged,
            unknown=unknown,
        )

    def _scores_to_come(self, plan: PlannedViews | None, views_too: bool) -> int:
        """How many a context lacks; what a view is judged by is known when it is there."""
        if plan is None or views_too:
            return (1 + len(self._asked.seeds)) * self.chooser.judged
        return self.chooser.missing_scores([plan])

    def planned_so_far(self, contexts: Iterable[DescribedContext]) -> list[PlannedViews | None]:
        """Plans as far as they are known without a model; None for the others."""
        planned = [self._planner.context(context, i) for i, context in enumerate(contexts)]
        return self._planned_so_far(planned)

    def _planned_so_far(self, planned: Sequence[PlannedContext]) -> list[PlannedViews | None]:
        texts: dict[str, str] = {}
        keys = {key: None for context in planned for key in context.description_keys}
        self._maker.read_descriptions(keys, texts)
        known = [c for c in planned if self._is_known(c, texts)]
        plans = dict(zip(known, self._views(known, texts), strict=True))
        found = (plans.get(context) for context in planned)
        return [None if isinstance(plan, UserError) else plan for plan in found]

    def _sound(
        self,
        contexts: Sequence[PlannedContext],
        plans: Sequence[PlannedViews | UserError],
        fail: OnFailure,
    ) -> Iterator[PlannedViews]:
        for context, plan in zip(contexts, plans, strict=True):
            if isinstance(plan, UserError):
                fail(context.number, plan)
            else:
                yield plan

    def _is_known(self, context: PlannedContext, texts: Mapping[str, str]) -> bool:
        if not all(key in texts for key in context.description_keys):
            return False
        drafts = [texts[key] for key in context.description_keys]
        return not (self._by_score(drafts) and self.chooser.lacks_drafts(context, drafts))

    def _by_score(self, drafts: Sequence[str]) -> bool:
        return len(drafts) > 1 and self._drafting.by == SCORE

    def _views(
        self, contexts: Sequence[PlannedContext], texts: Mapping[str, str]
    ) -> list[PlannedViews | UserError]:
        """The plans of contexts, or why there is none: a model refused a draft."""
        drafts = {context: self._drafts(context, texts) for context in contexts}
        judged = [
            (context, its)
            for context, its in drafts.items()
            if not isinstance(its, UserError) and self._by_score(its)
        ]
        found = self.chooser.of_drafts(judged)
        scores = dict(zip((context for context, _ in judged), found, strict=True))
        return [self._plan(context, its, scores.get(context)) for context, its in drafts.items()]

    def _plan(
        self,
        context: PlannedContext,
        drafts: list[str] | UserError,
        scores: list[float] | UserError | None,
    ) -> PlannedViews | UserError:
        seeds = self._asked.seeds
        for refused in (drafts, scores):
            if isinstance(refused, UserError):
                return refused
        if not drafts:
            return self._planner.views(context, context.description, seeds)
        text, doubtful = settle(drafts, doubt=self._drafting.doubt, scores=scores)  # type: ignore[arg-type]
        return self._planner.views(context, text, seeds, doubtful)

    def _drafts(self, context: PlannedContext, texts: Mapping[str, str]) -> list[str] | UserError:
        refused = self._maker.refused
        why = next((refused[key] for key in context.description_keys if key in refused), None)
        return why or [texts[key] for key in context.description_keys]
