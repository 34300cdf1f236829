"""The gallery of a page: which questions it shows, and what was seen and said of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hb_tta.describe.templates import clean_question
from hb_tta.report import options, table
from hb_tta.report.album import Album
from hb_tta.report.cells import figure
from hb_tta.report.document import visible
from hb_tta.report.records import Record, Run, Seen
from hb_tta.report.scores import CHANGES, Scored, change_of

_MARKS = {"right": "✓", "fixed": "✓", "wrong": "✗", "broken": "✗"}
_MARKS |= {"better": "▲", "worse": "▼", "same": ""}
_VERDICTS = {"fixed": "right: fixed by augmentation", "broken": "wrong: broken by augmentation"}
_VERDICTS |= {"same": "", "better": "better with augmentation", "worse": "worse with augmentation"}
_YES_NO = ("yes", "no")
_DIGEST = 64  # characters of what tells images apart that have no name
_GONE = '<span class="gone">missing</span>'


@dataclass(frozen=True)
class Row:
    """A question with each run's record of it, and what became of it: see ``change_of``."""

    records: list[Record]
    changes: list[str]

    @property
    def changed(self) -> bool:
        """Whether any run went from right to wrong or back, from better to worse or back."""
        moved = {word for better, worse, *_ in CHANGES.values() for word in (better, worse)}
        return bool(moved & set(self.changes))


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
                change_of(
                    records[record.question],
                    others.get(record.question),
                    one.run.metric_of(records[record.question]),
                )
                for one, records, others in zip(scored, by_question, plain, strict=True)
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
            for seen in (*record.seen, *record.dropped)
            for picture in seen.pictures
        )

    def question(self, row: Row) -> str:
        """A question: one line, and behind it what each run saw and said."""
        first = row.records[0]
        facts = _facts(first, self._scored[0].run.unit)
        answers = (self._answer(place, row) for place in range(len(self._scored)))
        return (
            f'<details class="question" data-category="{visible(first.category)}" '
            f'data-changes="{" ".join(row.changes)}"><summary>{self._thumbnail(row)}'
            f'<span class="text" dir="auto">{visible(_short(first))}</span>'
            f'<span class="category">{visible(first.category)}</span>'
            f'<span class="verdicts">{self._verdicts(row)}</span></summary>\n'
            f"<dl>{facts}</dl>{options.html(row.records, self._names)}"
            f"{''.join(answers)}</details>"
        )

    def _thumbnail(self, row: Row) -> str:
        real = (p for r in row.records for seen in r.seen[:1] for p in seen.pictures)
        place = self.album.first(real)
        return _image(place, "", "thumbnail") if place is not None else _NO_THUMBNAIL

    def _verdicts(self, row: Row) -> str:
        return "".join(
            f'<span class="verdict {change}" title="{visible(record.answer)}">'
            f"{visible(name)} {_verdict(one.run, record)}{_MARKS[change]}</span>"
            for one, name, record, change in zip(
                self._scored, self._names, row.records, row.changes, strict=True
            )
        )

    def _answer(self, place: int, row: Row) -> str:
        """What one run saw and said."""
        record, change, name = row.records[place], row.changes[place], self._names[place]
        said = (
            f"<h3>{visible(name)} answered <q dir=auto>{visible(record.answer)}</q>"
            f"{', ' if change != 'same' else ''}"
            f'<b class="{change}">{_VERDICTS.get(change, change)}</b></h3>'
        )
        said += _numbers(self._scored[place].run, record)
        if record.description:
            said += f'<p class="description" dir="auto">{visible(record.description)}</p>'
        views = "".join(self._seen(seen, record, name) for seen in record.seen)
        command = self._scored[place].run.command
        if views and record.combined is not None and len(record.seen) > 1:
            bar = _bar(record.combined, record)
            views += f'<figure class="combined"><figcaption>combined{bar}</figcaption></figure>'
        views += "".join(self._seen(seen, record, name, "dropped") for seen in record.dropped)
        said += _gate(record)
        if views:
            said += f'<div class="views">{views}</div>'
        if _GONE in views and command is not None:
            said += f'<p class="again">made again by <code>{visible(command)}</code></p>'
        return f"<section>{said}</section>\n"

    def _seen(self, seen: Seen, record: Record, name: str, kind: str = "") -> str:
        places = [self.album.place(picture) for picture in seen.pictures]
        self.missing[name] += places.count(None)
        shown = "".join(_GONE if p is None else _image(p, seen.label) for p in places)
        judged = "" if seen.score is None else _JUDGED.format(figure(seen.score, "fine"), kind)
        caption = f"<figcaption>{visible(seen.label)} {judged}{_bar(seen, record)}</figcaption>"
        return f'<figure class="{kind}">{shown}{caption}</figure>'


_JUDGED = '<span class="judged" title="the judge\'s score">judge {} {}</span>'
_NO_THUMBNAIL = '<span class="thumbnail"></span>'


def _verdict(run: Run, record: Record) -> str:
    """The number itself, where a mark does not say it."""
    metric = run.metric_of(record)
    value = record.value(metric)
    if value is None or not metric.graded and value in (0, 1):
        return ""
    return f"{figure(value, metric.kind)}{' %' if metric.kind == 'percent' else ''} "


def _numbers(run: Run, record: Record) -> str:
    """What each metric says of an answer; nothing where one alone says right or wrong."""
    found = [(metric, record.value(metric)) for metric in run.metrics]
    told = [
        f"{visible(metric.name)} <b>{value:g}</b>" for metric, value in found if value is not None
    ]
    only_right_or_wrong = len(told) == 1 and not _verdict(run, record)
    return "" if only_right_or_wrong else f'<p class="numbers">{" · ".join(told)}</p>'


def _short(record: Record) -> str:
    """The question without the instruction on how to answer it."""
    return clean_question(record.text, limit=300) or f"question {record.question}"


def _facts(record: Record, unit: str) -> str:
    facts = {
        "right answer": record.target,
        "prompt": record.text,
        "question": record.question,
    }
    if unit != "question" and len(record.group) < _DIGEST:  # one that a person could look for
        facts[unit] = record.group
    return "".join(f"<dt>{k}</dt><dd dir=auto>{visible(v)}</dd>" for k, v in facts.items() if v)


def _bar(seen: Seen, record: Record) -> str:
    """What the model says at the sight of an image, as far as it was kept."""
    if seen.answer is not None:
        return f"<q dir=auto>{visible(seen.answer)}</q>"
    target = record.target.strip().lower().rstrip(".")
    if target not in _YES_NO:
        return _first(seen)
    if seen.yes is None or seen.no is None:
        return ""
    share = share_of_yes(seen.yes, seen.no)
    leans = "yes" if share > 0.5 else "no"
    right = leans == target
    kind = "right" if right else "wrong"
    shown = share if leans == "yes" else 1 - share
    logs = f"log p(yes) {seen.yes:.3f}, log p(no) {seen.no:.3f}"
    return (
        f'<span class="bar {kind}" style="--share:{shown:.4f}" title="{logs}"></span>'
        f'<span class="score {kind}">{leans} {100 * shown:.1f} % '
        f"{_MARKS[kind]}</span>"
    )


def _gate(record: Record) -> str:
    """What a gate made of the question."""
    if record.sure is None:
        return ""
    stood = "its plain answer stood" if len(record.seen) < 2 else "so views were asked for"
    return f'<p class="numbers">the model was sure to {100 * record.sure:.1f} %: {stood}</p>'


def _first(seen: Seen) -> str:
    """The first token of an open answer, and how likely it is."""
    if seen.first is None:
        return ""
    share = "" if seen.share is None else f" {100 * seen.share:.0f} %"
    begins = "the first token of what it would answer by itself"
    return f'<span class="score" title="{begins}">{visible(seen.first)} …{share}</span>'


def share_of_yes(yes: float, no: float) -> float:
    """The probability of yes of yes and no together, from their logarithms."""
    if yes == no:  # also where both are impossible
        return 0.5
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def _image(place: int, label: str, kind: str = "view") -> str:
    """An image that page.js fills in from the album."""
    return f'<img class="{kind}" data-image="{place}" alt="{visible(label)}" loading="lazy">'
