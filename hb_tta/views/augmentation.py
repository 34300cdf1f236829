"""What the augmenter gives of a context: the views that are shown, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta.images import load_image
from hb_tta.views.choice import Chosen
from hb_tta.views.make import SHORTENED, WORDLESS
from hb_tta.views.words import NOTHING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Augmentation:
    """What one context gives.

    Attributes:
        files: the views that are shown, as image files; exactly the bytes that the store keeps.
            With a least score there may be fewer than n, even none.
        seeds: one a view, as it was used.
        description: the context description that the generator was given, shortened to its text
            encoders' window where it had to be; ``None`` for a method that needs none.
        spec: ``{"generator": …, "describer": …}``, plain JSON that names everything that decided
            the views; the describer is ``None`` where it had no part. With a judge there is a
            "selection", with seeds by context "seeds", in it.
        keys: the views' keys in the store's namespace "views".
        warnings: what was shortened or is missing, a sentence each.
        scores: the judge's, one a view, larger for better; ``None`` without a judge.
        real_score: the judge's of the real image; ``None`` without a judge.
        dropped: seed, key and score of the candidates that are not shown.
        boxes: the description's words that were found in the image, as of ``SeenWord``; ``None``
            for a method that does not look for them.
    """

    files: list[bytes] = field(repr=False)
    seeds: list[int]
    description: str | None
    spec: dict[str, Any]
    keys: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scores: list[float] | None = None
    real_score: float | None = None
    dropped: list[tuple[int, str, float]] = field(default_factory=list)
    boxes: list[dict[str, Any]] | None = None

    @cached_property
    def views(self) -> list[Image]:
        """The generated images, RGB, decoded when they are first asked for."""
        return [load_image(file) for file in self.files]


def augmentation_of(chosen: Chosen, spec: dict[str, Any], notes: Sequence[str]) -> Augmentation:
    """A context's views.

    Args:
        chosen: the candidates, and which of them are shown.
        spec: see ``Augmentation``.
        notes: of the whole call.
    """
    plan, scores, kept = chosen.plan, chosen.scores, chosen.kept
    dropped = [place for place in range(len(plan.keys)) if place not in set(kept)]
    return Augmentation(
        files=[payload for payload, _ in chosen.stored],
        seeds=[plan.seeds[place] for place in kept],
        description=chosen.meta.get("description"),
        spec=spec,
        keys=[plan.keys[place] for place in kept],
        warnings=[*notes, *_notes(chosen)],
        scores=None if scores is None else [scores[place] for place in kept],
        real_score=chosen.real_score,
        dropped=[(plan.seeds[p], plan.keys[p], scores[p]) for p in dropped] if scores else [],
        boxes=chosen.meta.get("boxes"),
    )


def _notes(chosen: Chosen) -> list[str]:
    plan = chosen.plan
    notes = list(plan.context.warnings)
    if "unlike" in chosen.meta:
        notes.append(chosen.meta["unlike"])
    if chosen.meta.get("shortened"):
        notes.append(SHORTENED)
    if plan.context.description_keys and not plan.description:
        notes.append(WORDLESS)
    if chosen.meta.get("boxes") == []:
        notes.append(NOTHING)
    if plan.doubtful:
        notes.append(f"the drafts of the description disagree on: {', '.join(plan.doubtful)}")
    return notes
