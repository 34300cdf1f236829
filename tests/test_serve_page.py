"""The page of ``hb-tta serve`` in headless Chromium: what goes in, what comes out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import chromium
import pytest
from serving import address, pocket, samples, served

KEY = "a-key-of-some-length-0123456789"
VIEWS = {"n": 2, "preset": "paper", "seeds": "by_context", "gate": 1.0}


@pytest.fixture(scope="module")
def model():
    return pocket()


@pytest.fixture
def tab(tmp_path) -> Iterator[chromium.Tab]:
    with chromium.open_tab(tmp_path / "profile") as tab:
        tab.call("Network.emulateNetworkConditions", offline=False, latency=0,
                 downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
        yield tab


def drop(tab: chromium.Tab, data: str) -> None:
    """A picture dropped on the page."""
    tab.run(f"""(() => {{
      const bytes = Uint8Array.from(atob("{data.partition(",")[2]}"), (one) => one.charCodeAt(0));
      const dropped = new DataTransfer();
      dropped.items.add(new File([bytes], "a.png", {{ type: "image/png" }}));
      const event = new DragEvent("drop", {{ dataTransfer: dropped, cancelable: true }});
      document.getElementById("drop").dispatchEvent(event);
    }})()""")


def ask(tab: chromium.Tab, question: str, **ticked: bool) -> None:
    """Type a question, ask it, and wait for the end."""
    tab.run(f"document.querySelector('textarea').value = {question!r}")
    for name in ticked:
        tab.run(f"document.querySelector('[name={name}]').checked = true")
    # Every state that the page tells, in order.
    tab.run("""window.states = []; new MutationObserver(() =>
      states.push(document.getElementById("state").textContent)).observe(
      document.getElementById("state"), { childList: true }); undefined""")
    tab.run("document.querySelector('button').click()")
    for _ in range(600):
        if tab.run("states.length > 0 && states.at(-1) === ''"):
            return
        time.sleep(0.1)
    raise AssertionError(tab.run("states"))


def text(tab: chromium.Tab, selector: str) -> list[str]:
    script = f"[...document.querySelectorAll({selector!r})].map((one) => one.innerText)"
    return tab.run(script)


def test_all_that_is_made_of_a_question_is_shown(model, tab):
    (sample,) = samples(1)
    with served(model, "jitter", VIEWS) as place:
        tab.open(f"{place}/")
        drop(tab, address(sample.image))
        ask(tab, sample.question)
        states = tab.run("states")
        assert states.index("waiting …") < states.index("looking at the views …")
        assert text(tab, "#answer .said") in (["Yes"], ["No"])
        assert "from the picture and 2 views" in text(tab, "#answer .how")[0]
        assert text(tab, "#plain .said") and "not sure enough" in text(tab, "#plain .how")[0]
        captions = text(tab, "#views figcaption")
        assert [one.splitlines()[0] for one in captions] == ["view 1", "view 2"]
        # Each view has its own answer below it, though their seeds are too long for JavaScript.
        assert all("%" in one for one in captions)
        shown = "document.querySelectorAll('#views img')"
        assert tab.run(f"[...{shown}].every((one) => one.naturalWidth === 64)")
        for width in (1300, 390):
            tab.resize(width, 900)
            assert tab.run("document.documentElement.scrollWidth") <= width
        ask(tab, sample.question, plain=True)  # the next one takes the last one's place
        assert text(tab, "#views:not([hidden])") == []
        assert "from the picture alone" in text(tab, "#answer .how")[0]
        assert tab.complaints == []
        assert all(one.startswith((place, "data:image/")) for one in tab.requests)


def test_what_a_view_says_stands_below_it_and_below_no_other(model, tab):
    """Candidates as a judge leaves them; the real picture's answer is none of theirs."""
    views = [
        {"image": 0, "seed": 5, "score": 3.1, "kept": False, "view": None, "png": None},
        {"image": 0, "seed": 6, "score": 7.2, "kept": True, "view": 0, "png": None},
    ]
    rows = [
        (None, {}, "Yes"),
        (0, {}, "No"),
        (None, {"words": "?"}, "So"),
        (0, {"words": "?"}, "So"),
    ]
    answers = [{"view": view, **words, "first": said, "share": 0.9} for view, words, said in rows]
    told = {"answers": answers, "views": views, "combined": answers[0], "warnings": []}
    with served(model, "none") as place:
        tab.open(f"{place}/")
        tab.run(f"end({json.dumps(told)})")
    captions = text(tab, "#views figcaption")
    assert captions == ["not shown, score 3.10", "view 1, score 7.20\nNo 90\u00a0%"]
    assert text(tab, "#plain .said") == ["Yes"]


def test_what_is_refused_is_told(model, tab):
    with served(model, "none", key=KEY) as place:
        tab.open(f"{place}/")
        tab.run("document.querySelector('[name=key]').value = 'wrong'")
        ask(tab, "Is it red?")
        assert text(tab, "#wrong")[0].startswith("the key is missing or wrong")
        tab.run(f"document.querySelector('[name=key]').value = {KEY!r}")
        ask(tab, "Is it red?")
        assert text(tab, "#answer .said")[0] and text(tab, "#wrong:not([hidden])") == []
    ask(tab, "Is it red?")  # nobody is there any more
    assert "cannot be reached" in text(tab, "#wrong")[0]
