"""Rewordings of a question by rules: the same asked in other words, how to answer kept.

What a model says should not hang on the wording. The rules are for English questions; those that
only put words in front of a question hold for any language, so that each has at least ``MOST``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from hb_tta.describe.templates import question_and_format
from hb_tta.errors import UserError

MOST = 4
"""Rewordings that every question has."""

_MARKS = re.compile(r"^\s*(?:<\s*image(?:[ _-]?\d+)?\s*>\s*)+", re.IGNORECASE)
# What may follow "In this image," in small letters: English questions begin so.
_ASKING = re.compile(
    r"(?:is|are|was|were|does|do|did|can|could|has|have|will|would|should"
    r"|what|which|who|whose|where|when|why|how)\b",
    re.IGNORECASE,
)
_IN_THIS_IMAGE = re.compile(r"\bin (?:this|the) (?:image|picture|photo)\b", re.IGNORECASE)


def _rule(pattern: str, replacement: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern, re.IGNORECASE)

    def reword(question: str) -> str | None:
        changed, found = compiled.subn(replacement, question, count=1)
        return changed[0].upper() + changed[1:] if found else None

    return reword


def _in_this_image(question: str) -> str | None:
    if not _ASKING.match(question) or _IN_THIS_IMAGE.search(question):
        return None
    return f"In this image, {question[0].lower()}{question[1:]}"


# In this order; a question of another form, or another language, has the last ones.
_RULES: tuple[Callable[[str], str | None], ...] = (
    _rule(r"^(?:is|are) there\b", "can you see"),
    _rule(r"^how many (.+?) are there\b", r"what is the number of \1"),
    _rule(r"^what colou?r (?:is|are) ([^?\n]+)", r"what is the color of \1"),
    _in_this_image,
    lambda question: f"Look at the image. {question}",
    lambda question: f"Question: {question}",
    lambda question: f"Here is a question about the image. {question}",
    lambda question: f"Look closely, then answer. {question}",
)


def reworded(prompt: str, k: int) -> list[str]:
    """``k`` other wordings of a prompt.

    Args:
        prompt: a question, with what says how to answer it if there is to be something. Image marks
            before it stay before it; the answer's format, and options, stay as they are.
        k: 0 to ``MOST``.

    Raises:
        UserError: ``k`` is out of range.
    """
    check_rewordings(k)
    marks = _MARKS.match(prompt)
    head = marks[0] if marks else ""
    question, form = question_and_format(prompt[len(head) :])
    lead = question[: len(question) - len(question.lstrip())]
    found = dict.fromkeys(lead + text for text in _wordings(question.strip()))
    return [f"{head}{text}{form}" for text in found if text.strip() != question.strip()][:k]


def check_rewordings(k: int) -> None:
    """Raises UserError for a number of rewordings that not every question has."""
    if not 0 <= k <= MOST:
        raise UserError(f"paraphrases={k} is out of range: use 0 to {MOST}")


def _wordings(question: str) -> Iterator[str]:
    for rule in _RULES:
        changed = rule(question) if question else None
        if changed is not None:
            yield changed
