"""The page at ``/``: a picture and a question go in, and all that is made of them is shown."""

from __future__ import annotations

from functools import cache
from importlib import resources

from hb_tta.report.document import document, visible

LEAD = "Drop a picture, ask, and watch what the model is shown besides, and what it makes of it."


@cache
def page(model: str, *, keyed: bool) -> str:
    """The page, UTF-8.

    Args:
        model: its name.
        keyed: whether the server asks for a key.
    """
    key = _KEY if keyed else ""
    body = _BODY.format(model=visible(model), key=key)
    return document(
        "hb-tta", body, lead=LEAD, script=_part("page.js"), style=_part("page.css"),
        asks_server=True,
    )  # fmt: skip


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_KEY = """<label class="field">key
<input name="key" type="password" autocomplete="off" required></label>"""

_BODY = """<div class="ask"><form id="ask" autocomplete="off">
<label id="drop" tabindex="0"><input id="file" type="file" accept="image/*">
<img id="picture" alt="the picture" hidden><span id="hint">Drop a picture here, or click</span>
</label>
<label class="field">question
<textarea name="question" rows="3" required placeholder="Is there a red circle?"></textarea></label>
{key}
<details><summary>settings</summary><div class="settings">
<label>views <input name="n" type="number" min="1" placeholder="the server's"></label>
<label>seed <input name="seed" type="number" min="0" placeholder="the server's"></label>
<label class="tick"><input name="always" type="checkbox"> views also where the model is sure</label>
<label class="tick"><input name="plain" type="checkbox"> no views at all</label>
</div></details>
<div class="go"><button>Ask</button><output id="state" role="status"></output></div>
<p class="how">The model that answers: <b>{model}</b></p>
</form>
<div id="found" aria-live="polite">
<section id="before"><h2>what will be here</h2><p class="how">What the model says to the picture
alone; what it writes down of it; the images that are drawn from that, and what a judge thinks of
them; what the model says to each, and to all of them together.</p></section>
<section id="answer" hidden><h2>answer</h2><p class="said" dir="auto"></p><p class="how"></p>
</section>
<section id="plain" hidden><h2>the model, shown the picture alone</h2><p class="said" dir="auto">
</p><p class="how"></p></section>
<section id="described" hidden><h2>description</h2><blockquote dir="auto"></blockquote></section>
<section id="views" hidden><h2>candidates</h2><p class="how"></p><div class="views"></div></section>
<section id="wrong" class="warning" hidden></section>
</div></div>
<noscript><p class="warning">This page needs JavaScript.</p></noscript>"""
