"""Contact sheets: reference images and their views on one self-contained HTML page.

Data in, a string out. Pictures are embedded as PNG, all text is escaped, and the page's own
content security policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import html
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL = 128  # pixels; images up to this are enlarged with crisp edges
LARGEST = 512  # pixels; larger images are embedded at this size, so that a page stays light


@dataclass(frozen=True)
class Row:
    """The views that one method gives of a reference.

    Attributes:
        label: the method's name, or whatever tells the row from its neighbours.
        views: RGB images.
        seeds: the seed of every view, in the same order.
        description: the context description that the method was given, where it takes one.
    """

    label: str
    views: Sequence[Image]
    seeds: Sequence[int]
    description: str | None = None


@dataclass(frozen=True)
class Panel:
    """A reference image, what was asked of it, and a row of views for every method.

    Attributes:
        reference: RGB image.
        question: the text guidance; may be empty.
        rows: from top to bottom.
        facts: short labelled texts shown under the question, such as ``{"answer": "Yes"}``.
    """

    reference: Image
    question: str
    rows: Sequence[Row]
    facts: Mapping[str, str] = field(default_factory=dict)


def render(panels: Sequence[Panel], *, title: str, subtitle: str = "") -> str:
    """The page that shows the panels in order: UTF-8 HTML that needs no other file."""
    body = "\n".join(_panel(panel) for panel in panels)
    lead = f'<p class="lead">{visible(subtitle)}</p>' if subtitle else ""
    return _PAGE.format(style=_STYLE, title=visible(title), lead=lead, body=body)


def visible(text: str) -> str:
    """Escape ``text`` for HTML; what a browser hides is spelled out."""
    return html.escape(spelled_out(text))


def spelled_out(text: str) -> str:
    """``text`` with its control characters, line breaks apart, written as in Python: ``\\x1b``."""
    return "".join(
        # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 cannot hold.
        repr(char)[1:-1] if char != "\n" and unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text
    )


def data_uri(image: Image) -> str:
    """``image`` as a PNG inside a ``data:`` address, no side longer than ``LARGEST``."""
    image = image.convert("RGB")
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _panel(panel: Panel) -> str:
    descriptions = {row.description for row in panel.rows if row.description is not None}
    shared = descriptions.pop() if len(descriptions) == 1 else None
    facts = dict(panel.facts) | ({"description": shared} if shared is not None else {})
    listed = "".join(f"<dt>{visible(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    question = f"<h2>{_text(panel.question)}</h2>" if panel.question else ""
    rows = "\n".join(_row(row, show_description=shared is None) for row in panel.rows)
    return (
        f'<section><div class="reference">{_figure(panel.reference, "reference")}'
        f"{question}<dl>{listed}</dl></div>\n"
        f'<div class="rows">{rows}</div></section>'
    )


def _row(row: Row, *, show_description: bool) -> str:
    assert len(row.views) == len(row.seeds), "one seed a view"
    told = ""
    if show_description and row.description is not None:
        told = f'<p class="description">{_text(row.description)}</p>'
    views = "".join(
        _figure(view, f"seed {seed}") for view, seed in zip(row.views, row.seeds, strict=True)
    )
    return (
        f'<div class="row"><h3>{visible(row.label)}</h3>{told}'
        f'<div class="views">{views}</div></div>'
    )


def _figure(image: Image, caption: str) -> str:
    size = "small" if max(image.size) <= SMALL else "large"
    return (
        f'<figure class="{size}"><img src="{data_uri(image)}" alt="{visible(caption)}">'
        f"<figcaption>{visible(caption)}</figcaption></figure>"
    )


def _text(text: str) -> str:
    return f'<span class="text" dir="auto">{visible(text)}</span>'


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1>{lead}</header>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --page: #f4f3f0; --card: #fff; --ink: #1d1c1a;
  --quiet: #6d6a64; --line: #e2dfd8; }
@media (prefers-color-scheme: dark) { :root { --page: #191817; --card: #242321; --ink: #eceae6;
  --quiet: #a19d95; --line: #3a3835; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--page); color: var(--ink); padding: 32px;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; }
header { margin-bottom: 24px; }
h1 { font-size: 24px; font-weight: 650; }
.lead { color: var(--quiet); white-space: pre-line; }
section { display: grid; grid-template-columns: 256px minmax(0, 1fr); gap: 32px;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 24px; margin-bottom: 20px; }
h2 { font-size: 17px; font-weight: 600; line-height: 1.35; margin: 12px 0 8px; }
h3 { font-size: 13px; font-weight: 600; color: var(--quiet); margin-bottom: 6px; }
.text { display: block; max-height: 12em; overflow: auto; overflow-wrap: anywhere;
  white-space: pre-line; }
dl { display: grid; gap: 2px; font-size: 14px; }
dt { color: var(--quiet); font-size: 12px; margin-top: 6px; }
dd { margin: 0; }
.rows { display: grid; gap: 18px; align-content: start; }
.row + .row { border-top: 1px solid var(--line); padding-top: 14px; }
.description { font-size: 14px; margin-bottom: 8px; }
.views { display: flex; flex-wrap: wrap; gap: 10px; }
figure { margin: 0; }
figure img { display: block; border-radius: 4px; background: var(--line); }
.views .small img { height: 128px; }
.views .large img { height: 200px; max-width: 100%; object-fit: contain; }
.small img { image-rendering: pixelated; }
.reference img { width: 100%; }
figcaption { color: var(--quiet); font-size: 12px; margin-top: 3px;
  font-variant-numeric: tabular-nums; }
@media (max-width: 760px) { body { padding: 12px; } section { grid-template-columns: 1fr; } }
"""
