"""A request of lmms-eval as a question about images, and the same request with other images.

A request names a document and holds a function from the document to the model's input: a list of
images for "simple" backends, chat messages for "chat" ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from hb_tta.context import MultimodalContext
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.integrations.questions import (
    VARIATIONS,
    images,
    with_images,
    with_more,
    with_prompt,
    without_images,
)

# Where a request's arguments have the function that gives its images (lmms_eval/api/task.py), by
# (request type, whether the backend is a simple one).
_VISUALS = {
    ("generate_until", True): 2,
    ("generate_until", False): 1,
    ("loglikelihood", True): 2,
    ("loglikelihood", False): 2,
}

# The same as VARIATIONS where pictures and words are apart.
_FIRST = (
    "The first picture is asked about; the others are variations of it.\n",
    "The first {} pictures are asked about; the others are variations of them.\n",
)


@dataclass
class Question:
    """A request and what it shows.

    Attributes:
        request: lmms-eval's ``Instance``.
        simple: whether the backend is a "simple" one.
        document: the row of the data set; its images are decoded when they are read.
        shown: the images it shows, in the order of its prompt.
    """

    request: Any
    simple: bool
    document: Any
    shown: list[Image] = field(default_factory=list)

    @classmethod
    def read(cls, request: Any, simple: bool, task_dict: Mapping[str, Any]) -> Question:
        """Look at a request once."""
        *_, doc_id, task, split = request.args
        question = cls(request, simple, task_dict[task][split][doc_id])
        visual = request.args[question._place]
        if callable(visual):
            question.shown = [load_image(image) for image in images(visual(question.document))]
        return question

    @property
    def guidance(self) -> str:
        """The text of the prompt, which the augmenter takes the question from.

        Never the target: of a multiple-choice request that is another argument.
        """
        return str(self.request.args[0])

    @property
    def contexts(self) -> list[MultimodalContext]:
        """What is to be augmented: one context an image."""
        return [MultimodalContext(image, self.guidance) for image in self.shown]

    @property
    def key(self) -> tuple[str, Any]:
        """Tells the document from others: the requests of its choices share it."""
        *_, doc_id, task, _ = self.request.args
        return task, doc_id

    @property
    def words(self) -> str:
        """The prompt as the model reads it."""
        if self.simple:
            return self.guidance
        found: list[str] = []
        messages = self.request.args[self._place](self.document)
        with_prompt(messages, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
        return found[0]

    def beside(self, others: Sequence[Image], told: bool = True) -> Any:
        """The request with ``others`` behind its images.

        Args:
            told: whether words of ours say what they are; else the prompt does.

        Raises:
            UserError: the prompt says itself where its images are.
        """
        request = self.copy()
        arguments = list(request.arguments)
        visual: Any = arguments[self._place]
        if not self.simple:
            arguments[self._place] = lambda *args, **more: with_more(
                visual(*args, **more), others, VARIATIONS if told else ""
            )
        elif told and "<image" in self.guidance:
            raise UserError(
                "combine=concat has no place for the views in a prompt that names its images "
                "(<image>): use combine=vote"
            )
        else:
            arguments[self._place] = lambda *args, **more: [*visual(*args, **more), *others]
            if told:
                first = _FIRST[len(self.shown) > 1].format(len(self.shown))
                arguments[0] = first + self.guidance
        request.arguments = tuple(arguments)
        return request

    def copy(self, others: Sequence[Image] | None = None, words: str | None = None) -> Any:
        """The request, with ``others`` in place of its images, and ``words`` of its prompt.

        Backends change the generation settings that they are given, so these are copied.

        Args:
            others: as many as ``shown``; none at all takes the images away; None: leaves them.
            words: in place of ``self.words``.

        Raises:
            UserError: the words are in several parts.
        """
        arguments = [
            copy.deepcopy(argument) if isinstance(argument, dict) else argument
            for argument in self.request.args
        ]
        if others is not None or words is not None:
            visual: Any = arguments[self._place]
            arguments[self._place] = _showing(visual, others, None if self.simple else words)
        if words is not None:
            arguments[0] = words
        request = copy.copy(self.request)
        request.arguments = tuple(arguments)
        request.resps, request.token_counts = [], []
        return request

    @property
    def _place(self) -> int:
        return _VISUALS[self.request.request_type, self.simple]


def with_documents(whole: Mapping[str, Any], questions: Sequence[Question]) -> dict[str, Any]:
    """A model's ``task_dict`` in which the questions' documents are not decoded again."""
    read: dict[tuple[str, str], dict[Any, Any]] = {}
    for question in questions:
        *_, doc_id, task, split = question.request.args
        read.setdefault((task, split), {})[doc_id] = question.document
    found = dict(whole)
    for (task, split), documents in read.items():
        found[task] = {**found[task], split: _Documents(whole[task][split], documents)}
    return found


class _Documents:
    """A split some of whose documents have been read already; all else is the split's own.

    Backends look at more than their documents: mistral3_vl at how many there are.
    """

    def __init__(self, split: Any, documents: Mapping[Any, Any]) -> None:
        self._split, self._documents = split, documents

    def __getitem__(self, place: Any) -> Any:
        is_one = isinstance(place, Hashable) and not isinstance(place, str | slice)
        return self._documents[place] if is_one and place in self._documents else self._split[place]

    def __len__(self) -> int:
        return len(self._split)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._split)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._split, name)


def _showing(
    visual: Callable[..., Any], others: Sequence[Image] | None, words: str | None
) -> Callable[..., Any]:
    def shown(*args: Any, **kwargs: Any) -> Any:
        tree = visual(*args, **kwargs)
        if words is not None:
            tree = with_prompt(tree, lambda _: words)
        if others is None:
            return tree
        return with_images(tree, iter(others)) if others else without_images(tree)

    return shown
