"""The story of one question after the other, on one page: what goes in, what is made of it, what
comes out.

Data in, a string out, as in contact_sheet.py; the page is that of document.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hb_tta.report.contact_sheet import DOUBT, data_uri
from hb_tta.report.document import document, visible

if TYPE_CHECKING:
    from PIL.Image import Image

_JUDGED = "Of a view only the asked fact is judged: it may change whatever else it likes."
_MARKS = {True: "✓", False: "✗"}
_VERDICTS = {
    (True, True): ("right", "right alone, right with the views"),
    (True, False): ("broken", "broken: right alone, wrong with the views"),
    (False, True): ("fixed", "fixed: wrong alone, right with the views"),
    (False, False): ("wrong", "wrong alone, wrong with the views"),
}


@dataclass(frozen=True)
class Said:
    """What the model says at the sight of one image, or of several together.

    Attributes:
        answer: its words.
        right: whether that is the right answer.
        sure: the share of this answer among yes and no, in [0, 1]; None where it is not known.
    """

    answer: str
    right: bool
    sure: float | None = None


@dataclass(frozen=True)
class Drawn:
    """A generated image.

    Attributes:
        image: RGB.
        seed: that it was drawn with.
        keeps: whether the right answer is right of it, too, in an outsider's judgement; None where
            nobody can tell.
        said: what the model says to it alone; None where its words cannot be told apart.
    """

    image: Image
    seed: int
    keeps: bool | None
    said: Said | None


@dataclass(frozen=True)
class Attempt:
    """What one method made of a question.

    Attributes:
        method: its name.
        description: what it was told to keep; None for a method that is told nothing.
        drawn: its images.
        together: what the model says to the picture and all of them.
    """

    method: str
    description: str | None
    drawn: Sequence[Drawn]
    together: Said


@dataclass(frozen=True)
class Story:
    """A question, from the picture to the answer.

    Attributes:
        image: RGB, what is asked about.
        question: without an instruction on how to answer.
        target: the right answer.
        kind: of the question.
        alone: what the model says to the picture itself.
        attempts: one a method.
    """

    image: Image
    question: str
    target: str
    kind: str
    alone: Said
    attempts: Sequence[Attempt]


@dataclass(frozen=True)
class Frame:
    """What stands around the stories.

    Attributes:
        title, lead: above them.
        notes: paragraphs above them: how they were chosen, what they are worth.
        words: what a reader of the page may not know, and what it means.
        colours: names of colours on the page → red, green, blue in [0, 255].
        next: what to type next → what it does.
    """

    title: str
    lead: str
    notes: Sequence[str]
    words: Mapping[str, str]
    colours: Mapping[str, tuple[int, int, int]]
    next: Mapping[str, str]


def render(stories: Sequence[Story], frame: Frame) -> str:
    """The page: UTF-8 HTML that needs no other file and no network."""
    said = (*tally(stories), *frame.notes, *([f"{DOUBT} {_JUDGED}"] if _described(stories) else []))
    notes = "".join(f"<p>{visible(note)}</p>" for note in said)
    told = "\n".join(_story(number, story) for number, story in enumerate(stories, 1))
    body = (
        f'<div class="tale"><div class="tally">{notes}</div>\n{told}\n'
        f"<section>{_words(frame)}</section>\n<section>{_next(frame.next)}</section></div>"
    )
    return document(frame.title, body, lead=frame.lead)


def tally(stories: Sequence[Story]) -> list[str]:
    """A sentence a method: how many answers are right, alone and with its views."""
    total, alone = len(stories), sum(story.alone.right for story in stories)
    sentences = []
    for place, method in enumerate(_methods(stories)):
        ends = [(s.alone.right, s.attempts[place].together.right) for s in stories]
        after = sum(right for _, right in ends)
        sentences.append(
            f"Right answers: {alone} of {total} alone, {after} of {total} with the views of "
            f"{method} ({ends.count((False, True))} fixed, {ends.count((True, False))} broken)."
        )
    return sentences


def _described(stories: Sequence[Story]) -> bool:
    return any(attempt.description is not None for s in stories for attempt in s.attempts)


def _methods(stories: Sequence[Story]) -> list[str]:
    return [attempt.method for attempt in stories[0].attempts] if stories else []


# ── One question ─────────────────────────────────────────────────────────────────────────────────


def _story(number: int, story: Story) -> str:
    attempts = "".join(_attempt(story, attempt) for attempt in story.attempts)
    return (
        f'<section class="story"><h2><small>{number} · {visible(story.kind)}</small>'
        f'<span dir="auto">{visible(story.question)}</span></h2>\n'
        f'<div class="begin"><figure>{_image(story.image, "the picture")}</figure>'
        f"<dl><dt>the right answer</dt><dd>{visible(story.target)}</dd>"
        f"<dt>what the model says to this picture alone</dt><dd>{_said(story.alone)}</dd></dl>"
        f'</div>\n<div class="attempts">{attempts}</div></section>'
    )


def _attempt(story: Story, attempt: Attempt) -> str:
    kind, verdict = _VERDICTS[story.alone.right, attempt.together.right]
    drawn = "".join(map(_drawn, attempt.drawn))
    return (
        f'<div class="attempt"><h3>{visible(attempt.method)}'
        f'<span class="verdict {kind}">{verdict}</span></h3>\n<dl>{_told(attempt)}'
        f"<dt>what was drawn; whether its right answer is still the same; what the model says to "
        f'it</dt><dd><div class="views">{drawn}</div></dd>'
        f"<dt>what the model says to the picture and these together</dt>"
        f"<dd>{_said(attempt.together)}</dd></dl>"
        f'<p class="moral">{visible(" ".join(_moral(story, attempt)))}</p></div>\n'
    )


def _told(attempt: Attempt) -> str:
    if attempt.description is None:
        return ""
    return (
        "<dt>what it wrote down to be kept</dt>"
        f'<dd><q dir="auto">{visible(attempt.description)}</q></dd>'
    )


def _drawn(drawn: Drawn) -> str:
    kept = {
        True: '<span class="right">✓ keeps the answer</span>',
        False: '<span class="wrong">✗ changes the answer</span>',
        None: "<span>cannot be told</span>",
    }[drawn.keeps]
    said = "" if drawn.said is None else f"<span>{_said(drawn.said)}</span>"
    return (
        f"<figure>{_image(drawn.image, f'view, seed {drawn.seed}')}"
        f"<figcaption>{kept}{said}</figcaption></figure>"
    )


def _said(said: Said) -> str:
    kind = "right" if said.right else "wrong"
    sure = "" if said.sure is None else f" {100 * said.sure:.0f} %"
    return f'<b class="{kind}"><bdi>{visible(said.answer)}</bdi> {_MARKS[said.right]}</b>{sure}'


def _moral(story: Story, attempt: Attempt) -> Iterator[str]:
    """What there is to learn, in words: also where it went wrong."""
    count, bad = len(attempt.drawn), sum(drawn.keeps is False for drawn in attempt.drawn)
    if bad:
        yield f"{bad} of {count} views {'have' if bad > 1 else 'has'} another right answer."
    elif all(drawn.keeps for drawn in attempt.drawn):
        yield f"{count} of {count} views have the same right answer."
    before, after = story.alone.right, attempt.together.right
    if before and not after:
        yield "The model had the answer alone and lost it by looking at them."
    elif after and not before:
        yield "The model was wrong, and they put it right."
    elif after:
        yield "The answer was right before, and stays right."
    else:
        yield "The answer was wrong before, and stays wrong."


def _image(image: Image, label: str) -> str:
    return f'<img class="small" src="{data_uri(image)}" alt="{visible(label)}">'


# ── Below the questions ──────────────────────────────────────────────────────────────────────────


def _words(frame: Frame) -> str:
    words = "".join(
        f"<dt>{visible(word)}</dt><dd>{visible(meaning)}</dd>"
        for word, meaning in frame.words.items()
    )
    colours = "".join(
        f'<li><span style="background:rgb{tuple(rgb)}"></span>{visible(name)}</li>'
        for name, rgb in frame.colours.items()
    )
    return f'<h2>Words</h2><dl class="words">{words}</dl><ul class="colours">{colours}</ul>'


def _next(commands: Mapping[str, str]) -> str:
    lines = "".join(
        f"<dt>{visible(meaning)}</dt><dd><code>{visible(command)}</code></dd>"
        for command, meaning in commands.items()
    )
    return f'<h2>What to type next</h2><dl class="next">{lines}</dl>'
