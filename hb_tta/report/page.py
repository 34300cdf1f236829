"""Scores and a gallery of questions as one HTML page that needs no other file and no network.

All text is escaped; the page's content security policy lets it load nothing and run no script but
its own (page.js), which is named by its digest. The images stand once each in a block of JSON, and
page.js shows those of a question when it is opened.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from hb_tta.contact_sheet import visible
from hb_tta.metrics import Interval, PairedTest
from hb_tta.prompts import clean_question
from hb_tta.report import table
from hb_tta.report.album import Album
from hb_tta.report.records import Picture, Record, View
from hb_tta.report.scores import ALL, Scored, change_of
from hb_tta.store import Store

GALLERY = 400
"""Questions that a page shows by default; some 10 MB with four views each of small images."""

_MARKS = {"right": "✓", "fixed": "✓", "wrong": "✗", "broken": "✗"}


@dataclass(frozen=True)
class Page:
    """A page, and what it could not show.

    Attributes:
        html: UTF-8 text.
        questions: how many are in the gallery.
        missing: run → how many images of its shown questions are gone.
    """

    html: str
    questions: int
    missing: dict[str, int]


def render(task: str, scored: Sequence[Scored], *, store: Store, gallery: int = GALLERY) -> Page:
    """The page of the runs of one task.

    Args:
        scored: from ``score``; their questions are the same.
        store: where the views are.
        gallery: how many questions to show at most: those that augmentation changed come first,
            the others are taken evenly. The figures are over all questions whatever this is.
    """
    rows = _rows(scored)
    shown = _chosen(rows, gallery)
    album, missing = Album(store), Counter[str]()
    questions = "\n".join(_question(row, scored, album, missing) for row in shown)
    script = _part("page.js")
    html = _PAGE.format(
        title=visible(task),
        lead=visible(_lead(scored)),
        style=_part("page.css"),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        script=script,
        table=_table(scored),
        notes="".join(f"<p>{visible(note)}</p>" for note in _notes(scored, rows, shown)),
        warnings="".join(_warning(one, scored, missing, store) for one in scored),
        categories=_options([name for name in scored[0].scores if name != ALL]),
        runs="".join(
            f'<option value="{number}">{visible(table.name_of(one, scored))}</option>'
            for number, one in _of_interest(scored)
        ),
        interest=" ".join(str(number) for number, _ in _of_interest(scored)),
        changes="".join(_change_choice(*choice) for choice in _choices(scored)),
        questions=questions,
        images=json.dumps(album.addresses).replace("<", "\\u003c"),
    )
    return Page(html, len(shown), {name: count for name, count in missing.items() if count})


# ── Which questions ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Row:
    """A question with each run's record of it, and what became of it: see ``change_of``."""

    records: list[Record]
    changes: list[str]

    @property
    def changed(self) -> bool:
        return bool({"fixed", "broken"} & set(self.changes))


def _rows(scored: Sequence[Scored]) -> list[_Row]:
    by_question = [{record.question: record for record in one.run.records} for one in scored]
    plain = [
        {record.question: record for record in one.plain.records} if one.plain else {}
        for one in scored
    ]
    return [
        _Row(
            [records[record.question] for records in by_question],
            [
                change_of(records[record.question], others.get(record.question))
                for records, others in zip(by_question, plain, strict=True)
            ],
        )
        for record in scored[0].run.records
    ]


def _chosen(rows: list[_Row], most: int) -> list[_Row]:
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


def _of_interest(scored: Sequence[Scored]) -> list[tuple[int, Scored]]:
    """The runs that the filters look at: those with something to compare, else all."""
    numbered = list(enumerate(scored))
    return [both for both in numbered if both[1].plain is not None] or numbered


# ── Above the gallery ────────────────────────────────────────────────────────────────────────────


def _lead(scored: Sequence[Scored]) -> str:
    score = scored[0].scores[ALL]
    models = sorted({one.run.model for one in scored if one.run.model})
    asked = f"{score.questions} questions on {score.images} images"
    return f"{asked}, answered by {', '.join(models)}" if models else asked


def _notes(scored: Sequence[Scored], rows: list[_Row], shown: list[_Row]) -> list[str]:
    notes = [table.NOTE, *table.remarks(scored)]
    if len(shown) < len(rows):
        changed = sum(row.changed for row in rows)
        kept = sum(row.changed for row in shown)
        notes.append(
            f"The gallery shows {len(shown)} of {len(rows)} questions: {kept} of the {changed} "
            "whose answer changed from right to wrong or back, and some of the others. "
            "--gallery shows more."
        )
    return notes


def _warning(one: Scored, scored: Sequence[Scored], missing: Counter[str], store: Store) -> str:
    name = table.name_of(one, scored)
    count = missing[name]
    if not count:
        return ""
    again = "Evaluate again with --augment to have them."
    if one.run.command is not None:
        again = f"They are made again by {_command(one.run.command)}"
    return (
        f'<p class="warning"><b>{count} images of {visible(name)} are missing</b>: the store '
        f"{visible(str(store.root))} does not have them (--store names another one). {again}</p>"
    )


def _command(command: str) -> str:
    return f"<code>{visible(command)}</code>"


def _table(scored: Sequence[Scored]) -> str:
    names, kinds = list(scored[0].scores), table.kinds_of(scored)
    heads = "".join(
        f'<th colspan="{len(kinds)}" scope="colgroup">{visible(name)}'
        f"<small>{visible(table.counts(scored[0].scores[name]))}</small></th>"
        for name in names
    )
    kind_heads = "".join(_tag("th", place, kind) for place, kind in enumerate(kinds)) * len(names)
    rows = "".join(
        f'<tr><th scope="row">{visible(table.name_of(one, scored))}</th>'
        + "".join(_cells(one, name, len(kinds)) for name in names)
        + "</tr>"
        for one in scored
    )
    return (
        f'<table><thead><tr><th rowspan="2"></th>{heads}</tr><tr>{kind_heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _cells(one: Scored, category: str, kinds: int) -> str:
    figures = one.scores[category].figures[:kinds]
    return "".join(_tag("td", place, _figure(*figure)) for place, figure in enumerate(figures))


def _tag(name: str, place: int, content: str) -> str:
    """A cell of the table; the first of a category has a line at its left."""
    return f"<{name}{'' if place else ' class=first'}>{content}</{name}>"


def _figure(interval: Interval | None, test: PairedTest | None) -> str:
    if interval is None:
        return "–"
    low, high = (table.percent(end).removesuffix(".0") for end in (interval.low, interval.high))
    figure = f"<b>{table.percent(interval.estimate)}</b><small>[{low}, {high}]</small>"
    if test is not None:
        way = "up" if test.difference > 0 else "down" if test.difference < 0 else "same"
        sure = " sure" if test.p_value < 0.05 else ""
        figure += (
            f'<small class="{way}{sure}">{table.signed(test.difference)}<br>'
            f"{visible(table.p_value(test))}</small>"
        )
    return figure


def _options(names: Sequence[str]) -> str:
    return "".join(f'<option value="{visible(name)}">{visible(name)}</option>' for name in names)


def _choices(scored: Sequence[Scored]) -> list[tuple[str, str]]:
    compared = any(one.plain is not None for one in scored)
    changes = [("fixed", "fixed by augmentation"), ("broken", "broken by it")] if compared else []
    return [("", "all"), *changes, ("right", "right"), ("wrong", "wrong")]


def _change_choice(value: str, label: str) -> str:
    checked = "" if value else " checked"
    return (
        f'<label><input type="radio" name="change" value="{value}"{checked}>'
        f"<span>{label} <output></output></span></label>"
    )


# ── The gallery ──────────────────────────────────────────────────────────────────────────────────


def _question(row: _Row, scored: Sequence[Scored], album: Album, missing: Counter[str]) -> str:
    first = row.records[0]
    real = album.first(_real_pictures(row.records))
    verdicts = "".join(
        f'<span class="verdict {change}" title="{visible(record.answer)}">'
        f"{visible(table.name_of(one, scored))} {_MARKS[change]}</span>"
        for one, record, change in zip(scored, row.records, row.changes, strict=True)
    )
    answers = "\n".join(
        _answer(record, change, one, scored, album, missing)
        for one, record, change in zip(scored, row.records, row.changes, strict=True)
    )
    thumbnail = _image(real, "thumbnail") if real is not None else '<span class="thumbnail"></span>'
    facts = {"right answer": first.target, "prompt": first.text, "question": first.question}
    facts["image"] = first.image
    listed = "".join(f"<dt>{k}</dt><dd dir=auto>{visible(v)}</dd>" for k, v in facts.items() if v)
    return (
        f'<details class="question" data-category="{visible(first.category)}" '
        f'data-changes="{" ".join(row.changes)}"><summary>{thumbnail}'
        f'<span class="text" dir="auto">{visible(_short(first))}</span>'
        f'<span class="category">{visible(first.category)}</span>'
        f'<span class="verdicts">{verdicts}</span></summary>\n'
        f"<dl>{listed}</dl>{answers}</details>"
    )


def _short(record: Record) -> str:
    """The question without the instruction on how to answer it."""
    return clean_question(record.text, limit=300) or f"question {record.question}"


def _real_pictures(records: Sequence[Record]) -> list[Picture]:
    return [picture for record in records for view in record.views[:1] for picture in view.pictures]


def _answer(
    record: Record,
    change: str,
    one: Scored,
    scored: Sequence[Scored],
    album: Album,
    missing: Counter[str],
) -> str:
    """What one run saw and said."""
    name = table.name_of(one, scored)
    title = visible(name)
    said = f"answered <q dir=auto>{visible(record.answer)}</q>, {_verdict(change)}"
    told = ""
    if record.description:
        told = f'<p class="description" dir="auto">{visible(record.description)}</p>'
    views, again = "", ""
    if record.views:
        tiles = [_view(view, record, name, album, missing) for view in record.views]
        combined = ""
        if record.combined is not None and len(record.views) > 1:
            combined = _combined(record.combined, record)
        views = f'<div class="views">{"".join(tiles)}{combined}</div>'
        if 'class="gone"' in views and one.run.command is not None:
            again = f'<p class="again">made again by {_command(one.run.command)}</p>'
    return f'<section class="{change}"><h3>{title} {said}</h3>{told}{views}{again}</section>'


def _verdict(change: str) -> str:
    words = {
        "fixed": "right: fixed by augmentation",
        "broken": "wrong: broken by augmentation",
    }
    return f'<b class="{change}">{words.get(change, change)}</b>'


def _view(view: View, record: Record, run: str, album: Album, missing: Counter[str]) -> str:
    pictures = ""
    for picture in view.pictures:
        place = album.place(picture)
        missing[run] += place is None
        gone = '<span class="gone">missing</span>'
        pictures += gone if place is None else _image(place, view.label)
    caption = f"<figcaption>{visible(view.label)}{_bar(view, record)}</figcaption>"
    return f"<figure>{pictures}{caption}</figure>"


def _combined(view: View, record: Record) -> str:
    return (
        f'<figure class="combined"><figcaption>combined{_bar(view, record)}</figcaption></figure>'
    )


def _bar(view: View, record: Record) -> str:
    """How much a view says yes: its share of yes and no."""
    if view.answer is not None:
        return f"<q dir=auto>{visible(view.answer)}</q>"
    if view.yes is None or view.no is None:
        return ""
    share = share_of_yes(view.yes, view.no)
    leans = "yes" if share > 0.5 else "no"
    right = leans == record.target.strip().lower()
    shown = share if leans == "yes" else 1 - share
    logs = f"log p(yes) {view.yes:.3f}, log p(no) {view.no:.3f}"
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


def _image(place: int, label: str) -> str:
    kind = ' class="thumbnail"' if label == "thumbnail" else ""
    return f'<img{kind} data-image="{place}" alt="{visible(label)}" loading="lazy">'


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<title>{title}: report</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="lead">{lead}</p></header>
<main>
{warnings}
<div class="wide">{table}</div>
<div class="notes">{notes}</div>
<form id="filters" data-runs="{interest}" autocomplete="off">
<label>category <select name="category"><option value="">all</option>{categories}</select></label>
<label>run <select name="run"><option value="">any</option>{runs}</select></label>
<fieldset>{changes}</fieldset>
<output id="shown"></output>
</form>
<noscript><p class="warning">The pictures and the filters need JavaScript.</p></noscript>
<div id="gallery">
{questions}
</div>
</main>
<script type="application/json" id="images">{images}</script>
<script>{script}</script>
</body>
</html>
"""
