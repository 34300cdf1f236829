"""A page of boxes: each image, its caption, and the crops that its boxes cut out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hb_tta.report.cells import figure
from hb_tta.report.contact_sheet import SMALL, data_uri
from hb_tta.report.document import document, visible

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Crop:
    """A crop of an image: the pixels, the word that they show, the detector's score."""

    image: Image
    word: str
    score: float


@dataclass(frozen=True)
class Captioned:
    """An image with its caption, the crops of its words, and what a person calls it."""

    image: Image
    caption: str
    crops: Sequence[Crop]
    called: str


def render(rows: Sequence[Captioned], *, title: str, lead: str) -> str:
    """The page, UTF-8 HTML that needs no other file."""
    body = "\n".join(map(_section, rows))
    return document(title, f'<div class="sheet">\n{body}\n</div>', lead=lead)


def _section(row: Captioned) -> str:
    crops = "".join(_figure(c.image, f"{c.word}: {figure(c.score, 'fine')}") for c in row.crops)
    found = f'<div class="views">{crops}</div>' if row.crops else "<p>nothing was found</p>"
    return (
        f'<section><div class="reference">{_figure(row.image, row.called)}</div>\n'
        f'<div class="rows"><div class="row"><h3>{visible(row.caption)}</h3>{found}</div></div>'
        "</section>"
    )


def _figure(image: Image, told: str) -> str:
    size = "small" if max(image.size) <= SMALL else "large"
    return (
        f'<figure class="{size}"><img loading="lazy" src="{data_uri(image)}" alt="{visible(told)}">'
        f"<figcaption>{visible(told)}</figcaption></figure>"
    )
