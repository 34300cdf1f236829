"""From candidates to the views that are shown: scores from the store or the judge, then a choice.

A score is an entry of its own under (image, text, judge), made in batches once the candidates are
there. Another n, another least score, another run finds it again; a candidate that one setting
drops is there for the next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.reading import parse_json
from hb_tta.store import AnyStore, NewEntry
from hb_tta.store.fill import missing_keys
from hb_tta.views.fills import have
from hb_tta.views.make import Stored, ViewMaker
from hb_tta.views.models import Models
from hb_tta.views.plan import PlannedContext, PlannedViews, score_key
from hb_tta.views.refusals import apart, tried
from hb_tta.views.select import Selection, choose

if TYPE_CHECKING:
    from PIL.Image import Image

SCORES_PER_BATCH = 16  # images
CANDIDATES_AT_ONCE = 64  # that are made before the first are judged, where all models have room


class Chosen(NamedTuple):
    """A context's candidates, and which of them are shown.

    Attributes:
        plan: of all candidates.
        kept: the places of those that are shown, in order.
        stored: their entries.
        meta: of any candidate's entry.
        scores: of all candidates; ``None`` without a judge.
        real_score: of the real image; ``None`` without a judge.
    """

    plan: PlannedViews
    kept: Sequence[int]
    stored: Sequence[Stored]
    meta: dict[str, Any]
    scores: Sequence[float] | None = None
    real_score: float | None = None


class Refused(NamedTuple):
    """A context of which a model refuses the image, and why."""

    plan: PlannedViews
    why: UserError


class Chooser:
    """Shows all candidates, or those that a judge likes best.

    Args:
        models: the judge is one of them.
        store: where scores are kept.
        maker: of the candidates.
        selection: how they are chosen.
        n: views shown.
        progress: show progress bars.

    Attributes:
        judged: whether a judge chooses; without one all are shown.
    """

    def __init__(
        self,
        models: Models,
        store: AnyStore,
        maker: ViewMaker,
        selection: Selection,
        n: int,
        *,
        progress: bool | None = None,
    ) -> None:
        self._models, self._store, self._maker = models, store, maker
        self._selection, self._n, self._progress = selection, n, progress
        self.judged = selection.judge is not None
        # As of views: equal bytes need batches of one shape, of one row.
        self._size = 1 if models.deterministic else SCORES_PER_BATCH
        self._refused: dict[str, UserError] = {}  # keys of scores

    def make(self, plans: Sequence[PlannedViews]) -> list[Refused]:
        """Have candidates and scores in the store; those plans that a model refuses."""
        self._maker.make(plans)
        asked = self._asked_of(plans)
        self._scores([one for its in asked.values() for one in its])
        whys = ((plan, self._why(plan, asked.get(plan, ()))) for plan in plans)
        return [Refused(plan, why) for plan, why in whys if why is not None]

    def chosen(self, plans: Sequence[PlannedViews]) -> Iterator[Chosen | Refused]:
        """The plans in order, each as soon as its views are there and judged."""
        if not self.judged:
            for plan, stored in self._maker.views(plans):
                if isinstance(stored, UserError):
                    yield Refused(plan, stored)
                else:
                    yield Chosen(plan, range(len(stored)), stored, stored[0][1])
            return
        for some in self._parts(plans):
            self._maker.make(some)
            asked = self._asked_of(some)
            scores = self._scores([one for its in asked.values() for one in its])
            for plan in some:
                why = self._why(plan, asked.get(plan, ()))
                if why is not None:
                    yield Refused(plan, why)
                else:
                    yield self._choice(plan, [scores[one.key] for one in asked[plan]])

    def lacks(self, plans: Sequence[PlannedViews]) -> bool:
        """Whether a model is needed for a view or a score of the plans."""
        return self._maker.lacks(plans) or self.missing_scores(plans) > 0

    def missing_scores(self, plans: Sequence[PlannedViews]) -> int:
        """How many scores the store lacks of plans whose views are there."""
        asked = [one.key for its in self._asked_of(plans).values() for one in its]
        return len(missing_keys(self._store, "scores", asked))

    def lacks_drafts(self, context: PlannedContext, drafts: Sequence[str]) -> bool:
        """Whether the judge is needed for ``of_drafts`` of a context."""
        keys = [self._real(context, text).key for text in drafts]
        return bool(missing_keys(self._store, "scores", keys))

    def of_drafts(
        self, drafts: Sequence[tuple[PlannedContext, Sequence[str]]]
    ) -> list[list[float] | UserError]:
        """How true each of several descriptions is of its context's image, or why nobody says."""
        asked = [[self._real(context, text) for text in texts] for context, texts in drafts]
        scores = self._scores([one for its in asked for one in its])
        return [self._refusal(its) or [scores[one.key] for one in its] for its in asked]

    def _parts(self, plans: Sequence[PlannedViews]) -> Iterator[Sequence[PlannedViews]]:
        """Few at a time; all where the judge has to wait for the generator to leave."""
        size = max(1, CANDIDATES_AT_ONCE // max(1, len(plans[0].keys))) if plans else 1
        if not self._models.together:
            size = max(1, len(plans))
        return (plans[start : start + size] for start in range(0, len(plans), size))

    def _choice(self, plan: PlannedViews, scores: Sequence[float]) -> Chosen:
        real, *candidates = scores
        meta = self._meta(plan)
        least = self._selection.least(real, unlike="unlike" in meta)
        kept = choose(candidates, self._n, least)
        stored = self._maker.read(plan, [plan.keys[place] for place in kept])
        return Chosen(plan, kept, stored, meta, candidates, real)

    def _meta(self, plan: PlannedViews) -> dict[str, Any]:
        return self._maker.read(plan, plan.keys[:1])[0][1]

    # Scores.

    def _asked_of(self, plans: Sequence[PlannedViews]) -> dict[PlannedViews, list[_Asked]]:
        """What is judged of each plan that has views; nothing without a judge."""
        whole = [plan for plan in plans if self.judged and self._maker.why(plan) is None]
        return {plan: self._asked(plan) for plan in whole}

    def _why(self, plan: PlannedViews, asked: Sequence[_Asked]) -> UserError | None:
        return self._maker.why(plan) or self._refusal(asked)

    def _refusal(self, asked: Sequence[_Asked]) -> UserError | None:
        """Why the judge does not score all of these."""
        return next((self._refused[one.key] for one in asked if one.key in self._refused), None)

    def _asked(self, plan: PlannedViews) -> list[_Asked]:
        """What is judged of a plan: the real image, then every candidate."""
        # A generator whose text encoders were told less cannot be blamed for what is not there.
        text = plan.context.statement(self._meta(plan)["description"] or "")
        judge = self._models.judge_json
        assert judge is not None
        views = [
            _Asked(score_key(text, judge, view=key), text, plan.context, plan, key)
            for key in plan.keys
        ]
        return [self._real(plan.context, text), *views]

    def _real(self, context: PlannedContext, text: str) -> _Asked:
        judge = self._models.judge_json
        assert judge is not None
        return _Asked(score_key(text, judge, pixels=context.digest), text, context)

    def _scores(self, asked: Iterable[_Asked]) -> dict[str, float]:
        """Key → score, from the store or the judge; none of what the judge refuses."""
        wanted = {one.key: one for one in asked}
        scores: dict[str, float] = {}
        have(
            self._store,
            "scores",
            wanted,
            _score_in,
            lambda keys: self._judge([wanted[key] for key in keys]),
            scores,
            refused=self._refused,
            job=("judging", "image"),
            batch_size=self._size,
            progress=self._progress,
        )
        return scores

    def _judge(self, asked: Sequence[_Asked]) -> Iterator[NewEntry]:
        """The entries of one batch."""
        contexts = list(dict.fromkeys(one.context for one in asked))
        real = dict(zip(contexts, tried(contexts, lambda context: context.image()), strict=True))
        read = [self._seen(one, real[one.context]) for one in asked]
        whole = [each for each in read if not isinstance(each, UserError)]
        scores = iter(apart(whole, self._scored, "the judge"))
        judge = self._models.judge_json
        for one, each in zip(asked, read, strict=True):
            score = each if isinstance(each, UserError) else next(scores)
            if isinstance(score, UserError):
                self._refused[one.key] = score
                continue
            if not math.isfinite(score):
                raise UserError(
                    f"the judge gives {score} for {one.text[:40]!r}: its weights are damaged, or "
                    "it needs another dtype"
                )
            about = {"pixels": one.context.digest} if one.view is None else {"view": one.view}
            payload = json.dumps({"score": score}).encode()
            yield NewEntry(one.key, payload, {**about, "text": one.text, "judge": judge})

    def _scored(self, seen: Sequence[tuple[Image, Image, str]]) -> list[float]:
        """The judge's word on (image, its reference, text)."""
        images, references, texts = zip(*seen, strict=True)
        return self._models.score(images, references, texts)

    def _seen(self, asked: _Asked, real: Image | UserError) -> tuple[Image, Image, str] | UserError:
        if isinstance(real, UserError):
            return real
        return self._image(asked, real), real, asked.text

    def _image(self, asked: _Asked, real: Image) -> Image:
        if asked.plan is None or asked.view is None:
            return real
        return load_image(self._maker.read(asked.plan, [asked.view])[0][0])


def _score_in(payload: bytes) -> float | None:
    """The score that an entry holds; None where it is not of our making."""
    with suppress(ValueError, KeyError, TypeError):
        score = parse_json(payload)["score"]
        if type(score) in (int, float) and math.isfinite(score):
            return float(score)
    return None


class _Asked(NamedTuple):
    """An image that is to be judged.

    Attributes:
        key: of its score.
        text: what it is to show.
        context: whose real image it is, or a view of.
        plan, view: of a view, its plan and key; ``None``: it is the real image.
    """

    key: str
    text: str
    context: PlannedContext
    plan: PlannedViews | None = None
    view: str | None = None
