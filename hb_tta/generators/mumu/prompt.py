"""A multimodal prompt: words and pictures in the order of reading. Imports no torch.

The paper's "a <picture of a man> man and his <picture of a dog> dog": a picture stands before the
word that it shows (section 4). Training and use make their prompts here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from hb_tta.errors import UserError, shown
from hb_tta.images import load_image, pixel_digest

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IMAGES = 4
"""Three objects and one picture of the whole (section 5): more were never trained."""

Part: TypeAlias = "str | Image"
Read: TypeAlias = "Callable[[Path], Image]"

_MARK = re.compile(r"\\<|<img:(?P<name>[^>]*)(?P<end>>?)")


@dataclass(frozen=True)
class Prompt:
    """Words and RGB images, as they are read.

    Attributes:
        parts: texts without blanks at their ends and never two in a row, and RGB images;
            ``Prompt.of`` makes them so.

    Raises:
        UserError: there is nothing in it, more than ``MOST_IMAGES`` images, or something else.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("the prompt is empty: give words, an image, or both")
        if len(self.images) > MOST_IMAGES:
            raise UserError(
                f"the prompt has {len(self.images)} images: give at most {MOST_IMAGES}, which is "
                "what MUMU was made for"
            )
        for text in self.texts:
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise UserError(
                    f"the prompt says {shown(text)}, which is no Unicode text (a lone surrogate): "
                    "decode it with the right encoding"
                )

    @classmethod
    def of(cls, given: Prompt | str | Sequence[Any], folder: str | Path = ".") -> Prompt:
        """A prompt of what a person gives.

        Args:
            given: strings and images in order, an image being whatever ``load_image`` takes but a
                string; or one string, which is read as ``parse`` reads it.
            folder: of the files that such a string names.

        Raises:
            UserError: it is none of them, or an image cannot be read.
        """
        if isinstance(given, Prompt):
            return given
        if isinstance(given, str):
            return parse(given, folder)
        if not isinstance(given, list | tuple):
            raise UserError(
                f"a prompt is a list of strings and images, not {shown(given)}: write ['a', image, "
                "'man']"
            )
        parts = [_part(part) for part in given]
        return cls(_tidy([part for part in parts if part != ""], glue=" "))

    @property
    def images(self) -> list[Image]:
        """The pictures in order."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def texts(self) -> list[str]:
        """The words in order."""
        return [part for part in self.parts if isinstance(part, str)]

    def written(self, image: str) -> str:
        """The prompt as one text, with ``image`` in the place of every picture."""
        return " ".join(part if isinstance(part, str) else image for part in self.parts)

    def to_json(self) -> list[dict[str, str]]:
        """The prompt's part of a key: its words, and its pictures by their pixels' digests."""
        return [
            {"text": part} if isinstance(part, str) else {"pixels": pixel_digest(part)}
            for part in self.parts
        ]


def parse(
    text: str,
    folder: str | Path = ".",
    images: Mapping[str, Any] | None = None,
    read: Read = load_image,
) -> Prompt:
    r"""A prompt as it is typed: ``a <img:man.png> man``, with ``\<img:`` for the mere words.

    Args:
        text: the prompt.
        folder: of the files that it names by relative paths.
        images: name → file or image, for prompts that name their pictures; a name that is none of
            them is a file's.
        read: of a file.

    Raises:
        UserError: a file is missing, a mark is not closed, or an image of ``images`` is not used.
    """
    named, parts, place = dict(images or {}), [], 0
    used: set[str] = set()
    for found in _MARK.finditer(text):
        parts.append(text[place : found.start()])
        place = found.end()
        if found["name"] is None:
            parts.append("<")
            continue
        name = found["name"].strip()
        if not found["end"] or not name:
            raise UserError(
                f"the prompt has {shown(found[0])}, which names no image: write <img:FILE>, or "
                r"\<img: for the words themselves"
            )
        used.add(name)
        parts.append(_named(name, named.get(name, name), Path(folder), read))
    parts.append(text[place:])
    if unused := [name for name in named if name not in used]:
        raise UserError(
            f"the prompt does not use the image {shown(unused[0])}: write <img:{unused[0]}> where "
            "it belongs, or leave it out"
        )
    return Prompt(_tidy(parts))


class Boxed(Protocol):
    """A word of a text and where it is seen: what ``hb_tta.detect`` finds."""

    @property
    def start(self) -> int:
        """Of the word, in the text."""
        ...

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, pixels of the image."""
        ...


def with_crops(text: str, image: Image, boxes: Iterable[Boxed]) -> Prompt:
    """A text with crops of an image, each before its word, as in the paper's section 4.

    Args:
        text: a caption or description.
        image: RGB.
        boxes: at most ``MOST_IMAGES``; of those before one word the first stands first.

    Raises:
        UserError: see ``Prompt``.
    """
    parts: list[Part] = []
    place = 0
    for found in sorted(boxes, key=lambda found: found.start):
        parts += [text[place : found.start], crop(image, found.box)]
        place = found.start
    return Prompt(_tidy([*parts, text[place:]]))


def crop(image: Image, box: tuple[float, float, float, float]) -> Image:
    """The pixels that a box touches, at least one."""
    width, height = image.size
    left = min(max(0, math.floor(box[0])), width - 1)
    top = min(max(0, math.floor(box[1])), height - 1)
    right = max(left + 1, min(width, math.ceil(box[2])))
    bottom = max(top + 1, min(height, math.ceil(box[3])))
    return image.crop((left, top, right, bottom))


def _part(part: Any) -> Part:
    return part.strip() if isinstance(part, str) else load_image(part)


def _named(name: str, source: Any, folder: Path, read: Read) -> Image:
    if not isinstance(source, str | os.PathLike):
        return load_image(source)
    try:
        return read(folder / Path(source).expanduser())
    except UserError as error:
        raise UserError(f"<img:{name}>: {error}") from error


def _tidy(parts: Iterable[Part], glue: str = "") -> tuple[Part, ...]:
    """Parts with texts that follow each other joined, and empty ones left out."""
    tidy: list[Part] = []
    for part in parts:
        if isinstance(part, str) and tidy and isinstance(tidy[-1], str):
            tidy[-1] += glue + part
        else:
            tidy.append(part)
    stripped = (part.strip() if isinstance(part, str) else part for part in tidy)
    return tuple(part for part in stripped if part != "")
