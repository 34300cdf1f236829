"""The paper's multimodal context M = {x, g}, before and after it is described (section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

TASKS = ("vqa", "hoi", "object", "generic")


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


class DescribedContext(NamedTuple):
    """A multimodal context with its context description C: what a generator takes.

    A plain ``(image, description)`` pair is accepted wherever one of these is.
    """

    image: Image
    description: str | None = None
    guidance: str = ""
    task: str = "vqa"
