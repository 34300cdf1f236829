"""Contact sheets: reference images and their views on one self-contained HTML page.

Data in, a string out. Pictures are embedded as PNG; the page is that of document.py.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from hb_tta.report.cells import figure
from hb_tta.report.document import document, visible

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL = 128  # pixels; images up to this are enlarged with crisp edges
LARGEST = 512  # pixels; larger images are embedded at this size, so that a page stays light

DOUBT = "A description is what a model wrote, and may itself be wrong."
_ASKED = "Of a view only the asked fact counts: it may change whatever else it likes."


@dataclass(frozen=True)
class Linked:
    """A picture that is shown by its address: a file beside the page, or a ``data:`` address.

    Attributes:
        address: as HTML has it, not yet escaped.
        size: width and height in pixels.
    """

    address: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Dropped:
    """A candidate that a judge did not let through: shown on the page, and to no model."""

    image: Image | Linked
    seed: int
    score: float


@dataclass(frozen=True)
class Row:
    """The views that one method gives of a reference.

    Attributes:
        label: the method's name, or whatever tells the row from its neighbours.
        views: RGB images, or where they are.
        seeds: the seed of every view, in the same order.
        description: the context description that the method was given, where it takes one.
        scores: a judge's, one a view; ``None``: nobody judged them.
        real_score: the judge's of the reference.
        dropped: the other candidates.
        notes: what stands below every view, one a view; ``None``: nothing does.
    """

    label: str
    views: Sequence[Image | Linked]
    seeds: Sequence[int]
    description: str | None = None
    scores: Sequence[float] | None = None
    real_score: float | None = None
    dropped: Sequence[Dropped] = ()
    notes: Sequence[str] | None = None

    @property
    def images(self) -> list[Image | Linked]:
        """All that the row shows."""
        return [*self.views, *(candidate.image for candidate in self.dropped)]


@dataclass(frozen=True)
class Panel:
    """A reference image, what was asked of it, and a row of views for every method.

    Attributes:
        reference: RGB image, or where it is.
        question: the text guidance; may be empty.
        rows: from top to bottom.
        facts: short labelled texts shown under the question, such as ``{"answer": "Yes"}``.
    """

    reference: Image | Linked
    question: str
    rows: Sequence[Row]
    facts: Mapping[str, str] = field(default_factory=dict)


def render(panels: Sequence[Panel], *, title: str, subtitle: str = "") -> str:
    """The page that shows the panels in order: UTF-8 HTML that needs no file but linked ones."""
    images = [image for panel in panels for image in _images(panel)]
    linked = any(
        isinstance(image, Linked) and not image.address.startswith("data:") for image in images
    )
    return document(title, body(panels), lead=subtitle, files_beside=linked)


def body(panels: Sequence[Panel]) -> str:
    """The panels as a part of a page."""
    addresses = _addresses(panels)
    shown = "\n".join(_panel(panel, addresses) for panel in panels)
    if any(row.description is not None for panel in panels for row in panel.rows):
        shown += f'\n<p class="notes">{visible(DOUBT)} {_ASKED}</p>'
    return f'<div class="sheet">\n{shown}\n</div>'


def data_uri(image: Image) -> str:
    """``image`` as a PNG inside a ``data:`` address, no side longer than ``LARGEST``."""
    image = image.convert("RGB")
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _addresses(panels: Sequence[Panel]) -> dict[int, str]:
    """Every image's ``data_uri`` by its ``id``; zlib works outside Python's lock."""
    shown = [image for panel in panels for image in _images(panel)]
    with ThreadPoolExecutor() as pool:
        return dict(zip(map(id, shown), pool.map(_address, shown), strict=True))


def _images(panel: Panel) -> list[Image | Linked]:
    return [panel.reference, *(image for row in panel.rows for image in row.images)]


def _address(image: Image | Linked) -> str:
    if isinstance(image, Linked):
        return image.address if image.address.startswith("data:") else quote(image.address)
    return data_uri(image)


def _panel(panel: Panel, addresses: Mapping[int, str]) -> str:
    descriptions = {row.description for row in panel.rows if row.description is not None}
    shared = descriptions.pop() if len(descriptions) == 1 else None
    facts = dict(panel.facts) | ({"description": shared} if shared is not None else {})
    listed = "".join(f"<dt>{visible(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    question = f"<h2>{_text(panel.question)}</h2>" if panel.question else ""
    rows = "\n".join(_row(row, addresses, show_description=shared is None) for row in panel.rows)
    beside = len(panel.rows) > 1 and all(len(row.images) == 1 for row in panel.rows)
    return (
        f'<section><div class="reference">{_figure(panel.reference, "reference", addresses)}'
        f"{question}<dl>{listed}</dl></div>\n"
        f'<div class="rows{" beside" * beside}">{rows}</div></section>'
    )


def _row(row: Row, addresses: Mapping[int, str], *, show_description: bool) -> str:
    assert len(row.views) == len(row.seeds), "one seed a view"
    told = ""
    if show_description and row.description is not None:
        told = f'<p class="description">{_text(row.description)}</p>'
    captions = [f"seed {seed}" for seed in row.seeds]
    if row.scores is not None:
        scored = zip(captions, row.scores, strict=True)
        captions = [f"{caption}: {figure(score, 'fine')}" for caption, score in scored]
    if row.notes is not None:
        both = zip(captions, row.notes, strict=True)
        captions = [f"{caption}: {note}" for caption, note in both]
    figures = zip(row.views, captions, strict=True)
    views = "".join(_figure(view, caption, addresses) for view, caption in figures)
    dropped = "".join(_figure(it.image, _dropped(it), addresses, "dropped") for it in row.dropped)
    if row.real_score is not None:
        told += f'<p class="judged">{_JUDGED.format(figure(row.real_score, "fine"))}</p>'
    return (
        f'<div class="row"><h3>{visible(row.label)}</h3>{told}'
        f'<div class="views">{views}{dropped}</div></div>'
    )


_JUDGED = "Behind the seeds: the judge's scores; of the reference itself {}."


def _dropped(candidate: Dropped) -> str:
    return f"seed {candidate.seed}: {figure(candidate.score, 'fine')}, dropped"


def _figure(
    image: Image | Linked, caption: str, addresses: Mapping[int, str], kind: str = ""
) -> str:
    size = "small" if max(image.size) <= SMALL else "large"
    shown = f'src="{addresses[id(image)]}" alt="{visible(caption)}"'
    return (
        f'<figure class="{f"{size} {kind}".rstrip()}"><img loading="lazy" {shown}>'
        f"<figcaption>{visible(caption)}</figcaption></figure>"
    )


def _text(text: str) -> str:
    return f'<span class="text" dir="auto">{visible(text)}</span>'
