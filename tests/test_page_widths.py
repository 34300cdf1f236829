"""Tables keep to their page: on a screen of 1,300 pixels and on a phone nothing is cut off."""

import chromium
import pytest

from hb_tta.experiments import pages
from hb_tta.experiments.reproduction import Drawing
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Column, Comparison, Table
from hb_tta.report.document import document
from hb_tta.report.drawing import differences

OVER = "[...document.querySelectorAll('.wide')].map(one => one.scrollWidth - one.clientWidth)"
OUTSIDE = """[...document.querySelectorAll('.wide b')].filter(one => {
  const place = one.getBoundingClientRect();
  return place.width === 0 || place.right > innerWidth || place.left < 0;
}).length"""


def cell(number: int) -> Cell:
    share = number / 100
    return Cell(
        share, share - 0.1, share + 0.1, 200, Comparison(0.035, "plain", -0.03), note="ECE 9"
    )


def tasks(count: int, name: str = "pocket_objects_sketch (sealed)") -> Table:
    names = [f"{name} {place}" for place in range(count)]
    rows: list[list[Cell | str]] = [
        [f"tpt + {method}", *map(cell, range(10, 10 + count))] for method in ("none", "views")
    ]
    return Table(["", *names], rows)


def categories(count: int) -> Table:
    columns = [
        Column(k, f"category {n}", "50 images") for n in range(count) for k in ("ACC", "ACC+")
    ]
    return Table(["", *columns], [["hummingbird", *map(cell, range(10, 10 + 2 * count))]])


def blocks(count: int) -> Table:
    """Two columns of names, categories, and a column beside them, as of tables 6 and 7."""
    one = categories(count)
    columns = ["", *one.columns, "could have shown"]
    return Table(columns, [["mllm", *one.rows[0], cell(3)]], heads=2)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium.open_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("width", [1300, 1000, 390])
@pytest.mark.parametrize(
    "table",
    [tasks(1), tasks(5), tasks(7), tasks(14), categories(3), categories(6), categories(14),
     blocks(4), blocks(5), blocks(6), blocks(7),
     tasks(3, "a_name_without_any_space_that_is_longer_than_a_phone_is_wide")],
    ids=["1 task", "5", "7", "14", "3 categories", "6", "14", "4 in blocks", "5 in blocks",
         "6 in blocks", "7 in blocks", "long names"],
)  # fmt: skip
def test_no_figure_of_a_table_is_out_of_the_window(table, width, tab, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(document("Title", renderers.html(table)), encoding="utf-8")
    phone = width < 500
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
             deviceScaleFactor=1, mobile=phone)  # fmt: skip
    tab.open(page.as_uri())
    assert tab.run("document.documentElement.scrollWidth") <= width
    if width != 1000:  # between the two, a table may scroll inside its frame
        assert tab.run(OUTSIDE) == 0 and max(tab.run(OVER)) <= 0
    assert tab.run("document.querySelectorAll('.wide b').length") == sum(
        isinstance(value, Cell) for row in table.rows for value in row
    )


def test_a_drawings_words_can_be_read_on_a_phone(tab, tmp_path):
    page = tmp_path / "page.html"
    svg = differences({"one": [("A method's name", (1.0, -1.0, 3.0))]}, "points")
    page.write_text(document("Title", pages.drawing(Drawing("Gains", svg))), encoding="utf-8")
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=900,
             deviceScaleFactor=1, mobile=True)  # fmt: skip
    tab.open(page.as_uri())
    assert tab.run("document.documentElement.scrollWidth") <= 390
    texts = "[...document.querySelectorAll('.drawing text')]"
    heights = tab.run(f"{texts}.map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 12, heights  # pixels; squeezed into the window they had 8
