"""The demo: questions that nobody chose, told to the end, on a page that holds what it says."""

import io
from pathlib import Path

import pytest
from pages import Page
from PIL import Image

from hb_tta.augment import Augmentation
from hb_tta.cli import main
from hb_tta.cli.demo import contexts_of, frame, pick_questions
from hb_tta.cli.story import tell
from hb_tta.families import get_family
from hb_tta.pocket.tasks import CATEGORIES, pocket_mme
from hb_tta.report.story import Attempt, Drawn, Frame, Said, Story, render, tally
from hb_tta.store import Store


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and a store beside it."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def png_of(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_demo_writes_a_page_and_prints_where_it_is(work, capsys):
    command = ["demo", "--questions", "2", "-n", "1", "--device", "cpu", "--out", "page.html"]
    assert main([*command, "--method", "hummingbird", "--method", "randaugment"]) == 0
    page = (work / "page.html").read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out == f"{work / 'page.html'}\n"
    assert page.count("<img") == 2 * (1 + 2)
    assert sum(entry.namespace == "descriptions" for entry in Store().entries()) == 2
    assert page.count("what it wrote down") == 2
    tallies = [line for line in said.err.splitlines() if line.startswith("Right answers")]
    assert len(tallies) == 2 and all(f"<p>{line}</p>" in page for line in tallies)
    assert "Loading weights" not in said.err


def test_the_demos_questions_are_the_first_of_every_kind_in_order_and_of_both_answers():
    kinds = len(CATEGORIES)
    chosen = list(pick_questions(2 * kinds))
    assert [one.category for one in chosen[:kinds]] == [one.category for one in chosen[kinds:]]
    assert len({one.category for one in chosen}) == kinds
    assert {one.answer for one in chosen} == {"Yes", "No"}
    first = {sample.question_id for sample in pocket_mme("dev", limit=2)}
    assert {one.question_id for one in chosen} == first
    assert len(list(pick_questions(7))) == 7


def test_the_demos_contexts_hold_no_answer():
    asked = list(pick_questions(5))
    for sample, context in zip(asked, contexts_of(asked), strict=True):
        assert context.ground_truth is None
        assert context.guidance == sample.question


def test_the_demo_tells_what_the_model_and_the_reader_say(work):
    samples = list(pick_questions(5))
    spec = {"generator": {}, "describer": None}
    drawn = [png_of(sample.image) for sample in samples]
    bare = [png_of(Image.new("RGB", (64, 64), (74, 148, 62)))] * 5  # nothing on it
    views = {
        "itself": [Augmentation([png], [0], "told", spec) for png in drawn],
        "nothing": [Augmentation([png], [3], None, spec) for png in bare],
    }
    told = tell(samples, views, get_family("pocket"), "cpu")
    for sample, story in zip(samples, told, strict=True):
        itself, nothing = story.attempts
        assert (story.target, story.kind) == (sample.answer, sample.category)
        assert "answer yes or no" not in story.question
        assert story.alone.right == (story.alone.answer.lower() == sample.answer.lower())
        assert itself.drawn[0].keeps, "the reader reads the real picture right"
        assert (itself.description, nothing.drawn[0].seed) == ("told", 3)
        seen = itself.drawn[0].said
        assert itself.together.answer == seen.answer == story.alone.answer, "one picture twice"
        assert seen.sure == pytest.approx(story.alone.sure, abs=1e-3)
        if sample.category in ("position", "color"):
            assert nothing.drawn[0].keeps is False, "the thing is gone"


# ── The page ─────────────────────────────────────────────────────────────────────────────────────

EVIL = '<script>alert("x")</script><img src=http://example.org/x.png onerror=alert(1)>'


def story(before: bool, after: bool, keeps: tuple = (True, False), text: str = "told") -> Story:
    image = Image.new("RGB", (8, 8))
    answers = {True: "Yes", False: "No"}
    drawn = [Drawn(image, n, kept, Said("Yes", True, 0.9)) for n, kept in enumerate(keeps)]
    together = Said(answers[after], after, 0.75)
    attempt = Attempt("a method" if text == "told" else text, text, drawn, together)
    return Story(image, text, "Yes", text, Said(answers[before], before, 0.6), [attempt])


def bare() -> Frame:
    return Frame("title", "lead", (), {}, {}, {})


@pytest.mark.parametrize(
    "before, after, verdict",
    [
        (True, True, "right alone, right with the views"),
        (True, False, "broken: right alone, wrong with the views"),
        (False, True, "fixed: wrong alone, right with the views"),
        (False, False, "wrong alone, wrong with the views"),
    ],
)
def test_a_page_says_what_became_of_the_answer_for_better_and_for_worse(before, after, verdict):
    page = Page(render([story(before, after)], bare()))
    assert verdict in page.text
    assert "1 of 2 views has another right answer." in page.text
    assert ("lost it" in page.text) == (before and not after)
    assert ("put it right" in page.text) == (after and not before)
    assert "75 %" in page.text and "90 %" in page.text and "60 %" in page.text


def test_the_tally_counts_all_that_is_shown():
    told = [story(True, True), story(True, False), story(True, False), story(False, True)]
    assert tally(told) == [
        "Right answers: 3 of 4 alone, 2 of 4 with the views of a method (1 fixed, 2 broken)."
    ]


def test_what_the_reader_cannot_tell_is_neither_kept_nor_lost():
    page = Page(render([story(True, True, (None, None))], bare())).text
    assert page.count("cannot be told") == 2 and "right answer." not in page


def test_the_page_explains_its_words_and_says_how_the_questions_were_chosen():
    text = Page(render([story(True, True)], frame())).text
    for word in ("dusk", "view", "together", "first of each kind", "hb-tta augment photo.jpg"):
        assert word in text


def test_the_page_loads_nothing_and_shows_any_text_as_it_is_written():
    source = render([story(True, True, text=EVIL)], Frame(EVIL, EVIL, [EVIL], {EVIL: EVIL}, {}, {}))
    page = Page(source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert all((its.get("src") or "data:").startswith("data:") for _, its in page.tags)
    assert EVIL in page.text and "default-src 'none'" in source
