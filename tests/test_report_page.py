"""The report's page: whole, harmless, and working in a browser without a network."""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import chromium
import pytest
from PIL import Image
from report_files import line, picture, png, said, write_augmented, write_plain, write_run
from test_contact_sheet import EVIL
from test_contact_sheet import Page as Parsed

from hb_tta.images import load_image
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.report import Picture, Record, Run, Seen, page, score
from hb_tta.report.album import LARGEST, Album, data_uri
from hb_tta.report.gallery import share_of_yes
from hb_tta.report.options import options_of
from hb_tta.report.records import Metric
from hb_tta.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run without and one with our flag: question 2 is broken; 3 and 5 are fixed."""
    folder = tmp_path_factory.mktemp("results")
    write_plain(folder / "plain")
    write_augmented(folder / "hb", Store(folder / "store"))
    return folder


def made(folder: Path, store: Store | None = None, **settings) -> page.Page:
    task, runs = read_runs([str(folder / "plain"), str(folder / "hb")])
    return page.render(task, score(runs), store=store or Store(folder / "store"), **settings)


def embedded(text: str) -> list[str]:
    found = re.search(r'<script type="application/json" id="images">(.*?)</script>', text)
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_everything_in_it(folder):
    found = made(folder)
    assert (found.questions, found.missing) == (8, {})
    parsed = Parsed(found.html)
    details = [attributes for tag, attributes in parsed.tags if tag == "details"]
    assert Counter(d["data-category"] for d in details) == {"count": 4, "color": 4}
    changes = [d["data-changes"].split()[1] for d in details]
    assert [i for i, change in enumerate(changes) if change == "fixed"] == [3, 5]
    assert [i for i, change in enumerate(changes) if change == "broken"] == [2]
    images = embedded(found.html)
    assert len(images) == 4 + 8 * 2, "each image stands once: 4 real ones, 2 views a question"
    assert all(image.startswith("data:image/png;base64,") for image in images)
    for said_of_it in ("a description of 3", "Is it number 3?", "right: fixed by augmentation"):
        assert said_of_it in parsed.text


def test_nothing_is_loaded_from_elsewhere(folder):
    parsed = Parsed(made(folder).html)
    assert not [tag for tag, its in parsed.tags if tag == "link" or "src" in its or "href" in its]
    (policy,) = [its["content"] for tag, its in parsed.tags if "http-equiv" in its]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "'unsafe-inline'; script-src 'sha256-" in policy


def evil_lines(lines):
    for one in lines:
        score = one["mme_perception_score"]
        score["category"] = score["question_id"] = EVIL
        yield {**one, "input": EVIL, "target": EVIL, "filtered_resps": EVIL, "doc_id": EVIL}


def test_text_is_escaped(tmp_path):
    """Also in every place that is not a question: a samples file may come from anywhere."""
    store = Store(tmp_path / "store")
    record = said(0, store)
    record["images"][0]["description"] = record["views"][0]["answer"] = EVIL
    record["images"][0]["seeds"] = [EVIL, EVIL]
    lines = [line(0, True, token_counts=[{"hb_tta": record}])]
    arguments = f"pretrained=x,hb_augment={EVIL},hb_views={EVIL}"
    write_run(tmp_path, evil_lines(lines), model_args=arguments, model="<b>model<b>", task="<i>t")
    task, runs = read_runs([str(tmp_path)])
    text = page.render(task, score(runs), store=store).html
    parsed = Parsed(text)
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("script") == 2
    assert not {"i", "it"} & set(tags), "an element out of a text"
    assert not [its for _, its in parsed.tags if "onerror" in its]
    assert "<script>alert" not in text and "<b>model" not in text
    assert html.escape('<script>alert("x")') in text
    assert "\x00" not in text and "\x1b" not in text


def test_missing_views_are_said_to_be(folder, tmp_path):
    found = made(folder, Store(tmp_path / "empty"))
    assert found.missing == {"hummingbird": 16}
    assert found.html.count('<span class="gone">missing</span>') == 16
    text = Parsed(found.html).text
    assert "16 images of hummingbird are missing" in text
    assert str(tmp_path / "empty") in text
    assert text.count("made again by lmms-eval --model llava_hf --tasks mme") == 1 + 8


def test_a_damaged_view_is_missing(folder, tmp_path):
    store = Store(tmp_path / "store")
    key = said(0, store)["images"][0]["keys"][0]
    store.put("views", key, b"no image", {})
    album = Album(store)
    assert album.place(Picture(key=key)) is None
    assert album.place(Picture(file=tmp_path / "gone.png")) is None
    assert album.addresses == []


def test_large_images_are_shrunk():
    noise = Image.effect_noise((1024, 512), 80).convert("RGB")
    address = data_uri(png(noise))
    assert address.startswith("data:image/jpeg;base64,")
    shrunk = load_image(base64.b64decode(address.partition(",")[2]))
    assert shrunk.size == (LARGEST, LARGEST // 2)


def test_a_gallery_of_few_shows_what_changed(folder):
    found = made(folder, gallery=4)
    assert found.questions == 4
    parsed = Parsed(found.html)
    shown = [its["data-changes"] for tag, its in parsed.tags if tag == "details"]
    assert sum("fixed" in c or "broken" in c for c in shown if c) == 3
    assert "The gallery shows 4 of 8 questions: 3 of the 3" in parsed.text
    assert made(folder, gallery=2).questions == 2


def test_views_that_were_asked_one_by_one():
    """combine=vote has an answer a view, and no scores."""
    views = [Seen("real", answer="Yes, <it> is"), Seen("seed 0", answer="no")]
    record = Record("0", "0", "c", True, answer="Yes", target="Yes", seen=views)
    text = page.render("t", score([Run("vote", [record])]), store=Store("/nowhere")).html
    assert "Yes, &lt;it&gt; is" in text


def test_results_of_another_kind(tmp_path):
    """Classification: images in files, one question an image, answers that are no yes and no."""
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (300, 200))))
    views = [Seen("real", [Picture(file=tmp_path / "a.png")], answer="shark")]
    records = [Record("a", "a", "ImageNet-R", False, target="tench", answer="shark", seen=views)]
    runs = [Run("zero-shot", [replace(records[0], score=1.0)], plain=True), Run("tuned", records)]
    found = page.render("imagenet", score(runs), store=Store(tmp_path))
    parsed = Parsed(found.html)
    assert found.missing == {}
    assert "wrong: broken by augmentation" in parsed.text
    assert "question a" in parsed.text and "ACC+" not in parsed.text.partition("In percent")[0]
    assert embedded(found.html)[0].startswith("data:image/jpeg")


def test_missing_images_of_two_models_are_counted_apart(tmp_path):
    views = [Seen("real", [Picture()]), Seen("seed 0", [Picture(key="0" * 64)])]
    records = [Record("0", "0", "c", True, seen=views)]
    runs = [Run("hummingbird", records, model=model) for model in ("a", "b")]
    found = page.render("t", score(runs), store=Store(tmp_path / "empty"))
    assert found.missing == {"a: hummingbird": 2, "b: hummingbird": 2}


OPEN = Metric("exact_match")


def of_a_task(records: Sequence[Record], plain: bool = True, metric: Metric = OPEN) -> Run:
    scored = [replace(r, scores={metric.name: r.score}) for r in records]
    return Run("plain" if plain else "tuned", scored, plain=plain, metrics=(metric,))


def test_of_an_open_answer_the_first_token_is_shown():
    """How much a view says yes and no says nothing of "red"."""
    views = [Seen("real", yes=-9.0, no=-0.1, first="red", share=0.625), Seen("seed 0", yes=-1.0)]
    record = Record("0", "0", "", 1.0, answer="red", target="red", seen=views)
    text = page.render("t", score([of_a_task([record])]), store=Store("/nowhere")).html
    assert "red … 62 %" in text
    assert 'class="bar' not in text and "no 100" not in text
    asked = replace(record, answer="no", target="No.")
    text = page.render("t", score([of_a_task([asked])]), store=Store("/nowhere")).html
    assert text.count('class="bar') == 1 and "red …" not in text
    assert '<span class="bar right" style="--share:0.9999"' in text and "no 100.0 %" in text


LETTERED = "What is it?\nA. a cat\n(B) a dog\nC: <b>ox</b>\nAnswer with the letter."


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("(B)", "B"), ("B.", "B"), ("B. a dog", "B"), ("b", ""), ("a dog", "B"),
     ("A Dog.", "B"), ("The answer is (B).", "B"), ("Answer: C", "C"), ("Both", ""), ("", ""),
     ("A cat", "A"), ("An ox", "")],
)  # fmt: skip
def test_which_option_an_answer_means(answer, letter):
    record = Record("0", "0", "", 1.0, text=LETTERED, target="B", answer=answer)
    found = [option for option in options_of(record) if option.is_meant(answer)]
    assert [option.letter for option in found] == ([letter] if letter else [])


@pytest.mark.parametrize(
    "text",
    ["no options", "A. alone", "B. first\nC. second", "A. x\nB. y\nA. x\nB. y", "A. x\nC. z"],
)
def test_letters_that_are_no_options(text):
    assert options_of(Record("0", "0", "", 1.0, text=text)) == []


def test_options_on_the_page():
    plain = Record("0", "0", "", 1.0, text=LETTERED, target="B", answer="B")
    tuned = replace(plain, score=0.0, answer="C")
    runs = [of_a_task([plain]), of_a_task([tuned], plain=False)]
    text = page.render("t", score(runs), store=Store("/nowhere")).html
    assert "<li class=right><span dir=auto><b>B</b> a dog ✓</span><small>plain</small></li>" in text
    assert "<b>C</b> &lt;b&gt;ox&lt;/b&gt;</span><small>tuned</small></li>" in text


def test_of_less_that_is_better_a_fall_is_good():
    error = Metric("error", kind="fine", lower_is_better=True)
    plain = [Record(str(n), str(n), "", 4.0) for n in range(8)]
    tuned = [replace(record, score=1.0 + int(record.question) / 8) for record in plain]
    runs = [of_a_task(plain, metric=error), of_a_task(tuned, plain=False, metric=error)]
    found = score(runs)
    assert found[1].total.change is not None
    assert (found[1].total.change.fixed, found[1].total.change.broken) == (8, 0)
    text = page.render("t", found, store=Store("/nowhere")).html
    assert '<small class="up sure">−2.56 <br>' in text
    assert "8 better, 0 worse" in text and "tuned 1.00 ▲" in text


@pytest.mark.parametrize(
    ("yes", "no", "share"),
    [(0.0, -1e4, 1.0), (-1e4, 0.0, 0.0), (-0.5, -0.5, 0.5), (-float("inf"), -float("inf"), 0.5)],
)
def test_share_of_yes(yes, no, share):
    assert share_of_yes(yes, no) == pytest.approx(share, abs=1e-9)


# ── In a browser ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tab(folder, tmp_path_factory):
    """The page in headless Chromium, without a network."""
    if chromium.executable() is None:
        pytest.skip(chromium.MISSING)
    (folder / "page.html").write_text(made(folder).html, encoding="utf-8")
    with chromium.open_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def opened(tab, folder):
    tab.open((folder / "page.html").as_uri())
    return tab


def shown(tab) -> list[int]:
    """The numbers of the questions that can be seen."""
    return tab.run(
        "[...document.querySelectorAll('.question')].flatMap((one, i) =>"
        " one.checkVisibility() ? [i] : [])"
    )


def choose(tab, name: str, value: str) -> None:
    """As a person does it: by a click, or by a choice in a list."""
    tab.run(
        f"""(() => {{
            const radio = document.querySelector(`input[name={name}][value="{value}"]`);
            if (radio) return radio.click();
            const list = document.querySelector("select[name={name}]");
            list.value = "{value}";
            list.dispatchEvent(new Event("change", {{ bubbles: true }}));
        }})()"""
    )


def test_filters(opened):
    assert shown(opened) == list(range(8))
    choose(opened, "change", "fixed")
    assert shown(opened) == [3, 5]
    choose(opened, "category", "count")
    assert shown(opened) == [3]
    assert opened.run("document.getElementById('shown').textContent") == "1 of 8 shown"
    choose(opened, "change", "broken")
    assert shown(opened) == [2]
    choose(opened, "category", "color")
    assert shown(opened) == []
    choose(opened, "change", "wrong")
    assert shown(opened) == [6, 7]
    choose(opened, "category", "")
    assert shown(opened) == [2, 6, 7]
    counts = opened.run(
        "[...document.querySelectorAll('fieldset output')].map(one => Number(one.textContent))"
    )
    assert counts == [8, 2, 1, 5, 3]


def test_the_address_keeps_the_filters(opened, folder):
    choose(opened, "change", "fixed")
    choose(opened, "category", "color")
    address = opened.run("location.href")
    assert address.endswith("#category=color&change=fixed")
    opened.open(address)
    assert shown(opened) == [5]
    assert opened.run("document.querySelector('select').value") == "color"


def test_images_come_when_a_question_is_opened(opened):
    """All of them, and nothing from anywhere else."""
    loaded = (
        "[...document.querySelectorAll('.question')[3].querySelectorAll('figure img')]"
        ".map(one => one.complete && one.naturalWidth)"
    )
    assert opened.run(loaded) == [0, 0, 0]
    opened.run("document.querySelectorAll('.question summary')[3].click()")
    wait = (
        "new Promise(done => { const look = () => {"
        f"const found = {loaded}; found.every(Boolean) ? done(found) : setTimeout(look, 20) }};"
        "look(); })"
    )
    assert opened.run(wait) == [8, 8, 8]
    text = opened.run("document.querySelectorAll('.question')[3].innerText")
    assert "seed 0\nyes 85.8 % ✗" in text and "combined\nyes 81.8 % ✗" in text
    assert {address.partition(":")[0] for address in opened.requests} <= {"file", "data", "about"}
    assert opened.complaints == []


def test_what_a_person_sees(opened, tmp_path):
    """A screenshot, for people to look at; the views of an opened question are in it."""
    opened.run("document.querySelectorAll('.question summary')[3].click()")
    opened.run("document.getElementById('filters').scrollIntoView()")
    opened.run("new Promise(done => setTimeout(done, 300))")
    opened.screenshot(tmp_path / "page.png")
    seen = load_image(tmp_path / "page.png")
    assert seen.size == (1280, 900)
    colours = {colour for _, colour in seen.getcolors(maxcolors=1 << 20)}
    for shown in (1, 130, 131):  # the real image of question 3 and its two views: report_files.py
        assert picture(shown).getpixel((0, 0)) in colours


def test_html_in_a_question_runs_nothing(tab, tmp_path):
    write_run(tmp_path, evil_lines([line(0, True)]), results=False)
    task, runs = read_runs([str(tmp_path)])
    (tmp_path / "evil.html").write_text(
        page.render(task, score(runs), store=Store(tmp_path)).html, encoding="utf-8"
    )
    tab.open((tmp_path / "evil.html").as_uri())
    assert shown(tab) == [0]
    assert 'alert("x")' in tab.run("document.querySelector('.question .text').textContent")
    assert not tab.run("document.querySelectorAll('main script, main img:not(.thumbnail)').length")
    choose(tab, "change", "right")
    assert shown(tab) == [0]


def test_hundreds_of_questions_are_filtered_at_once(tab, tmp_path):
    """Under a fifth of a second for 400 questions, on a slow machine too."""
    records = [
        Record(str(n), str(n // 2), f"c{n % 5}", n % 3 > 0, text=f"{n}?") for n in range(400)
    ]
    path = tmp_path / "many.html"
    path.write_text(page.render("t", score([Run("r", records)]), store=Store(tmp_path)).html)
    tab.open(path.as_uri())
    choose(tab, "change", "wrong")
    assert len(shown(tab)) == 134
    taken = tab.run("(() => { const began = performance.now(); update();"
                    " return performance.now() - began; })()")  # fmt: skip
    assert taken < 200
