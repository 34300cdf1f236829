"""Tables: how a figure is written, and what a terminal, Markdown, HTML and programs get of it."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hb_tta.metrics import Interval, PairedTest
from hb_tta.report import renderers
from hb_tta.report.cells import (
    NOTHING,
    Cell,
    Column,
    Comparison,
    Table,
    figure,
    from_json,
    to_json,
    written,
)
from hb_tta.report.document import document

SCORE = Cell(0.864, 0.84, 0.8871, 250, Comparison(0.0351, "plain", -0.032), note="ECE 10.0")
GAIN = Cell.difference(PairedTest(0.035, -0.005, 0.075, 0.00004, 200), "zero-shot")
EVIL = '<b>x</b> | "&" \x1b[2J\nnext'


class Page(HTMLParser):
    """A page's elements, and the text of each cell."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def small(**settings) -> Table:
    rows: list[list[Cell | str]] = [
        ["plain", Cell(0.5, 0.25, 0.75), ""],
        ["tuned | all", SCORE, GAIN],
    ]
    return Table(["", "ACC", "gain"], rows, **settings)


# ── How it is written ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.864), "86.4"),
        (Cell(0.864, 0.84, 0.887), "86.4 [84.0, 88.7]"),
        (SCORE, "86.4 [84.0, 88.7] −3.2 (p=0.035) ECE 10.0"),
        (GAIN, "+3.5 [−0.5, +7.5], p<0.001"),
        (Cell.of(Interval(35.678, 35, 36, 40), kind="number", unit="dB"), "35.7 [35.0, 36.0] dB"),
        (Cell(-0.04, kind="percent"), "−4.0"),
        (Cell(0.0, 0.0, 0.0, test=Comparison(1.0, "", 0.0)), "0.0 [0.0, 0.0] 0.0 (p=1.000)"),
        (Cell(1234.5, kind="rate"), "1.23e+03"),
        (Cell(6.4449, kind="rate"), "6.44"),
        (Cell(22.118, kind="fine"), "22.12"),
        ("a\x07b", "a\\x07b"),
        ("", ""),
        (NOTHING, "–"),
    ],
)  # fmt: skip
def test_a_cell_on_one_line(cell, text):
    assert written(cell) == text


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (-0.0001, "points", "0.0"),
        (0.0004999, "percent", "0.0"),
        (-0.0006, "points", "−0.1"),
        (1.0, "percent", "100.0"),
        (-0.5, "rate", "−0.5"),
    ],
)
def test_what_rounds_to_nothing_has_no_sign(value, kind, text):
    assert figure(value, kind) == text


def test_an_unknown_kind_and_rows_of_other_lengths_are_bugs():
    with pytest.raises(KeyError):
        written(Cell(1.0, kind="parsec"))
    with pytest.raises(AssertionError, match="another length"):
        Table(["a", "b"], [["x"]])


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────


def test_markdown():
    assert renderers.markdown(small(title="Two runs", notes=["In percent.", "Of 2."])) == (
        "Two runs\n"
        "\n"
        "|  | ACC | gain |\n"
        "| --- | --- | --- |\n"
        "| plain | 50.0 [25.0, 75.0] |  |\n"
        "| tuned \\| all | 86.4 [84.0, 88.7] −3.2 (p=0.035) ECE 10.0 "
        "| +3.5 [−0.5, +7.5], p<0.001 |\n"
        "\n"
        "In percent.\n"
        "\n"
        "Of 2."
    )  # fmt: skip


def test_markdown_keeps_its_columns_whatever_a_name_holds():
    lines = renderers.markdown(Table(["a", "b"], [[EVIL, "y"]])).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 3
    assert "\x1b" not in lines[2]


def test_grouped_columns_have_their_whole_names_in_markdown():
    table = Table(["", Column("ACC", "count"), Column("ACC+", "count")], [["a", "1", "2"]])
    assert renderers.markdown(table).splitlines()[0] == "|  | count ACC | count ACC+ |"


# ── A terminal ───────────────────────────────────────────────────────────────────────────────────


def test_columns_where_they_fit():
    text = renderers.text(small(title="Two runs", notes=["In percent."]), 100)
    assert text.splitlines() == [
        "Two runs",
        "               ACC                                        gain",
        "  plain        50.0 [25.0, 75.0]",
        "  tuned | all  86.4 [84.0, 88.7] −3.2 (p=0.035) ECE 10.0  +3.5 [−0.5, +7.5], p<0.001",
        "",
        "In percent.",
    ]


def test_values_behind_their_names_where_columns_do_not_fit():
    assert renderers.text(small(), 70).splitlines() == [
        "  plain        ACC 50.0 [25.0, 75.0]",
        "  tuned | all  ACC 86.4 [84.0, 88.7] −3.2 (p=0.035) ECE 10.0",
        "               gain +3.5 [−0.5, +7.5], p<0.001",
    ]


def test_rows_stand_under_the_first_of_two_names():
    rows = [[part, name, Cell(0.5)] for part in ("count", "color") for name in ("plain", "tuned")]
    text = renderers.text(Table(["category", "run", "ACC"], rows, heads=2), 60)
    assert text.splitlines() == [
        "count",
        "  run    ACC",
        "  plain  50.0",
        "  tuned  50.0",
        "",
        "color",
        "  run    ACC",
        "  plain  50.0",
        "  tuned  50.0",
    ]


def test_the_terminals_own_width_is_kept_to(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, renderers.text(small()).splitlines())) <= 40
    monkeypatch.setenv("COLUMNS", "200")
    assert renderers.text(small()) == renderers.text(small(), 200)


def test_wide_signs_take_two_places():
    rows = [["犬はいますか", "1"], ["dog", "2"]]
    _, first, second = renderers.text(Table(["", "ACC"], rows), 60).splitlines()
    assert first == "  犬はいますか  1"
    assert second == "  dog           2"


plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
numbers = st.floats(-2, 2)
cells = st.one_of(
    plain,
    st.builds(Cell, numbers, numbers, numbers, st.integers(1, 999), st.none(), note=plain),
    st.builds(
        Cell, numbers, test=st.builds(Comparison, st.floats(0, 1), plain, st.none() | numbers)
    ),
)


@st.composite
def tables(draw) -> Table:
    heads, width = draw(st.sampled_from([1, 2])), draw(st.integers(2, 5))
    columns = draw(st.lists(plain, min_size=width, max_size=width))
    row = st.tuples(*[plain] * heads, *[cells] * (width - heads))
    rows = draw(st.lists(row, max_size=4))
    return Table(columns, rows, draw(plain), draw(st.lists(plain, max_size=2)), heads)


@given(tables(), st.integers(24, 160))
@settings(max_examples=200, deadline=None)
def test_no_line_is_longer_than_the_terminal(table, width):
    assert all(len(line) <= width for line in renderers.text(table, width).splitlines())


@given(tables(), st.integers(24, 160))
@settings(max_examples=200, deadline=None)
def test_no_figure_is_lost_in_a_terminal(table, width):
    shown = "".join(renderers.text(table, width).split())
    for row in table.rows:
        for value in row[table.heads :]:
            assert "".join(written(value).split()) in shown


# ── HTML ─────────────────────────────────────────────────────────────────────────────────────────


def test_html():
    source = renderers.html(small(title="Two runs", notes=["In percent."]))
    page = Page(source)
    assert [cell.partition("\n")[0] for cell in page.cells] == [
        *("", "ACC", "gain"),
        *("plain", "50.0[25.0, 75.0]", ""),
        *("tuned | all", "86.4[84.0, 88.7]−3.2 p=0.035ECE 10.0", "+3.5[−0.5, +7.5]p<0.001"),
    ]
    assert '<small class="down sure">−3.2 <br>p=0.035</small>' in source
    assert '<small class="up sure">p&lt;0.001</small>' in source
    assert 'title="n = 250, against plain"' in source
    assert "<h2>Two runs</h2>" in source and "<p>In percent.</p>" in source


def test_a_difference_that_may_be_chance_is_not_set_off():
    source = renderers.html(Table(["", "x"], [["a", Cell(0.5, test=Comparison(0.05, "b", 0.1))]]))
    assert '<small class="up">' in source


def test_groups_of_columns_have_a_row_of_their_own():
    columns = ["", *(Column(k, g, f"{g}!") for g in ("count", "all") for k in ("ACC", "ACC+"))]
    page = Page(renderers.html(Table(columns, [["a", "1", "2", "3", "4"]])))
    heads = [its for tag, its in page.tags if tag == "th"]
    assert [its.get("colspan") for its in heads] == [None, "2", "2", *[None] * 5]
    assert heads[0]["rowspan"] == "2"
    assert page.cells == ["", "countcount!", "allall!", "ACC", "ACC+", "ACC", "ACC+\n",
                          "a", "1", "2", "3", "4\n"]  # fmt: skip
    firsts = [its.get("class") for tag, its in page.tags if tag == "td"]
    assert firsts == ["first", None, "first", None]


def test_html_in_a_name_is_text():
    cell = Cell(1.0, unit=EVIL, note=EVIL, test=Comparison(0.5, EVIL))
    table = Table([EVIL, Column(EVIL, EVIL, EVIL)], [[EVIL, cell]], EVIL, [EVIL])
    page = Page(document(EVIL, renderers.html(table), lead=EVIL))
    assert [tag for tag, its in page.tags if its.get("class") is None].count("b") == 1
    assert "\x1b" not in renderers.html(table)


def test_every_page_loads_nothing_and_runs_no_script_but_its_own():
    def policy(page: str) -> str | None:
        (found,) = [its["content"] for _, its in Page(page).tags if "http-equiv" in its]
        return found

    assert policy(document("t", "")) == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    one, other = (policy(document("t", "", script=script)) for script in ("f()", "g()"))
    assert one and "; script-src 'sha256-" in one and one != other


# ── For programs ─────────────────────────────────────────────────────────────────────────────────


def test_json_has_every_digit_and_only_what_is_there():
    found = to_json(small(notes=["n"]))
    assert found["columns"] == [{"name": ""}, {"name": "ACC"}, {"name": "gain"}]
    share = {"estimate": 0.5, "low": 0.25, "high": 0.75, "kind": "percent"}
    assert found["rows"][0] == ["plain", share, ""]
    test = {"p_value": 0.0351, "against": "plain", "difference": -0.032}
    assert found["rows"][1][1]["test"] == test


@given(tables())
@settings(max_examples=200, deadline=None)
def test_json_gives_the_table_back(table):
    assert from_json(json.loads(json.dumps(to_json(table)))) == table


def test_an_empty_table():
    table = Table(["", "ACC"], [], "None yet.")
    assert renderers.markdown(table) == "None yet.\n\n|  | ACC |\n| --- | --- |"
    assert renderers.text(table, 80) == "None yet."
    assert "<tbody></tbody>" in renderers.html(table)
    assert from_json(to_json(table)) == table
