"""``hb-tta report`` of results of prompt tuning: alone, and on one page with an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chromium
import pytest
from report_files import write_augmented, write_plain
from test_contact_sheet import EVIL
from test_contact_sheet import Page as Parsed

from hb_tta.cli import main
from hb_tta.metrics import bootstrap_interval, paired_test
from hb_tta.store import Store
from hb_tta.tpt.results import written

TASKS = [f"pocket_objects{end} (dev)" for end in ("", "_a", "_v2", "_r", "_sketch")]


def result(task: str, augment: str, rights: dict[str, str]) -> dict[str, Any]:
    """As ``hb_tta.tpt.evaluate`` gives it; a 1 for each sample that a method gets right."""
    methods: dict[str, Any] = {}
    for name, its in rights.items():
        scores = [int(one) for one in its]
        entry: dict[str, Any] = {"accuracy": vars(bootstrap_interval(scores)), "ece": 0.125}
        if name != "zero-shot":
            before = [int(one) for one in rights["zero-shot"]]
            entry["gain over zero-shot"] = vars(paired_test(scores, before))
        methods[name] = entry | {"scores": scores}
    counts = {"samples": len(scores), "of": 500, "subset": True}
    return {"augment": augment, "task": task, "methods": methods, **counts}


@pytest.fixture
def tuned(tmp_path) -> Path:
    path = tmp_path / "tpt.json"
    results = [
        result(task, augment, {"zero-shot": "11001010", "tpt": tuned, "average": "11101010"})
        for task in TASKS
        for augment, tuned in (("none", "11001011"), ("hummingbird", "11111010"))
    ]
    path.write_bytes(written(results))
    return path


def report(tmp_path: Path, *sources: Path) -> tuple[Parsed, str, dict[str, Any]]:
    """The page, its source and the figures."""
    out, told = tmp_path / "r.html", tmp_path / "r.json"
    line = ["report", *map(str, sources), "--out", str(out), "--json", str(told)]
    assert main([*line, "--store", str(tmp_path / "store")]) == 0
    text = out.read_text()
    return Parsed(text), text, json.loads(told.read_text())


def test_the_table_and_the_page(tuned, tmp_path, capsys):
    page, text, figures = report(tmp_path, tuned)
    printed = " ".join(capsys.readouterr().out.split())
    assert "tpt + hummingbird" in printed and "could have shown" in printed
    head, *rows = figures["prompt_tuning"]["rows"]
    assert head[0] == "zero-shot"
    columns = [column["name"] for column in figures["prompt_tuning"]["columns"]]
    assert columns == ["", "average", "gain over zero-shot", "could have shown", *TASKS]
    gain = {row[0]: row[2]["estimate"] for row in rows}
    assert gain["tpt + hummingbird"] == pytest.approx(0.25)
    shown = {row[0]: row[3]["estimate"] for row in rows}
    scores = [[1, 1, 1, 1, 1, 0, 1, 0] * 5, [1, 1, 0, 0, 1, 0, 1, 0] * 5]
    assert (
        shown["tpt + hummingbird"] == paired_test(*scores, groups=list(range(40))).could_have_shown
    )
    assert "Prompt tuning" in page.text and "http" not in text.replace("http-equiv", "")


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    """Its content security policy, with names that would."""
    path = tmp_path / "tpt.json"
    path.write_bytes(written([result(EVIL, EVIL, {"zero-shot": "10", EVIL: "11"})]))
    page, text, _ = report(tmp_path, path)
    (policy,) = [its["content"] for tag, its in page.tags if "http-equiv" in its]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and "img" not in tags
    assert not [its for _, its in page.tags if "onerror" in its]
    assert "\x00" not in text and "\x1b" not in text


def test_on_one_page_with_an_evaluation(tuned, tmp_path, capsys):
    write_plain(tmp_path / "out")
    write_augmented(tmp_path / "out", Store(tmp_path / "store"), date="20260102_000000")
    page, text, figures = report(tmp_path, tmp_path / "out", tuned)
    printed = capsys.readouterr().out
    assert "mme. In percent" in printed and "tpt + hummingbird" in printed
    assert figures["runs"][1]["name"] == "hummingbird" and figures["prompt_tuning"]["rows"]
    assert [tag for tag, _ in page.tags].count("table") == 2
    assert text.index("Prompt tuning</h2>") < text.index('id="gallery"')


def test_the_last_file_of_a_method_counts_and_samples_must_be_the_same(tuned, tmp_path, capsys):
    better = tmp_path / "better.json"
    better.write_bytes(
        written([result(TASKS[0], "none", {"zero-shot": "11001010", "tpt": "11111111"})])
    )
    _, _, figures = report(tmp_path, tuned, better)
    rows = {row[0]: row for row in figures["prompt_tuning"]["rows"]}
    assert rows["tpt + none"][4]["estimate"] == 1
    better.write_bytes(written([result(TASKS[0], "none", {"zero-shot": "10", "tpt": "11"})]))
    capsys.readouterr()
    assert main(["report", str(tuned), str(better), "--out", str(tmp_path / "x.html")]) == 1
    told = capsys.readouterr().err
    assert "was evaluated on 8 and on 2 samples" in told or "on 2 and on 8 samples" in told


@pytest.mark.parametrize("width", [1300, 390])
def test_what_matters_most_is_in_the_window(tuned, tmp_path, width):
    """All of the table: side by side at 1,300 pixels, on a phone a block a row."""
    if chromium.executable() is None:
        pytest.skip(chromium.MISSING)
    report(tmp_path, tuned)
    with chromium.open_tab(tmp_path / "profile") as tab:
        tab.resize(width, 900)
        tab.open((tmp_path / "r.html").as_uri())
        cells = "[...document.querySelectorAll('tbody tr:last-child td')]"
        ends = tab.run(f"{cells}.map(one => one.getBoundingClientRect().right)")
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert len(ends) > 3 and 0 < min(ends) and max(ends) <= width
        assert tab.complaints == []
