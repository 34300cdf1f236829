"""From contexts to the keys of their views: all that can be known before any model is loaded.

A key is a hash over everything that decides the entry, and what is not in the key is not handed
to the model either: a method that needs no description sees neither guidance nor task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hb_tta.context import DescribedContext, evaluation_contexts
from hb_tta.describe.templates import GUIDANCE_LIMIT, clean_guidance
from hb_tta.errors import UserError
from hb_tta.images import load_image, pixel_digest
from hb_tta.store import content_key

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
"""Counts the changes of what a key or an entry means."""


@dataclass(frozen=True, eq=False)
class Item:
    """One context of a call, and where its description and its views are kept.

    Attributes:
        source: the image as it was given: a path is read again when it is needed, so that a call
            with many contexts does not hold them all.
        digest: of the image's pixels.
        guidance, task, description: what the models see; a description that is None is to be
            written, or the method needs none.
        description_key: of the description to be written; None where there is none to write.
        seeds, view_keys: one a view.
        warnings: what the caller should know.
    """

    source: Any
    digest: str
    guidance: str
    task: str
    description: str | None
    description_key: str | None
    seeds: tuple[int, ...]
    view_keys: tuple[str, ...]
    warnings: tuple[str, ...]

    def context(self, description: str | None) -> DescribedContext:
        """The context with its pixels, for a model."""
        return DescribedContext(self.image(), description, self.guidance, self.task)

    def image(self) -> Image:
        """The reference image, RGB.

        Raises:
            UserError: its file has changed since its key was made.
        """
        image = load_image(self.source)
        if pixel_digest(image) != self.digest:
            raise UserError(f"the image {self.source!r} changed while it was in work: start again")
        return image


def plan(
    contexts: Sequence[Any],
    seeds: Sequence[int],
    *,
    generator: dict[str, Any],
    needs_description: bool,
    describer: dict[str, Any] | None,
) -> list[Item]:
    """One item a context.

    Args:
        contexts: see ``evaluation_contexts``; an image is whatever ``load_image`` takes.
        seeds: of every context's views.
        generator, describer: the specs' JSON; a describer of None cannot write descriptions.

    Raises:
        UserError: an image cannot be read, a context carries its ground truth, or a description
            is missing and nobody can write it.
    """
    items = []
    for number, context in enumerate(evaluation_contexts(contexts)):
        digest = pixel_digest(load_image(context.image))
        if not needs_description:
            context = DescribedContext(context.image)
        elif context.description is None and describer is None:
            raise UserError(
                f"context {number} has no description and there is no describer to write it: "
                "give a DescribedContext with one, or name a describer"
            )
        writer = describer if needs_description and context.description is None else None
        items.append(_item(context, digest, seeds, generator, writer))
    return items


def _item(
    context: DescribedContext,
    digest: str,
    seeds: Sequence[int],
    generator: dict[str, Any],
    describer: dict[str, Any] | None,
) -> Item:
    guidance = clean_guidance(context.guidance, context.task)
    told: dict[str, Any] = {"guidance": guidance, "task": context.task}
    told |= {"describer": describer} if describer else {"description": context.description}
    request = {"format": FORMAT, "pixels": digest, **told}
    return Item(
        source=context.image,
        digest=digest,
        guidance=guidance,
        task=context.task,
        description=context.description,
        description_key=content_key({"entry": "description", **request}) if describer else None,
        seeds=tuple(seeds),
        view_keys=tuple(
            content_key({"entry": "view", **request, "generator": generator, "seed": seed})
            for seed in seeds
        ),
        warnings=_guidance_warnings(context, guidance),
    )


def _guidance_warnings(context: DescribedContext, guidance: str) -> tuple[str, ...]:
    if len(context.guidance) <= GUIDANCE_LIMIT or not guidance:
        return ()
    whole = clean_guidance(context.guidance, context.task, limit=None)
    if whole == guidance:
        return ()
    return (
        f"the question has {len(whole)} characters; the describer reads the first {len(guidance)}",
    )
