"""What is asked together for one question: a request a row, the real image and its words first.

the real image, then each view                          with the question
the same                                                with each rewording of it
no picture                                              with the description before the question

With combine=concat there is one row, which shows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from PIL.Image import Image

from hb_tta.describe import reworded
from hb_tta.images import pixel_digest
from hb_tta.settings.augmented import DESCRIBE, Combining
from hb_tta.tta.answer import behind


class Question(Protocol):
    """What a harness asks.

    Attributes:
        shown: the images it shows, in the order of its prompt.
    """

    shown: list[Image]

    @property
    def words(self) -> str:
        """The prompt as the model reads it; UserError where it is in several parts."""
        ...

    def copy(self, others: Sequence[Image] | None = None, words: str | None = None) -> Any:
        """The request, with ``others`` in place of its images, and ``words`` of its prompt.

        Args:
            others: as many as ``shown``; none at all takes the images away; None: leaves them.
            words: in place of ``self.words``.
        """
        ...

    def beside(self, others: Sequence[Image]) -> Any:
        """The request with ``others`` behind its images, and words that say what they are."""
        ...


@dataclass
class Evidence:
    """What was made for a question.

    Attributes:
        question: a ``Question``, of whatever harness.
        made: an ``Augmentation`` for each image that it shows; none where nothing was generated.
        descriptions: of each image, where they are shown to the model.
        starts_with_real: whether the first row shows the real images alone.
    """

    starts_with_real: ClassVar[bool] = True

    question: Any
    made: Sequence[Any] = ()
    descriptions: Sequence[str] = field(default_factory=list)

    def requests(self, combining: Combining) -> list[Any]:
        """The rows.

        Raises:
            UserError: the prompt cannot be put in other words.
        """
        question = self.question
        views = list(shown_together(question.shown, [its.views for its in self.made]))
        rows = [question.copy(), *map(question.copy, views)]
        k = combining.paraphrases
        for words in reworded(question.words, k) if k else ():
            rows += [question.copy(words=words), *(question.copy(v, words) for v in views)]
        told = " ".join(text for text in self.descriptions if text)
        if combining.combine == DESCRIBE and told:
            rows.append(question.copy((), behind(told, question.words)))
        return rows

    def together(self) -> list[Any]:
        """One row alone, which shows every view behind the real images.

        Raises:
            UserError: the prompt has no place for them.
        """
        question = self.question
        views = [view for its in self.made for view in its.views]
        return [question.beside(views) if views else question.copy()]

    def about(self) -> list[dict[str, Any]]:
        """What a record says of each real image and its views; the store has them by their keys."""
        described = list(self.descriptions) + [None] * len(self.question.shown)
        if not self.made:
            return [
                {"pixels": pixel_digest(image), "description": text, "seeds": [], "keys": []}
                for image, text in zip(self.question.shown, described, strict=False)
            ]
        return [
            {"pixels": pixel_digest(image), **about_views(its)}
            for image, its in zip(self.question.shown, self.made, strict=True)
        ]


def about_views(augmentation: Any) -> dict[str, Any]:
    """What a record says of an image's views."""
    return {
        "description": augmentation.description,
        "seeds": augmentation.seeds,
        "keys": augmentation.keys,
        "scores": augmentation.scores,
        "real_score": augmentation.real_score,
        "dropped": [list(candidate) for candidate in augmentation.dropped],
    }


def shown_together(
    real: Sequence[Image], views: Sequence[Sequence[Image]]
) -> Sequence[list[Image]]:
    """The k-th view of a question shows each image's k-th view, or the image where it has fewer."""
    most = max(map(len, views), default=0)
    return [
        [its[k] if k < len(its) else image for image, its in zip(real, views, strict=True)]
        for k in range(most)
    ]
