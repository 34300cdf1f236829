"""Results of evaluations → a table, JSON, and one self-contained HTML page.

    records.py        what one run said of one question: right or wrong, and what it saw
    comparable.py     runs over the same questions, told apart by name
    scores.py         runs → scores by part, intervals over images, tests against the plain run
    t_test.py         standard errors and t-tests as harnesses have them
    table.py          scores of MME as text, Markdown and JSON
    parts.py          scores of tasks of any other metrics
    page.py           scores and a gallery of questions as HTML (page.js filters them)
    gallery.py        which questions the page shows, and what was seen and said of each
    options.py        what a question gives to choose from
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
