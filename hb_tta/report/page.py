"""Scores and a gallery of questions as one HTML page (document.py).

The images stand once each in a block of JSON, and page.js shows those of a question when it is
opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hb_tta.report import parts, renderers, table
from hb_tta.report.album import Album
from hb_tta.report.cells import Cell, Column, Table
from hb_tta.report.document import document, part, visible
from hb_tta.report.gallery import Gallery, Row, chosen, rows_of
from hb_tta.report.scores import CHANGES, Scored, categories
from hb_tta.store import Store, TieredStore

GALLERY = 400
"""Questions that a page shows by default; some 10 MB with four views each of small images."""


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


def render(
    task: str,
    scored: Sequence[Scored],
    *,
    store: Store | TieredStore,
    gallery: int = GALLERY,
    more: Sequence[Table] = (),
) -> Page:
    """The page of the runs of one task.

    Args:
        scored: from ``score``; their questions are the same.
        store: where the views are.
        gallery: how many questions to show at most: those that augmentation changed come first,
            the others are taken evenly. The figures are over all questions whatever this is.
        more: tables of other evaluations, above the gallery.
    """
    rows = rows_of(scored)
    shown = chosen(rows, gallery)
    writer = Gallery(scored, Album(store))
    writer.load(shown)
    questions = "\n".join(writer.question(row) for row in shown)
    body = _BODY.format(
        table=renderers.html(_table(scored)),
        kind="parts" if scored[0].by_metric else "categories",
        notes="".join(f"<p>{visible(note)}</p>" for note in _notes(scored, rows, shown)),
        errors=_errors(scored),
        more="".join(map(renderers.html, more)),
        warnings="".join(
            _warning(table.name_of(one, scored), one, writer, store) for one in scored
        ),
        categories=_category_choice(categories([scored[0].run])),
        runs="".join(
            f'<option value="{number}">{visible(table.name_of(one, scored))}</option>'
            for number, one in _of_interest(scored)
        ),
        interest=" ".join(str(number) for number, _ in _of_interest(scored)),
        changes="".join(_change_choice(*choice) for choice in _choices(scored)),
        questions=questions,
    )
    images = json.dumps(writer.album.addresses).replace("<", "\\u003c")
    data = f'<script type="application/json" id="images">{images}</script>'
    html = document(task, body, lead=_lead(scored), script=part("page.js"), data=data)
    return Page(html, len(shown), {name: count for name, count in writer.missing.items() if count})


# ── Above the gallery ────────────────────────────────────────────────────────────────────────────


def _lead(scored: Sequence[Scored]) -> str:
    run = scored[0].run
    models = sorted({one.run.model for one in scored if one.run.model})
    total = scored[0].total
    asked = f"{total.questions} questions on {total.images} images"
    if scored[0].by_metric:
        asked = parts.asked(len(run.records), len({r.group for r in run.records}), run.unit)
    return f"{asked}, answered by {', '.join(models)}" if models else asked


def _notes(scored: Sequence[Scored], rows: list[Row], shown: list[Row]) -> list[str]:
    if scored[0].by_metric:
        notes = parts.notes(scored, table.names_of(scored))
    else:
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


def _warning(name: str, one: Scored, gallery: Gallery, store: Store | TieredStore) -> str:
    count = gallery.missing[name]
    if not count:
        return ""
    again = "Evaluate again with --augment to have them."
    if one.run.command is not None:
        again = f"They are made again by <code>{visible(one.run.command)}</code>"
    return (
        f'<p class="warning"><b>{count} images of {visible(name)} are missing</b>: the store '
        f"{visible(str(store.root))} does not have them (--store names another one). {again}</p>"
    )


def _table(scored: Sequence[Scored]) -> Table:
    """Of MME a row a run, a group of columns a category."""
    if scored[0].by_metric:
        return parts.table(scored, table.names_of(scored))
    names, kinds = list(scored[0].scores), table.kinds_of(scored)
    columns = [
        Column(kind, name, table.counts(scored[0].scores[name])) for name in names for kind in kinds
    ]
    rows: list[list[Cell | str]] = [
        [
            table.name_of(one, scored),
            *(cell for name in names for cell in table.cells_of(one, name)[: len(kinds)]),
        ]
        for one in scored
    ]
    return Table(["", *columns], rows)


def _errors(scored: Sequence[Scored]) -> str:
    """What harnesses report beside a score, to be compared with their own."""
    if not scored[0].by_metric:
        return ""
    shown = renderers.html(parts.errors_table(scored, table.names_of(scored)))
    return (
        '<details class="more"><summary>Standard errors and t-tests, as harnesses have them'
        f"</summary>{shown}</details>"
    )


def _category_choice(names: Sequence[str]) -> str:
    """A list to choose from; nothing where there is one category, or none."""
    if len(names) < 2:
        return ""
    options = "".join(f'<option value="{visible(n)}">{visible(n)}</option>' for n in names)
    return (
        '<label>category <select name="category"><option value="">all</option>'
        f"{options}</select></label>"
    )


def _choices(scored: Sequence[Scored]) -> list[tuple[str, str]]:
    graded = any(metric.graded for metric in scored[0].run.metrics[:1])
    better, worse, *_ = CHANGES[graded]
    labels = ("better with augmentation", "worse with it") if graded else _CHANGED
    compared = any(one.plain is not None for one in scored)
    changes = list(zip((better, worse), labels, strict=True)) if compared else []
    rights = [] if graded else [("right", "right"), ("wrong", "wrong")]
    return [("", "all"), *changes, *rights]


_CHANGED = ("fixed by augmentation", "broken by it")


def _change_choice(value: str, label: str) -> str:
    checked = "" if value else " checked"
    return (
        f'<label><input type="radio" name="change" value="{value}"{checked}>'
        f"<span>{label} <output></output></span></label>"
    )


def _of_interest(scored: Sequence[Scored]) -> list[tuple[int, Scored]]:
    """The runs that the filters look at: those with something to compare, else all."""
    numbered = list(enumerate(scored))
    return [both for both in numbered if both[1].plain is not None] or numbered


_BODY = """{warnings}
<div class="{kind}">{table}</div><div class="notes">{notes}</div>
{errors}
{more}
<form id="filters" data-runs="{interest}" autocomplete="off">
{categories}
<label>run <select name="run"><option value="">any</option>{runs}</select></label>
<fieldset>{changes}</fieldset>
<output id="shown"></output>
</form>
<noscript><p class="warning">The pictures and the filters need JavaScript.</p></noscript>
<div id="gallery">
{questions}
</div>"""
