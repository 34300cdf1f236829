"""A page an experiment: its drawings, tables and galleries, readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence

from hb_tta.experiments.reproduction import Drawing, Experiment, Gallery, Options, Shown
from hb_tta.experiments.tables import tables_of
from hb_tta.report import contact_sheet, renderers
from hb_tta.report.document import document, visible


def page(experiment: Experiment, shown: Shown, options: Options, links: str = "") -> str:
    """The whole page; ``links``: HTML above everything, to other pages."""
    return document(
        experiment.title,
        links + body(shown),
        lead=f"{experiment.source}; models: {options.family.name}",
    )


def body(shown: Shown) -> str:
    """Everything that there is to show, in order."""
    parts = [*map(drawing, shown.drawings)]  # what is seen at a glance first
    parts += [renderers.html(table) for table in tables_of(shown)]
    parts += map(gallery, shown.galleries)
    parts += [f'<p class="warning">{visible(one)}</p>' for one in shown.missing]
    beside = [name for name in shown.files if name.endswith(".html")]
    parts += [f'<p><a href="{visible(name)}">{visible(name)}</a></p>' for name in beside]
    return "\n".join(parts)


def drawing(one: Drawing) -> str:
    """A figure with its heading."""
    note = f'<div class="notes"><p>{visible(one.note)}</p></div>' if one.note else ""
    return f'<h2>{visible(one.title)}</h2><div class="drawing">{one.svg}</div>{note}'


def gallery(one: Gallery) -> str:
    """References with their views."""
    note = f'<div class="notes"><p>{visible(one.note)}</p></div>' if one.note else ""
    return f"<h2>{visible(one.title)}</h2>{note}{contact_sheet.body(one.panels)}"


def contents(rows: Sequence[tuple[str, str, str]]) -> str:
    """A list of pages: (file, title, what is said of it)."""
    items = "".join(
        f'<li><a href="{visible(file)}">{visible(title)}</a> <small>{visible(said)}</small></li>'
        for file, title, said in rows
    )
    return f'<ul class="contents">{items}</ul>'
