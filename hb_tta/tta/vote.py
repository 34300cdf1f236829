"""A vote among answers in words, where a model gives no logits.

Which answers agree depends on what they answer, which they themselves show:

* a choice: "(B)", "B.", "B: a dog" are the letter B, and "a dog" beside the last one too. A letter
  before different words ("C. difficile", "C. diphtheriae") is no choice;
* yes or no: where one answer is a plain one, "No, it is not" is a no. "No entry" and "no parking"
  are not, of themselves;
* a number: "3", "3.0" and "three";
* else the whole answer, but for case, spaces, a leading article and punctuation at its ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

_PLAIN = re.compile(  # a yes or no that cannot be the beginning of a name or a sign
    r"(yes|no)(?=$|\W*$|\s*[,.;:!\u2013\u2014-]\s|\s+(?:there|it|this|that|these|those|he|she|they|we|i|you)\b)"
)
_LEADING = re.compile(r"(yes|no)\b")
_ANSWER_IS = re.compile(
    r"(?:the\s+)?(?:(?:correct|best|final)\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s+"
)
_LETTER = re.compile(
    r"\(([a-z])\)(?:\s*[.:)-])?(?:\s+(.+))?|([a-z])(?:[.:)](?:\s+(.+))?)?", re.DOTALL
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,300})(?:\.\d{1,300})?")
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
_ENDS = " .,;:!?\"'`*“”‘’「」。、！？"


def vote(answers: Sequence[str], real_weight: float = 1.0) -> int:
    """Which answer to give: the first of those that most votes agree with.

    A tie goes to the side that the real image is on, else to the earlier view.

    Args:
        answers: one a view, the real image's first.
        real_weight: the real image's votes beside one of each other view.
    """
    votes: dict[str, float] = defaultdict(float)
    answered = sides(answers)
    for number, side in enumerate(answered):
        votes[side] += 1.0 if number else real_weight
    most = max(votes.values())
    return next(number for number, side in enumerate(answered) if votes[side] == most)


def sides(answers: Sequence[str]) -> list[str]:
    """What each answer says: equal where they agree."""
    texts = [_text(answer) for answer in answers]
    letters = _choices(texts)
    is_yes_no = any(_PLAIN.match(text) for text in texts)
    return [letters.get(text) or _side(text, is_yes_no) for text in texts]


def _text(answer: str) -> str:
    """The answer without what changes nothing: forms of letters, spaces, "the answer is"."""
    plain = " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    said = _ANSWER_IS.match(plain)
    return plain[said.end() :] if said and said.end() < len(plain) else plain


def _choices(texts: Sequence[str]) -> dict[str, str]:
    """Text → the letter that it chooses, of those that choose one."""
    found: dict[str, tuple[str, str]] = {}
    for text in texts:
        match = _LETTER.fullmatch(text.strip(" *"))
        if match:
            letter, words = (match[1], match[2]) if match[1] else (match[3], match[4])
            found[text] = letter, _whole(words or "")
    named: dict[str, set[str]] = defaultdict(set)
    for letter, words in found.values():
        named[letter] |= {words} - {""}
    if any(len(words) > 1 for words in named.values()):
        return {}
    by_words = {words: letter for letter, one in named.items() for words in one}
    chosen = {text: f"choice {letter}" for text, (letter, _) in found.items()}
    spoken = {text: by_words[_whole(text)] for text in texts if _whole(text) in by_words}
    return {text: f"choice {letter}" for text, letter in spoken.items()} | chosen


def _side(text: str, is_yes_no: bool) -> str:
    leading = _LEADING.match(text)
    if is_yes_no and leading:
        return leading[1]
    whole = _whole(text)
    if whole in _WORDS:
        return str(float(_WORDS.index(whole)))
    return str(float(whole.replace(",", ""))) if _NUMBER.fullmatch(whole) else whole


def _whole(text: str) -> str:
    stripped = text.strip(_ENDS)
    return re.sub(r"^(?:an?|the)\s+(?=\S)", "", stripped) or text
