"""The noun phrases of an English caption, by rule.

No parser: a phrase is a run of words between those that never stand in one (determiners,
prepositions, pronouns, forms of common verbs). The words are lists and endings, so a verb that is
on no list passes for a noun, and an adjective that ends like a verb ends a phrase. A detector finds
nothing for what is no thing, so what is too much costs time; what is cut off costs a crop.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 4  # words of a phrase; of a longer run the last, where the noun is


class Phrase(NamedTuple):
    """A phrase of a caption: ``caption[start:end] == text``."""

    text: str
    start: int
    end: int

    @property
    def noun(self) -> str:
        """Its last word: what it is, the words before it say how it is."""
        return self.text.split()[-1]


_OPENERS = frozenset(
    "a an the this that these those some any each every either neither no my your his her its "
    "our their another other several many few all both one two three four five six seven "
    "eight nine ten eleven twelve dozen hundred thousand".split()
)
_BREAKS = frozenset(
    # prepositions, conjunctions and what joins clauses
    "of in on at by for with without from to into onto over under above below behind beside "
    "besides between among amid around through across along against near inside outside "
    "within beyond upon toward towards during before after while as like off out up down next "
    "and or but nor so yet than then if because although though since until when where which "
    "who whom whose what that apart away together alone left right very quite too also just "
    "only there here not "
    # pronouns
    "i you he she it we they me him them us himself herself itself themselves someone "
    "something everyone everything anyone anything nothing "
    # verbs of captions that no ending tells
    "is are was were be been being am has have had do does did can could may might must shall "
    "should will would sits stands lies lays runs walks holds wears looks rides eats drinks "
    "plays reads sleeps flies jumps shows depicts features contains sit stand lie run walk "
    "hold wear ride eat drink sat stood lay ran held wore rode ate drank slept flew seen made "
    "taken shown set surrounded filled covered lit keep change else".split()
)
# Places and parts of a picture are no things in it.
_NO_THINGS = frozenset(
    "image picture photo photograph view scene background foreground front back top bottom "
    "side middle center centre left right corner edge end kind type sort lot couple pair "
    "group number bit part piece way time day something style touching".split()
)
_NOUNS_IN_ING = frozenset(
    "building painting drawing king ring wing ceiling wedding string spring swing clothing "
    "railing clothing earring evening morning awning thing sibling dumpling duckling being "
    "lightning opening pudding bedding icing frosting topping wiring crossing sling".split()
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[^\w\s]")


def noun_phrases(caption: str) -> list[Phrase]:
    """The phrases of a caption that may be things, in order; one of the same words once.

    Determiners and numbers are left out: "two red circles and the dog" has "red circles" and "dog".
    """
    found: list[Phrase] = []
    words: list[re.Match[str]] = []
    opened = False  # a determiner has just begun a phrase
    for match in _WORD.finditer(caption):
        word = match[0].lower()
        if word in _OPENERS or word.isdigit():
            _close(caption, words, found)
            opened = True
        elif word in _BREAKS or not word[0].isalpha() or _is_verb(word, words, opened):
            _close(caption, words, found)
            opened = False
        else:
            words.append(match)
            opened = False
    _close(caption, words, found)
    return found


def _is_verb(word: str, before: list[re.Match[str]], opened: bool) -> bool:
    """Whether an ending makes it one: behind a noun, or where nothing has begun a phrase."""
    if word.endswith("ing") and len(word) > 4 and word not in _NOUNS_IN_ING:
        return bool(before) or not opened
    return word.endswith("ed") and len(word) > 4 and bool(before)


def _close(caption: str, words: list[re.Match[str]], found: list[Phrase]) -> None:
    """Keeps the run as a phrase, unless it is no thing or is there already."""
    run = words[-LONGEST:]
    words.clear()
    if not run or run[-1][0].lower() in _NO_THINGS:
        return
    start, end = run[0].start(), run[-1].end()
    text = caption[start:end]
    if text.lower() not in {phrase.text.lower() for phrase in found}:
        found.append(Phrase(text, start, end))


# ── Persons ─────────────────────────────────────────────────────────────────────────────────────

_PERSONS = frozenset(
    "person people man men woman women boy boys girl girls child children kid kids baby "
    "babies lady ladies gentleman guy guys adult adults player players rider riders driver "
    "drivers surfer skier skateboarder snowboarder cyclist runner dancer singer musician "
    "soldier officer worker chef doctor nurse teacher student actor actress model bride groom "
    "king queen prince princess warrior knight astronaut cowboy pedestrian couple friend "
    "friends".split()
)


def is_person(phrase: str) -> bool:
    """Whether a phrase names people, by its last word."""
    return phrase.split()[-1].lower() in _PERSONS if phrase.split() else False
