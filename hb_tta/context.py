"""The paper's multimodal context M = {x, g}, before and after it is described (section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.errors import UserError, choose_from

if TYPE_CHECKING:
    from PIL.Image import Image

TASKS = ("vqa", "hoi", "object", "generic")

MOST_VIEWS = 10_000
"""Generated views that one image can be asked for; papers show up to 64."""


@dataclass(frozen=True)
class MultimodalContext:
    """An image and the text that says what matters in it.

    Attributes:
        image: the reference image x, RGB.
        guidance: the text guidance g: a question (``vqa``), "agent | object" (``hoi``), or empty.
        task: one of ``TASKS``; it picks the describer's prompt template.
        ground_truth: the answer or annotation. Set by the trainer alone; nothing that runs at
            evaluation reads it.
    """

    image: Image
    guidance: str = ""
    task: str = "vqa"
    ground_truth: str | None = None


class SeenWord(NamedTuple):
    """A word of a description, and where the image shows it.

    Attributes:
        word: as the description has it.
        start, end: of the word in the description, characters.
        box: left, top, right, bottom, pixels.
        score: of who found it, 0 to 1.
    """

    word: str
    start: int
    end: int
    box: tuple[float, float, float, float]
    score: float


class DescribedContext(NamedTuple):
    """A multimodal context with its context description C: what a generator takes.

    A ``Generator`` takes a plain ``(image, description)`` pair, too; an ``Augmenter``, which is
    also given questions, does not.

    Attributes:
        boxes: the description's words that were found in the image, for a generator that looks at
            them; ``None``: nobody has looked.
    """

    image: Image
    description: str | None = None
    guidance: str = ""
    task: str = "vqa"
    boxes: tuple[SeenWord, ...] | None = None


def evaluation_contexts(contexts: Sequence[Any]) -> list[DescribedContext]:
    """Contexts as evaluation may see them: a type that has no place for a ground truth.

    Args:
        contexts: ``MultimodalContext``s without a ground truth, ``DescribedContext``s (with or
            without a description) or plain (image, description) pairs.

    Raises:
        UserError: one of them is something else, names an unknown task or carries a ground truth.
    """
    return [evaluation_context(context, number) for number, context in enumerate(contexts)]


def evaluation_context(context: Any, number: int, *, pairs: bool = True) -> DescribedContext:
    """One of ``evaluation_contexts``; the number is told where something is wrong with it.

    Args:
        pairs: whether a plain (image, description) pair will do, as it does for a generator, which
            is told descriptions alone; else it is refused.
    """
    if isinstance(context, MultimodalContext):
        if context.ground_truth is not None:
            raise UserError(
                f"context {number} carries its ground truth, which evaluation must not see: "
                "make it without (ground_truth=None)"
            )
        described = DescribedContext(context.image, None, context.guidance, context.task)
    elif isinstance(context, DescribedContext):
        described = context
    elif (
        pairs and isinstance(context, tuple) and 2 <= len(context) <= len(DescribedContext._fields)
    ):
        described = DescribedContext(*context)
    elif isinstance(context, tuple):
        raise UserError(
            f"context {number} is a bare tuple, whose text may be a question or a description: "
            "write MultimodalContext(image, question) or DescribedContext(image, description)"
        )
    else:
        raise UserError(
            f"context {number} is a {type(context).__name__}: give a MultimodalContext(image, "
            "question) or a DescribedContext(image, description)"
        )
    _check_texts(described, number)
    return described


def check_task(task: str) -> None:
    """Raises UserError unless ``task`` is one of ``TASKS``."""
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known{choose_from(task, TASKS)}")


def _check_texts(context: DescribedContext, number: int) -> None:
    check_task(context.task)
    if not isinstance(context.guidance, str):
        raise UserError(f"context {number} has the guidance {context.guidance!r}: give a text")
    if not isinstance(context.description, str | None):
        raise UserError(
            f"context {number} has the description {context.description!r}: give a text or None"
        )
    if context.description and any("\ud800" <= char <= "\udfff" for char in context.description):
        raise UserError(
            f"context {number} has the description {context.description!r}, which is no Unicode "
            "text (a lone surrogate): decode it with the right encoding"
        )
