"""A message of VLMEvalKit's as a question about images, and the same message with other images.

A message is a list of parts, ``{"type": "text" | "image" | "video", "value": …}``. An image's value
is a path, so that views are written into a folder for as long as they are asked about.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL.Image import Image

from hb_tta.context import MultimodalContext
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.integrations.questions import VARIATIONS

Message = list[dict[str, Any]]


class Files:
    """Where images are written, so that a model can be given their paths."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def path(self, image: Image) -> str:
        """A new file with the image's own pixels."""
        self._count += 1
        path = self._folder / f"{self._count}.png"
        image.save(path, compress_level=1)
        return str(path)


@contextmanager
def files() -> Iterator[Files]:
    """A folder that goes away with what is in it."""
    with TemporaryDirectory(prefix="hb-tta-") as folder:
        yield Files(Path(folder))


@dataclass(eq=False)
class Question:
    """A message and what it shows.

    Attributes:
        message: VLMEvalKit's.
        index: of the data set's row.
        files: where others' pictures for it go.
        answer: what the model says in the end; None: nothing yet.
    """

    message: Message
    index: Any
    files: Files | None = None
    answer: str | None = None

    @cached_property
    def shown(self) -> list[Image]:
        """The images it shows, in the order of its prompt."""
        return [load_image(part["value"]) for part in self.message if part["type"] == "image"]

    @property
    def has_images(self) -> bool:
        return any(part["type"] == "image" for part in self.message)

    @property
    def guidance(self) -> str:
        """The text of the prompt, which the augmenter takes the question from."""
        return "\n".join(part["value"] for part in self.message if part["type"] == "text")

    @property
    def contexts(self) -> list[MultimodalContext]:
        """What is to be augmented: one context an image."""
        return [MultimodalContext(image, self.guidance) for image in self.shown]

    @property
    def words(self) -> str:
        """The prompt as the model reads it.

        Raises:
            UserError: it is in several parts, as between pictures, or there is none.
        """
        texts = [part["value"] for part in self.message if part["type"] == "text"]
        if len(texts) != 1:
            raise UserError(
                f"a prompt of {len(texts)} text parts cannot be put in other words: leave out "
                "paraphrases and combine=describe"
            )
        return texts[0]

    def copy(self, others: Sequence[Image] | None = None, words: str | None = None) -> Message:
        """See ``hb_tta.integrations.rows.Question``."""
        message = copy.deepcopy(self.message)
        if others is not None and not others:
            message = [part for part in message if part["type"] != "image"]
        elif others is not None:
            assert self.files is not None
            paths = map(self.files.path, others)
            for part in message:
                if part["type"] == "image":
                    part["value"] = next(paths)
        if words is not None:
            for part in message:
                if part["type"] == "text":
                    part["value"] = words
        return message

    def beside(self, others: Sequence[Image]) -> Message:
        """See ``hb_tta.integrations.rows.Question``."""
        assert self.files is not None
        message = copy.deepcopy(self.message)
        behind = 1 + max(n for n, part in enumerate(message) if part["type"] == "image")
        more = [{"type": "image", "value": path} for path in map(self.files.path, others)]
        return [*message[:behind], {"type": "text", "value": VARIATIONS}, *more, *message[behind:]]

    def forget(self) -> None:
        """Let go of the images, which can be read again."""
        self.__dict__.pop("shown", None)


def key_of(message: Any) -> str:
    """Tells a message from others: the same words and pictures have the same answer."""
    return json.dumps(message, sort_keys=True, default=str)
