"""From contexts to the keys of their views: all that can be known before any model is loaded.

A key is a hash over everything that decides the entry, and nothing else. A description is decided
by pixels, question and describer; a view by pixels, description and generator: questions that lead
to one description share its views. So planning has two phases, descriptions first. A score is
decided by a view (or the real image's pixels), a text and the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from hb_tta.context import DescribedContext
from hb_tta.describe.drafts import Drafting
from hb_tta.describe.templates import GUIDANCE_LIMIT, as_prompt, clean_guidance
from hb_tta.errors import UserError
from hb_tta.images import KnownImage, PixelDigests, load_image, pixel_digest
from hb_tta.store import content_key

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.views.models import Models

FORMAT = 2
"""Counts the changes of what a key or an entry means."""

FIRST_WINDOW, LARGEST_WINDOW = 16, 4096  # contexts

T = TypeVar("T")


def description_key(pixels: str, guidance: str, task: str, describer: dict[str, Any]) -> str:
    """The key of a description in the store's namespace "descriptions".

    Args:
        pixels: the image's ``pixel_digest``.
        guidance: as ``clean_guidance`` gives it.
        describer: ``DescriberSpec.to_json()``.
    """
    return content_key(
        {
            "entry": "description",
            "format": FORMAT,
            "pixels": pixels,
            "guidance": guidance,
            "task": task,
            "describer": describer,
        }
    )


def view_key(pixels: str, description: str | None, generator: dict[str, Any], seed: int) -> str:
    """The key of a view in the store's namespace "views".

    Args:
        pixels: the image's ``pixel_digest``.
        description: as the generator is told it; None where the method needs none. What its text
            encoders' window leaves of it follows from it and the generator's weights.
        generator: ``GeneratorSpec.to_json()``.
    """
    return content_key(
        {
            "entry": "view",
            "format": FORMAT,
            "pixels": pixels,
            "description": description,
            "generator": generator,
            "seed": seed,
        }
    )


def prompt_key(prompt: list[dict[str, str]], generator: dict[str, Any], seed: int) -> str:
    """The key of an image of a prompt in the store's namespace "views".

    Args:
        prompt: ``Prompt.to_json()``.
        generator: ``PromptSpec.to_json()``.
    """
    return content_key(
        {
            "entry": "view",
            "format": FORMAT,
            "prompt": prompt,
            "generator": generator,
            "seed": seed,
        }
    )


def boxes_key(pixels: str, description: str, finder: dict[str, Any]) -> str:
    """The key of a description's boxes in the store's namespace "boxes".

    Args:
        pixels: the image's ``pixel_digest``.
        description: as the generator takes it: boxes are of its characters.
        finder: ``FinderSpec.to_json()``.
    """
    return content_key(
        {
            "entry": "boxes",
            "format": FORMAT,
            "pixels": pixels,
            "description": description,
            "finder": finder,
        }
    )


def score_key(
    text: str, judge: dict[str, Any], *, view: str | None = None, pixels: str | None = None
) -> str:
    """The key of a score in the store's namespace "scores".

    Args:
        text: what the image was judged by.
        judge: ``JudgeSpec.to_json()``.
        view: the key of the view that was judged.
        pixels: of a real image, in place of ``view``: its ``pixel_digest``.
    """
    assert (view is None) != (pixels is None), "a view or a real image"
    return content_key(
        {
            "entry": "score",
            "format": FORMAT,
            "view": view,
            "pixels": pixels,
            "text": text,
            "judge": judge,
        }
    )


@dataclass(frozen=True, eq=False)
class PlannedContext:
    """One context of a call, and where its description is kept.

    Attributes:
        source: the image as it was given: a path is read again when it is needed, so that a call
            with many contexts does not hold them all.
        digest: of the image's pixels.
        guidance, task, description: what the models see; a description that is None is to be
            written, or the method needs none.
        description_keys: of the drafts of the description to be written, in order; none where
            there is none to write.
        warnings: what the caller should know.
        number: of the context in its call.
    """

    source: Any
    digest: str
    guidance: str
    task: str
    description: str | None
    description_keys: tuple[str, ...]
    warnings: tuple[str, ...]
    number: int

    def context(self, description: str | None) -> DescribedContext:
        """The context with its pixels, for a model."""
        return DescribedContext(self.image(), description, self.guidance, self.task)

    def statement(self, description: str) -> str:
        """What a view has to show, for a judge.

        That is its description; but an interaction whose action is told, as a few-shot support's
        is, has to be seen whatever the describer made of it.
        """
        parts = [part.strip() for part in self.guidance.split("|")]
        if self.task == "hoi" and len(parts) == 3 and all(parts):
            return " ".join(parts)
        return description

    def image(self) -> Image:
        """The reference image, RGB.

        Raises:
            UserError: its file has changed since its key was made.
        """
        image = load_image(self.source)
        if pixel_digest(image) != self.digest:
            source = self.source.path if isinstance(self.source, KnownImage) else self.source
            raise UserError(f"the image {source!r} changed while it was in work: start again")
        return image


@dataclass(frozen=True, eq=False)
class PlannedViews:
    """The candidates of a context whose description is known, and where they are kept.

    Attributes:
        context: the context.
        description: what the generator is told; None where the method needs none.
        seeds, keys: one a candidate, in the order of their numbers.
        doubtful: words of the description that most of its other drafts do not have.
    """

    context: PlannedContext
    description: str | None
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    doubtful: tuple[str, ...] = ()


class Planner:
    """Finds the keys of contexts. Loads no model.

    Args:
        models: their specs' JSON goes into the keys.
        needs_description, tells_guidance: whether the method does.
        digests: of the images.
        drafting: how many drafts a description has.
        by_context: whether a context's seeds follow from what it is (``seeds_of``).
    """

    def __init__(
        self,
        models: Models,
        *,
        needs_description: bool,
        tells_guidance: bool = False,
        digests: PixelDigests,
        drafting: Drafting = Drafting(),  # noqa: B008  frozen
        by_context: bool = False,
    ) -> None:
        self._models, self._digests = models, digests
        self._needs_description, self._tells_guidance = needs_description, tells_guidance
        self._drafting, self._by_context = drafting, by_context

    def context(
        self, context: DescribedContext, number: int, digest: str | None = None
    ) -> PlannedContext:
        """The first phase.

        What a method has no use for is not handed to it either: one that needs no description
        sees neither guidance nor task. To one that is told the guidance that is the description.

        Args:
            context: its image is whatever ``load_image`` takes.
            number: of the context in its call.
            digest: of its image, where it is known.

        Raises:
            UserError: the image cannot be read, a description is missing and nobody can write it,
                or the describer's weights are missing.
        """
        if context.boxes is not None:
            raise UserError(
                f"context {number} comes with boxes, which an augmenter finds itself: leave them "
                "out, or give them to the generator"
            )
        digest = digest or self._digests.of(context.image)
        if not self._needs_description:
            context = DescribedContext(context.image, self._told(context))
        guidance = clean_guidance(context.guidance, context.task)
        keys: tuple[str, ...] = ()
        if self._needs_description and context.description is None:
            writer = self._describer(number)
            keys = tuple(
                description_key(digest, guidance, context.task, {**writer, **how})
                for how in map(self._drafting.of, range(self._drafting.count))
            )
        return PlannedContext(
            source=context.image,
            digest=digest,
            guidance=guidance,
            task=context.task,
            description=context.description,
            description_keys=keys,
            warnings=_guidance_warnings(context, guidance) if keys else (),
            number=number,
        )

    def views(
        self,
        context: PlannedContext,
        description: str | None,
        seeds: Sequence[int],
        doubtful: tuple[str, ...] = (),
    ) -> PlannedViews:
        """The second phase, when the description is written."""
        generator = self._models.generator_json
        if self._by_context:
            seeds = seeds_of(context.digest, description, seeds)
        keys = (view_key(context.digest, description, generator, seed) for seed in seeds)
        return PlannedViews(context, description, tuple(seeds), tuple(keys), doubtful)

    def _told(self, context: DescribedContext) -> str | None:
        """What a method is told that needs no description: a text where it is told the guidance."""
        if not self._tells_guidance or context.description is not None:
            return context.description if self._tells_guidance else None
        return as_prompt(context.guidance, context.task)

    def _describer(self, number: int) -> dict[str, Any]:
        describer = self._models.describer_json
        if describer is None:
            raise UserError(
                f"context {number} has no description and there is no describer to write it: "
                "give a DescribedContext with one, or name a describer"
            )
        return describer


def seeds_of(pixels: str, description: str | None, seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds of a context's own: 64 bits that pixels and description decide are added to each.

    With the same seeds for all contexts, what chance does to one view it does to all: an interval
    over images does not see it.
    """
    own = content_key({"entry": "seed", "pixels": pixels, "description": description})
    return tuple((seed + int(own[:16], 16)) % 2**64 for seed in seeds)


def windows(items: Iterable[T]) -> Iterator[list[T]]:
    """Growing parts of many things that are planned and made together.

    The first is small, so that the first views are there soon; the later ones are large, so that
    models that take turns on a device are seldom loaded, and never so large that memory grows.
    """
    rest, size = iter(items), FIRST_WINDOW
    while window := list(islice(rest, size)):
        yield window
        size = min(2 * size, LARGEST_WINDOW)


def _guidance_warnings(context: DescribedContext, guidance: str) -> tuple[str, ...]:
    if len(context.guidance) <= GUIDANCE_LIMIT or not guidance:
        return ()
    whole = clean_guidance(context.guidance, context.task, limit=None)
    if whole == guidance:
        return ()
    return (
        f"the question has {len(whole)} characters; the describer reads the first {len(guidance)}",
    )
