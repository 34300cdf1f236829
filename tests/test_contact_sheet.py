"""Contact sheets are whole, harmless pages."""

import base64
import io
import re

import numpy as np
import pytest
from pages import Page
from PIL import Image

from hb_tta.report.contact_sheet import LARGEST, Panel, Row, data_uri, render, visible

EVIL = '<script>alert("x")</script><img src=http://example.org/x.png onerror=alert(1)>&amp;\x00\x1b'


def noise(seed: int, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def panel(question: str = "Is it red?", **settings) -> Panel:
    rows = [
        Row("hummingbird", [noise(1), noise(2)], [7, 8], "A red circle"),
        Row("randaugment", [noise(3), noise(4)], [7, 8]),
    ]
    return Panel(noise(0), question, rows, **settings)


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_every_picture_is_on_the_page_pixel_for_pixel():
    images = Page(render([panel()], title="t")).images()
    assert [attributes["alt"] for attributes in images] == [
        "reference", "seed 7", "seed 8", "seed 7", "seed 8"
    ]  # fmt: skip
    for seed, attributes in enumerate(images):
        assert np.array_equal(decoded(attributes["src"] or ""), noise(seed))


def test_question_description_facts_and_title_are_shown():
    page = Page(
        render([panel(facts={"right answer": "Yes"})], title="My sheet", subtitle="of scenes")
    )
    for text in ("Is it red?", "A red circle", "right answer", "Yes", "My sheet", "of scenes"):
        assert text in page.text


def test_a_description_that_rows_share_is_shown_once_and_others_by_their_rows():
    shared = panel()
    assert render([shared], title="t").count("A red circle") == 1
    rows = [Row("a", [noise(1)], [0], "first text"), Row("b", [noise(2)], [0], "second text")]
    page = Page(render([Panel(noise(0), "q", rows)], title="t"))
    assert page.text.index("a") < page.text.index("first text") < page.text.index("second text")


def test_the_page_loads_nothing_from_elsewhere():
    source = render([panel(EVIL, facts={EVIL: EVIL})], title=EVIL, subtitle=EVIL)
    page = Page(source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in source
    assert "default-src 'none'" in source


def test_hostile_text_is_shown_as_it_is_written():
    rows = [Row(EVIL, [noise(1)], [0], EVIL)]
    page = Page(render([Panel(noise(0), EVIL, rows, {EVIL: EVIL})], title=EVIL))
    spelled = EVIL.replace("\x00", r"\x00").replace("\x1b", r"\x1b")
    # title twice, question, description, fact's name and text, label
    assert page.text.count(spelled) == 7
    assert len(page.images()) == 2


@pytest.mark.parametrize("text", ["", "هل هناك كلب؟", "犬はいますか", "👩‍👩‍👧", "x" * 100_000])
def test_any_question_gives_a_page_in_utf8(text):
    source = render([panel(text)], title="t")
    assert text in Page(source.encode().decode()).text


def test_what_cannot_be_shown_is_spelled_out():
    assert visible("a\x07b\ud800c\nd") == "a\\x07b\\ud800c\nd"


def test_large_images_are_made_smaller_and_small_ones_stay_crisp():
    large = Row("large", [noise(1, 1024)], [0])
    source = render([Panel(noise(0, 64), "q", [large])], title="t")
    assert re.search(r'<figure class="small"><img[^>]*alt="reference"', source)
    assert re.search(r'<figure class="large"><img[^>]*alt="seed 0"', source)
    assert ".small img { image-rendering: pixelated; }" in source
    assert decoded(data_uri(noise(1, 1024))).size == (LARGEST, LARGEST)
    assert decoded(data_uri(Image.new("RGB", (2000, 100)))).size[0] == LARGEST


def test_the_callers_image_is_left_as_it_is():
    image = noise(1, 1024)
    data_uri(image)
    assert image.size == (1024, 1024)


def test_views_without_their_seeds_are_a_bug():
    with pytest.raises(AssertionError):
        render([Panel(noise(0), "q", [Row("a", [noise(1)], [])])], title="t")


def test_a_page_without_panels_is_a_page():
    assert render([], title="t").startswith("<!DOCTYPE html>")


def test_line_breaks_and_markup_survive_the_parser():
    source = render([panel("first\nsecond <b>")], title="t")
    assert "first\nsecond <b>" in Page(source).text
    assert re.search(r"first\nsecond &lt;b&gt;", source)
