"""Several drafts of a description, and the one that is told. Texts alone; imports no torch.

An MLLM that is unsure of something says it now so, now otherwise. Of several drafts, the first as
it is always written, the others of jittered copies of the image or with words drawn at random, the
medoid is told: the one that is nearest to all others, or that a judge finds most true of the image.
What most of the others do not say is flagged, or left out, for a generator draws what it is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from hb_tta.errors import UserError

JITTERED, SAMPLED = KINDS = ("jittered", "sampled")
TEXT, SCORE = CHOICES = ("text", "score")
FLAG, LEAVE_OUT = DOUBTS = ("flag", "leave_out")
TEMPERATURE = 1.0  # of words drawn at random: the model's own probabilities
MOST = 64

_SPELLED = f"COUNT, or COUNT+{'|'.join(KINDS)}+{'|'.join(CHOICES)}+{'|'.join(DOUBTS)}"


@dataclass(frozen=True)
class Drafting:
    """How many drafts of a description there are, and what is made of them.

    Attributes:
        count: drafts, at least 1; the first is what is written without drafting.
        kind: how the others come about: "jittered" copies of the image, or "sampled" words.
        by: the medoid by "text" distance, or the best by a judge's "score" of the real image.
        doubt: "flag" words that most of the others do not have, or "leave_out" those.
    """

    count: int = 1
    kind: str = JITTERED
    by: str = TEXT
    doubt: str = FLAG

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise UserError(f"drafts={self.count} is out of range: use 1 to {MOST}")
        for value, known in ((self.kind, KINDS), (self.by, CHOICES), (self.doubt, DOUBTS)):
            if value not in known:
                raise UserError(f"drafts: {value!r} is not known, choose from {', '.join(known)}")

    @classmethod
    def parse(cls, value: Any) -> Drafting:
        """From a number, or a text such as "5" and "5+sampled+leave_out".

        Raises:
            ValueError: it is none; the message is a sentence whose subject is the value.
        """
        if isinstance(value, Drafting):
            return value
        first, *words = str(value).strip().split("+")
        fields = {w: n for n, known in zip(_FIELDS, _KNOWN, strict=True) for w in known}
        named = {fields.get(word, ""): word for word in words}
        right = first.isascii() and first.isdigit() and 1 <= int(first) <= MOST
        if isinstance(value, bool) or not right or "" in named or len(named) < len(words):
            raise ValueError(f"is no number of drafts: give {_SPELLED}, up to {MOST}")
        return cls(int(first), **named)

    def __str__(self) -> str:
        usual = Drafting(self.count)
        said = [v for n in _FIELDS if (v := getattr(self, n)) != getattr(usual, n)]
        return "+".join([str(self.count), *said])

    def of(self, number: int) -> dict[str, Any]:
        """What a draft's key says of it beside the describer; nothing of the first."""
        if number == 0:
            return {}
        how = {"temperature": TEMPERATURE} if self.kind == SAMPLED else {}
        return {"draft": {"kind": self.kind, "number": number, **how}}


_FIELDS, _KNOWN = ("kind", "by", "doubt"), (KINDS, CHOICES, DOUBTS)


class Settled(NamedTuple):
    """What is told of several drafts, and the words of it that most others do not have."""

    text: str
    doubtful: tuple[str, ...]


def settle(
    drafts: Sequence[str], *, doubt: str = FLAG, scores: Sequence[float] | None = None
) -> Settled:
    """The draft that is told.

    Args:
        drafts: at least one.
        doubt: see ``Drafting``.
        scores: of each as a description of the image; ``None``: the text distance decides.
    """
    ranks = distances(drafts) if scores is None else [-score for score in scores]
    best = min(range(len(drafts)), key=lambda place: (ranks[place], place))
    others = [text for place, text in enumerate(drafts) if place != best]
    words = _WORD.findall(drafts[best])
    doubted = _doubted(words, others)
    told = [word for word, is_doubted in zip(words, doubted, strict=True) if is_doubted]
    text = _without(drafts[best], doubted) if doubt == LEAVE_OUT else drafts[best]
    return Settled(text, tuple(dict.fromkeys(_bare(word) for word in told)))


def distances(texts: Sequence[str]) -> list[float]:
    """The mean distance of each text from the others, 0 (equal) to 1 (nothing in common).

    Of two texts: what part of their words and pairs of neighbouring words they do not share.
    """
    counted = [_shingles(text) for text in texts]
    return [
        sum(_distance(one, other) for other in counted) / max(1, len(counted) - 1)
        for one in counted
    ]


_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    words = [_bare(word).casefold() for word in _WORD.findall(text)]
    return Counter([(word,) for word in words] + list(zip(words, words[1:], strict=False)))


def _distance(a: Counter[tuple[str, ...]], b: Counter[tuple[str, ...]]) -> float:
    total = a.total() + b.total()
    return 1 - 2 * (a & b).total() / total if total else 0.0


def _doubted(words: Sequence[str], others: Sequence[str]) -> list[bool]:
    """Of each word of a text, whether less than half of the other texts have it in its place."""
    found = [0] * len(words)
    own = [_stem(word) for word in words]
    for other in others:
        theirs = [_stem(word) for word in _WORD.findall(other)]
        for block in SequenceMatcher(None, own, theirs, autojunk=False).get_matching_blocks():
            for place in range(block.a, block.a + block.size):
                found[place] += 1
    return [2 * count < len(others) for count in found]


def _without(text: str, doubted: Sequence[bool]) -> str:
    """The text without doubted words, and without sentences that are mostly doubted."""
    left, place = [], 0
    for sentence in _SENTENCE.findall(text):
        words = _WORD.findall(sentence)
        own = doubted[place : place + len(words)]
        place += len(words)
        if 2 * sum(own) <= len(words):
            left += [word for word, doubt in zip(words, own, strict=True) if not doubt]
    return " ".join(left) or text


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'“”()")


def _stem(word: str) -> str:
    """A word by which "square" and "squares", "cross" and "crosses" are the same."""
    bare = _bare(word).casefold()
    return bare.rstrip("es") or bare
