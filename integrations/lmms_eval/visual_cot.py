"""lmms-eval's generate-then-answer tasks (``generate_visual_cot``), single round, for any backend.

Such a task's prompt says what is to be drawn of the image, and what is asked about the image and
the drawing:

    [GEN_PROMPT]Draw …[/GEN_PROMPT][QUESTION]In addition to the image …[/QUESTION]

Upstream four models do both. Here the generator of ``--augment`` is told the first part in place of
a description, and the store keeps what it draws; any backend answers the second. Each of the n
drawings stands beside the image in a row of its own, and the rows are combined as views are: with
n=1 that is what upstream's models do.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, NamedTuple

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.requests import Question
from hb_tta.integrations.questions import with_prompt
from hb_tta.integrations.rows import Evidence
from hb_tta.settings.augmented import DESCRIBE, AugmentSettings, Combining
from hb_tta.tta.combine import CONTRAST

REQUEST = "generate_visual_cot"
_GEN_PROMPT = re.compile(r"\[GEN_PROMPT\](.*?)\[/GEN_PROMPT\]", re.DOTALL)
_QUESTION = re.compile(r"\[QUESTION\](.*?)\[/QUESTION\]", re.DOTALL)
_UNTOLD = (  # bagel_unig2u's, for a prompt without these marks
    "Generate a detailed visual diagram or illustration to help answer this question: {question}"
)


class Told(NamedTuple):
    """What a prompt says is to be drawn, and what is asked."""

    drawing: str
    question: str


def read_prompt(text: str) -> Told:
    """The two parts of a prompt, as upstream's models read them."""
    drawing, question = _GEN_PROMPT.search(text), _QUESTION.search(text)
    if drawing and question:
        asked = question[1].strip()
        return Told(drawing[1].strip().replace("{question}", asked), asked)
    return Told(_UNTOLD.replace("{question}", text), text)


@dataclass
class Aided(Question):
    """A request of such a task: what is left to be asked when the drawing is there.

    Attributes:
        drawing: what the generator is told.
    """

    drawing: str = ""

    @classmethod
    def read(cls, request: Any, simple: bool, task_dict: Mapping[str, Any]) -> Aided:
        """See ``Question``."""
        told = read_prompt(str(request.args[0]))
        question = super().read(_asking(request, simple, told.question), simple, task_dict)
        question.drawing = told.drawing  # type: ignore[attr-defined]
        return question  # type: ignore[return-value]

    @property
    def contexts(self) -> list[Any]:
        """What is to be drawn: one context an image, its description the task's own words."""
        return [DescribedContext(image, self.drawing, self.guidance) for image in self.shown]


class Drawn(Evidence):
    """The image and one drawing a row; without a drawing the image alone."""

    starts_with_real: ClassVar[bool] = False

    def requests(self, combining: Combining) -> list[Any]:
        """See ``Evidence``."""
        most = max((len(its.views) for its in self.made), default=0)
        rows = [
            [its.views[k] for its in self.made if k < len(its.views)]  # of each image its k-th
            for k in range(most)
        ]
        question = self.question
        return [question.beside(row, told=False) for row in rows] or [question.copy()]

    def together(self) -> list[Any]:
        """See ``Evidence``."""
        question = self.question
        views = [view for its in self.made for view in its.views]
        return [question.beside(views, told=False) if views else question.copy()]


def check(settings: AugmentSettings) -> None:
    """Raises UserError where the settings have no meaning for these tasks."""
    combining = settings.combining
    wrong = {
        f"combine={combining.combine}": combining.combine in (CONTRAST, DESCRIBE),
        f"paraphrases={combining.paraphrases}": combining.paraphrases > 0,
        f"real_weight={combining.real_weight}": combining.real_weight != 1,
        "n=0": settings.n == 0,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(
                f"{name} has no meaning for generate-then-answer tasks, which show the image and "
                "what was drawn of it together: leave it out"
            )


def let_chat_backends_in() -> None:
    """From now on these tasks have requests for "chat" backends, which upstream asserts away.

    They have the shape of their other requests: (prompt, doc_to_messages, settings, …).
    """
    from lmms_eval.api.task import ConfigurableMessagesTask

    stock = ConfigurableMessagesTask.construct_requests
    if hasattr(stock, "hb_stock"):
        return

    @wraps(stock)
    def construct_requests(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.OUTPUT_TYPE != REQUEST:
            return stock(self, *args, **kwargs)
        self.OUTPUT_TYPE = "generate_until"
        try:
            request = stock(self, *args, **kwargs)
        finally:
            self.OUTPUT_TYPE = REQUEST
        request.request_type = REQUEST
        return request

    construct_requests.hb_stock = stock  # type: ignore[attr-defined]
    ConfigurableMessagesTask.construct_requests = construct_requests


def _asking(request: Any, simple: bool, question: str) -> Any:
    """The request that asks the second part alone, as of any other task."""
    arguments = [
        {name: value for name, value in argument.items() if name != "visual_cot"}
        if isinstance(argument, dict)
        else argument
        for argument in request.args
    ]
    arguments[0] = question
    if not simple:
        messages: Any = arguments[1]
        arguments[1] = lambda *args, **more: with_prompt(
            messages(*args, **more), lambda _: question
        )
    asking = copy.copy(request)
    asking.request_type, asking.arguments = "generate_until", tuple(arguments)
    return asking
