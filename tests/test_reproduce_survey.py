"""Table 10: the survey's page as people get it, and what becomes of their answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import chromium
import numpy as np
import pytest
from pages import Page
from PIL import Image

from hb_tta.datasets.questions import CATEGORIES, YesNoQuestion
from hb_tta.errors import UserError
from hb_tta.experiments.paper import table10
from hb_tta.experiments.reproduction import FAILS, HOLDS, Options
from hb_tta.families import get_family


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


QUESTIONS = [
    YesNoQuestion(
        f"{category}/{image}", f"{category}/{image}", category, f"Is <it> {image}?", True,
        lambda: picture("black"),
    )
    for category in CATEGORIES
    for image in range(4)
]  # fmt: skip
RESULTS = {
    "I2T2I SDXL": [SimpleNamespace(views=[picture("red")], seeds=[0]) for _ in QUESTIONS],
    "Hummingbird": [SimpleNamespace(views=[picture("blue")], seeds=[0]) for _ in QUESTIONS],
}


@pytest.fixture
def options(tmp_path, monkeypatch) -> Options:
    monkeypatch.setattr(table10, "asked", lambda options: QUESTIONS)
    monkeypatch.setattr(table10, "identity", lambda arm, options, n: {"of": arm.label})
    return Options(tmp_path / "out", get_family("pocket"), quiet=True)


def answer(path, survey, choose, changed=None) -> None:
    """Write what a person saves who chooses by ``choose(number, label)``."""
    said = [
        {
            "question": number,
            "chosen": [
                place for place, label in enumerate(order) if choose(number, survey.labels[label])
            ],
            "seen": True,
        }
        for number, order in enumerate(survey.order)
    ]
    path.write_text(json.dumps({"survey": survey.name, "answers": said, **(changed or {})}))


def test_the_page_tells_nobody_which_picture_is_whose(options):
    shown = table10.show(RESULTS, options)
    text = shown.files[table10.PAGE].decode()
    assert not re.search("hummingbird|i2t2i|sdxl", text, re.IGNORECASE)
    assert "nobody was asked yet" in shown.missing[0]
    page = Page(text)
    assert len(page.images()) == 3 * len(QUESTIONS) and "Is &lt;it&gt; 0?" in text
    assert {image["alt"] for image in page.images()} == {
        "the picture that is asked about", "picture A", "picture B",
    }  # fmt: skip
    survey = table10.survey_of(RESULTS, options)
    firsts = [order[0] for order in survey.order]
    assert 0.2 < np.mean(firsts) < 0.8  # drawn, and not always the same
    key = json.loads(shown.files[table10.KEY])
    assert key["shown"] == [[survey.labels[place] for place in order] for order in survey.order]
    again = table10.survey_of(RESULTS, options)
    assert (again.name, again.order) == (survey.name, survey.order)
    other = table10.survey_of(RESULTS, replace(options, seed=1))
    assert other.name != survey.name and other.order != survey.order


def test_answers_are_counted_for_the_method_whose_picture_was_chosen(options, tmp_path):
    survey = table10.survey_of(RESULTS, options)
    files = [tmp_path / f"{n}.json" for n in range(2)]
    answer(files[0], survey, lambda number, label: label == "Hummingbird")
    answer(files[1], survey, lambda number, label: label == "Hummingbird" or number < 4)
    shown = table10.show(RESULTS, replace(options, answers=tuple(files)))
    (table,) = shown.tables
    first, second = table.rows
    assert (first[0], second[0]) == ("I2T2I SDXL", "Hummingbird")
    assert first[1].estimate == 0.5 and first[2].estimate == 0 and first[6].estimate == 0.1
    assert {cell.estimate for cell in second[1:7]} == {1.0}
    assert second[6].note == "paper 76.06" and second[6].test.difference == pytest.approx(0.9)
    assert shown.findings[0].verdict == HOLDS
    assert "2 people, 20 questions" in table.notes[0]


def test_the_claim_is_hummingbirds_in_whatever_order_the_two_are_named(options, tmp_path):
    for methods in (("i2t2i", "hummingbird"), ("hummingbird", "i2t2i")):
        asked = replace(options, methods=methods)
        survey = table10.survey_of(RESULTS, asked)
        path = tmp_path / f"{methods[0]}.json"
        answer(path, survey, lambda number, label: label == "I2T2I SDXL")
        (found,) = table10.show(RESULTS, replace(asked, answers=(path,))).findings
        assert found.verdict == FAILS and found.about == "people"
        assert found.tests[0][0] == "Hummingbird − I2T2I SDXL"
    labels = ("RandAugment", "Hummingbird")
    other = table10._finding(replace(survey, labels=labels), np.array([[0.0, 1.0]] * 20))
    assert other.about == ""  # the paper asked nobody about that


def test_figure_14_names_no_picture_of_the_survey(options, monkeypatch):
    monkeypatch.setattr(table10, "EACH", 3)
    survey = {one.group for one in table10.asked(options)}
    shown = table10._asked_14(options)
    assert shown and not survey & {one.group for one in shown}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"survey": "another"}, "answers another survey"),
        ({"answers": []}, "is no whole answer"),
        ({"answers": None}, "is no whole answer"),
        ({"answers": [{"question": 0, "chosen": [7], "seen": True}]}, "is no whole answer"),
        ({"answers": [{"question": 0, "chosen": [], "seen": False}] * 20}, "is no whole answer"),
        ({"answers": [{"question": [], "chosen": [], "seen": True}]}, "is no whole answer"),
        ({"answers": [{"question": 0, "chosen": [[]], "seen": True}] * 20}, "is no whole answer"),
    ],
)
def test_answers_that_are_none_are_refused(options, tmp_path, changed, sentence):
    survey = table10.survey_of(RESULTS, options)
    path = tmp_path / "answers.json"
    answer(path, survey, lambda number, label: True, changed)
    with pytest.raises(UserError, match=sentence):
        table10.read_answers(path, survey)


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"7", b'{"survey": 1}', b"\xff\xfe\x00"])
def test_files_that_are_no_answers_are_refused(options, tmp_path, content):
    survey = table10.survey_of(RESULTS, options)
    path = tmp_path / "answers.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="answers.json"):
        table10.read_answers(path, survey)
    with pytest.raises(UserError, match="cannot be read"):
        table10.read_answers(tmp_path / "gone.json", survey)


CHOOSE = """(() => {
  const its = [...document.querySelectorAll('fieldset')];
  its.forEach((one, number) => {
    const boxes = one.querySelectorAll('input[type=checkbox]');
    const click = (box) => { box.click(); };
    if (number % 3 === 0) click(boxes[0]);
    if (number % 3 === 1) { click(boxes[0]); click(boxes[1]); }
    if (number % 3 === 2) click(one.querySelector('input[type=radio]'));
  });
  window.saved = null;
  URL.createObjectURL = (blob) => { window.blob = blob; return 'blob:x'; };
  HTMLAnchorElement.prototype.click = function () { window.saved = this.download; };
  document.getElementById('save').click();
  return [window.saved, document.getElementById('told').textContent];
})()"""


@pytest.mark.parametrize("width", [1300, 390])
def test_people_can_answer_it_and_save_what_they_said(options, tmp_path, width):
    survey = table10.survey_of(RESULTS, options)
    page = tmp_path / "survey.html"
    page.write_text(table10.page(survey), encoding="utf-8")
    with chromium.open_tab(tmp_path / "profile") as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        tab.open(page.as_uri())
        assert tab.run("document.documentElement.scrollWidth") <= width
        unanswered = "(document.getElementById('save').click(), " \
            "document.getElementById('told').textContent)"  # fmt: skip
        assert "20 are not answered yet" in tab.run(unanswered)
        saved, told = tab.run(CHOOSE)
        assert saved == "answers.json" and told.startswith("Saved as answers.json: send it")
        said = tab.run("(async () => await window.blob.text())()")
        assert not tab.complaints
        assert [one for one in tab.requests if not one.startswith("data:")] == [page.as_uri()]
    path = tmp_path / "answers.json"
    path.write_text(said)
    chosen = table10.read_answers(path, survey)
    first = [order[0] for order in survey.order]
    assert chosen[0][first[0]] and not chosen[0][1 - first[0]]
    assert chosen[1] == [True, True] and chosen[2] == [False, False]
