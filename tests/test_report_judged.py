"""Kept and dropped candidates with a judge's scores: on the report's page and on contact sheets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_files import SETTINGS, line, picture, png, said, write_plain, write_run
from test_contact_sheet import Page as Parsed

from hb_tta.cli import main
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.report import page, score
from hb_tta.report.contact_sheet import Dropped, Panel, Row, render
from hb_tta.store import Store, content_key


def judged(number: int, store: Store) -> dict[str, Any]:
    """What the plugin writes of a question of which a judge dropped one candidate of three."""
    record = said(number, store)
    key = content_key({"question": number, "dropped": 2})
    store.put("views", key, png(picture(200 + number)), {})
    (image,) = record["images"]
    image |= {"scores": [0.75, 0.5], "real_score": 0.875, "dropped": [[7, key, 0.125]]}
    return record


def written(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    counts = [[{"output_tokens": 2, "hb_tta": record}] for record in records]
    lines = [line(n, True, token_counts=its) for n, its in enumerate(counts)]
    args = f"pretrained=tiny,device_map=cpu,{SETTINGS}"
    write_run(folder / "hb", lines, model_args=args)
    write_plain(folder / "plain", "1" * len(records))
    return [str(folder / "plain"), str(folder / "hb")]


def test_the_page_shows_what_a_judge_kept_and_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folders = written(tmp_path, [judged(n, store) for n in range(8)])
    task, runs = read_runs(folders)
    record = runs[1].records[0]
    assert [seen.score for seen in record.seen] == [0.875, 0.75, 0.5]
    assert [(seen.label, seen.score) for seen in record.dropped] == [("seed 7", 0.125)]
    made = page.render(task, score(runs), store=store)
    figures = [its for tag, its in Parsed(made.html).tags if tag == "figure"]
    assert sum(its.get("class") == "dropped" for its in figures) == 8
    for told in ("judge 0.88", "judge 0.75", "judge 0.50", "judge 0.12"):  # 0.125 is even
        assert told in made.html
    assert made.missing == {"hummingbird": 8}  # the real images, which nobody wrote here


def test_images_with_fewer_views_show_the_real_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    records = [said(n, store) for n in range(8)]
    for record in records:
        other = {**record["images"][0], "seeds": [5], "keys": record["images"][0]["keys"][:1]}
        record["images"].append(other)
    _, runs = read_runs(written(tmp_path, records))
    seen = runs[1].records[0].seen
    assert [len(its.pictures) for its in seen] == [2, 2, 2]
    assert seen[2].pictures[1] == seen[0].pictures[1]  # in the place of a second view
    assert [its.label for its in seen] == ["real", "seed 0", "seed 1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": [1]},
        {"scores": ["high", "low"]},
        {"real_score": "x"},
        {"dropped": [[1, "../../x", 0.5]]},
        {"dropped": [[1, "0" * 64]]},
        {"dropped": "none"},
        {"dropped": [[1, "0" * 64, None]]},
    ],
)
def test_a_damaged_judgement_is_no_record(tmp_path: Path, wrong: dict[str, Any]) -> None:
    from hb_tta.integrations.lmms_eval.said import Damaged, check_record

    record = judged(0, Store(tmp_path / "store"))
    check_record(record)
    record["images"][0] |= wrong
    with pytest.raises(Damaged):
        check_record(record)


def test_a_contact_sheet_shows_dropped_candidates_behind_the_others() -> None:
    row = Row(
        "views", [picture(1)], [3], "a cat", [1.25], 2.5, [Dropped(picture(2), 4, -0.5)]
    )  # fmt: skip
    text = render([Panel(picture(0), "Is it?", [row])], title="sheet")
    parsed = Parsed(text)
    kinds = [its.get("class") for tag, its in parsed.tags if tag == "figure"]
    assert kinds == ["small", "small", "small dropped"]
    for told in ("seed 3: 1.25", "seed 4: −0.50, dropped", "of the reference itself 2.50"):
        assert told in parsed.text
    plain = render([Panel(picture(0), "", [Row("views", [picture(1)], [3])])], title="sheet")
    assert "judge" not in plain.split("</style>")[1] and "dropped" not in plain.split("</style>")[1]


def test_augment_tells_kept_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hb_tta.pocket.tasks import pocket_mme

    monkeypatch.chdir(tmp_path)
    next(pocket_mme("dev", category="count", limit=1)).image.save("a.png")
    line = "augment a.png --family pocket --method hummingbird --steps 2 --store st --judge itm"
    assert main([*line.split(), "-n", "1", "--candidates", "2", "--out", "one"]) == 0
    (told,) = map(json.loads, Path("one/manifest.jsonl").read_text().splitlines())
    assert len(told["views"]) == len(told["dropped"]) == 1
    assert told["views"][0]["score"] >= told["dropped"][0]["score"]
    assert isinstance(told["real_score"], float)
    assert len(list(Path("one/views").iterdir())) == 1  # a dropped one is no view
    assert "dropped" in Path("one/index.html").read_text().split("</style>")[1]
    # None is good enough: the page and the line still are.
    assert main([*line.split(), "-n", "2", "--min-score", "1000", "--out", "none"]) == 0
    (told,) = map(json.loads, Path("none/manifest.jsonl").read_text().splitlines())
    assert told["views"] == [] and len(told["dropped"]) == 2
    assert Path("none/index.html").exists()


def test_the_page_tells_what_a_gate_made_of_a_question(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    records = [said(n, store, views=0 if n % 2 else 2) for n in range(8)]
    for n, record in enumerate(records):
        record["gate"] = {"p": 0.96875 if n % 2 else 0.5625, "passed": not n % 2}
    task, runs = read_runs(written(tmp_path, records))
    assert [record.sure for record in runs[1].records[:2]] == [0.5625, 0.96875]
    html = page.render(task, score(runs), store=store).html
    assert "sure to 56.2 %: so views were asked for" in html
    assert "sure to 96.9 %: its plain answer stood" in html
