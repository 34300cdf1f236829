"""The gallery of a page: which questions it shows, and what was seen and said of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hb_tta.describe.templates import clean_question
from hb_tta.report import table
from hb_tta.report.album import Album
from hb_tta.report.document import visible
from hb_tta.report.records import Record, Seen
from hb_tta.report.scores import Scored, change_of

_MARKS = {"right": "✓", "fixed": "✓", "wrong": "✗", "broken": "✗"}
_VERDICTS = {"fixed": "right: fixed by augmentation", "broken": "wrong: broken by augmentation"}
_GONE = '<span class="gone">missing</span>'


@dataclass(frozen=True)
class Row:
    """A question with each run's record of it, and what became of it: see ``change_of``."""

    records: list[Record]
    changes: list[str]

    @property
    def changed(self) -> bool:
        """Whether any run went from right to wrong or back."""
        return bool({"fixed", "broken"} & set(self.changes))


def rows_of(scored: Sequence[Scored]) -> list[Row]:
    """Every question, in the order of the first run."""
    by_question = [{record.question: record for record in one.run.records} for one in scored]
    plain = [
        {record.question: record for record in one.plain.records} if one.plain else {}
        for one in scored
    ]
    return [
        Row(
            [records[record.question] for records in by_question],
            [
                change_of(records[record.question], others.get(record.question))
                for records, others in zip(by_question, plain, strict=True)
            ],
        )
        for record in scored[0].run.records
    ]


def chosen(rows: list[Row], most: int) -> list[Row]:
    """At most so many: those that changed before the others, and evenly from all over."""
    if len(rows) <= most:
        return rows
    changed = _evenly([number for number, row in enumerate(rows) if row.changed], most)
    others = [number for number, row in enumerate(rows) if not row.changed]
    numbers = sorted([*changed, *_evenly(others, most - len(changed))])
    return [rows[number] for number in numbers]


def _evenly(numbers: list[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return numbers
    return [numbers[place * len(numbers) // most] for place in range(most)]


class Gallery:
    """Writes questions, and puts their images into an album.

    Attributes:
        album: all images so far.
        missing: run → how many of its images are gone, so far.

    Args:
        scored: the runs.
        album: finds the images.
    """

    def __init__(self, scored: Sequence[Scored], album: Album) -> None:
        self.album = album
        self.missing: Counter[str] = Counter()
        self._scored = scored
        self._names = [table.name_of(one, scored) for one in scored]

    def load(self, rows: Iterable[Row]) -> None:
        """Have the images of these questions ready, made in parallel."""
        self.album.load(
            picture
            for row in rows
            for record in row.records
            for seen in record.seen
            for picture in seen.pictures
        )

    def question(self, row: Row) -> str:
        """A question: one line, and behind it what each run saw and said."""
        first = row.records[0]
        answers = (self._answer(place, row) for place in range(len(self._scored)))
        return (
            f'<details class="question" data-category="{visible(first.category)}" '
            f'data-changes="{" ".join(row.changes)}"><summary>{self._thumbnail(row)}'
            f'<span class="text" dir="auto">{visible(_short(first))}</span>'
            f'<span class="category">{visible(first.category)}</span>'
            f'<span class="verdicts">{self._verdicts(row)}</span></summary>\n'
            f"<dl>{_facts(first)}</dl>{''.join(answers)}</details>"
        )

    def _thumbnail(self, row: Row) -> str:
        real = (p for r in row.records for seen in r.seen[:1] for p in seen.pictures)
        place = self.album.first(real)
        return _image(place, "", "thumbnail") if place is not None else _NO_THUMBNAIL

    def _verdicts(self, row: Row) -> str:
        return "".join(
            f'<span class="verdict {change}" title="{visible(record.answer)}">'
            f"{visible(name)} {_MARKS[change]}</span>"
            for name, record, change in zip(self._names, row.records, row.changes, strict=True)
        )

    def _answer(self, place: int, row: Row) -> str:
        """What one run saw and said."""
        record, change, name = row.records[place], row.changes[place], self._names[place]
        said = (
            f"<h3>{visible(name)} answered <q dir=auto>{visible(record.answer)}</q>, "
            f'<b class="{change}">{_VERDICTS.get(change, change)}</b></h3>'
        )
        if record.description:
            said += f'<p class="description" dir="auto">{visible(record.description)}</p>'
        views = "".join(self._seen(seen, record, name) for seen in record.seen)
        command = self._scored[place].run.command
        if views and record.combined is not None and len(record.seen) > 1:
            bar = _bar(record.combined, record)
            views += f'<figure class="combined"><figcaption>combined{bar}</figcaption></figure>'
        if views:
            said += f'<div class="views">{views}</div>'
        if _GONE in views and command is not None:
            said += f'<p class="again">made again by <code>{visible(command)}</code></p>'
        return f"<section>{said}</section>\n"

    def _seen(self, seen: Seen, record: Record, name: str) -> str:
        places = [self.album.place(picture) for picture in seen.pictures]
        self.missing[name] += places.count(None)
        shown = "".join(_GONE if p is None else _image(p, seen.label) for p in places)
        caption = f"<figcaption>{visible(seen.label)}{_bar(seen, record)}</figcaption>"
        return f"<figure>{shown}{caption}</figure>"


_NO_THUMBNAIL = '<span class="thumbnail"></span>'


def _short(record: Record) -> str:
    """The question without the instruction on how to answer it."""
    return clean_question(record.text, limit=300) or f"question {record.question}"


def _facts(record: Record) -> str:
    facts = {
        "right answer": record.target,
        "prompt": record.text,
        "question": record.question,
        "image": record.group,
    }
    return "".join(f"<dt>{k}</dt><dd dir=auto>{visible(v)}</dd>" for k, v in facts.items() if v)


def _bar(seen: Seen, record: Record) -> str:
    """How much the model says yes at the sight of an image: its share of yes and no."""
    if seen.answer is not None:
        return f"<q dir=auto>{visible(seen.answer)}</q>"
    if seen.yes is None or seen.no is None:
        return ""
    share = share_of_yes(seen.yes, seen.no)
    leans = "yes" if share > 0.5 else "no"
    right = leans == record.target.strip().lower()
    shown = share if leans == "yes" else 1 - share
    logs = f"log p(yes) {seen.yes:.3f}, log p(no) {seen.no:.3f}"
    return (
        f'<span class="bar" style="--yes-share:{share:.4f}" title="{logs}"></span>'
        f'<span class="score {"right" if right else "wrong"}">{leans} {100 * shown:.1f} % '
        f"{_MARKS['right' if right else 'wrong']}</span>"
    )


def share_of_yes(yes: float, no: float) -> float:
    """The probability of yes of yes and no together, from their logarithms."""
    if yes == no:  # also where both are impossible
        return 0.5
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def _image(place: int, label: str, kind: str = "view") -> str:
    """An image that page.js fills in from the album."""
    return f'<img class="{kind}" data-image="{place}" alt="{visible(label)}" loading="lazy">'
