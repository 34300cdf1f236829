"""Results of evaluations → a table, JSON, and one self-contained HTML page.

    records.py        what one run said of one question: right or wrong, and what it saw
    comparable.py     runs over the same questions, told apart by name
    scores.py         runs → ACC, ACC+, intervals over images, paired tests against the plain run
    table.py          scores as text, Markdown and JSON
    page.py           scores and a gallery of questions as HTML (page.js filters them)
    gallery.py        which questions the page shows, and what was seen and said of each
    album.py          the page's images, each embedded once
    contact_sheet.py  references and their views as HTML
    story.py          one question after the other, from the picture to the answer, as HTML

    cells.py          any table: its figures, how they are written, its JSON
    renderers.py      any table in a terminal, in Markdown, in HTML
    document.py       what every page of ours is (page.css is its style)

Nothing here knows a harness: whoever has results makes ``Run``s of ``Record``s and uses the rest,
as ``hb_tta.integrations.lmms_eval.results`` does.
"""

from hb_tta.report.records import Picture, Record, Run, Seen
from hb_tta.report.scores import Score, score

__all__ = ["Picture", "Record", "Run", "Score", "Seen", "score"]
