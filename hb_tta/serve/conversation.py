"""What was said and shown so far: a client's messages, whatever stands for an image in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.describe import reworded
from hb_tta.errors import UserError
from hb_tta.settings.augmented import CONCAT, DESCRIBE, Combining
from hb_tta.tta.answer import Chat, behind

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.augment import Augmentation

USER = "user"


class Turn(NamedTuple):
    """A message.

    Attributes:
        role: "system", "user" or "assistant".
        parts: its texts, and the places of images among ``Conversation.images``.
    """

    role: str
    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class Conversation:
    """Messages, the last one the user's.

    Attributes:
        turns: in order.
        images: RGB, in order.
    """

    turns: tuple[Turn, ...]
    images: tuple[Image, ...] = ()

    @property
    def question(self) -> str:
        """The words of the last message: what the views are to keep something for."""
        return "\n".join(self._last)

    @property
    def words(self) -> str:
        """The same, where they can be put in other words.

        Raises:
            UserError: they are in several parts, as between images, or there are none.
        """
        if len(self._last) != 1:
            raise UserError(
                f"a prompt of {len(self._last)} text parts cannot be put in other words: leave "
                "out paraphrases and combine=describe"
            )
        return self._last[0]

    @property
    def _last(self) -> list[str]:
        return [part for part in self.turns[-1].parts if isinstance(part, str)]

    def chat(self, row: Row | None = None, show: Callable[[Image], Any] | None = None) -> Chat:
        """The messages as chat templates take them, or OpenAI's endpoints.

        Args:
            row: in place of what was asked itself.
            show: what stands for an image in OpenAI's messages; None: a chat template's message.
        """
        row = Row(None, self.images) if row is None else row
        *before, last = self.turns
        if row.words is not None:
            said = (row.words if isinstance(part, str) else part for part in last.parts)
            last = last._replace(parts=tuple(said))
        turns = (*before, last)
        return [{"role": t.role, "content": list(_parts(t, row, self, show))} for t in turns]


def _parts(
    turn: Turn, row: Row, asked: Conversation, show: Callable[[Image], Any] | None
) -> Iterator[dict[str, Any]]:
    for part in turn.parts:
        if isinstance(part, str):
            yield {"type": "text", "text": part}
        elif row.images:
            behind_it = row.beside if part == len(asked.images) - 1 else ()
            for image in (row.images[part], *behind_it):
                if show is None:
                    yield {"type": "image", "image": image}
                else:
                    yield {"type": "image_url", "image_url": {"url": show(image)}}


class Row(NamedTuple):
    """What is asked beside other rows.

    Attributes:
        view: the number of the view that it shows; None: the real images, or none.
        images: in the places of the conversation's; none at all: it shows none.
        words: in place of its own; None: they stay.
        beside: further images, behind the conversation's last.
    """

    view: int | None
    images: Sequence[Image]
    words: str | None = None
    beside: Sequence[Image] = ()


def rows_of(asked: Conversation, made: Sequence[Augmentation], combining: Combining) -> list[Row]:
    """What is asked together, the real images and the question's own words first.

    As in ``hb_tta.answer``: the images and each view of them, the same with each rewording, then
    the question behind the description without an image. View k shows each image's k-th view, or
    the image itself where it has fewer. With combine=concat one row shows everything.

    Raises:
        UserError: the words cannot be changed.
    """
    if combining.combine == CONCAT:
        return [Row(None, asked.images, beside=[view for its in made for view in its.views])]
    most = max((len(its.views) for its in made), default=0)
    shown = [
        [its.views[k] if k < len(its.views) else image
         for image, its in zip(asked.images, made, strict=True)]
        for k in range(most)
    ]  # fmt: skip
    wordings: list[str | None] = [None]
    if combining.paraphrases:
        wordings += reworded(asked.words, combining.paraphrases)
    pictures = [(None, list(asked.images)), *enumerate(shown)]
    rows = [Row(view, images, words) for words in wordings for view, images in pictures]
    told = " ".join(its.description for its in made if its.description)
    if combining.combine == DESCRIBE and told:
        rows.append(Row(None, (), behind(told, asked.words)))
    return rows
