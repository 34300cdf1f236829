"""`hb-tta augment --dry-run`: what is to be made, counted and tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from augmenting import CONTEXTS, picture

from hb_tta.cli import main
from hb_tta.cli.dry_run import Forecast, forecast
from hb_tta.settings import ViewSettings
from hb_tta.store import Store

pytest_plugins = ["augmenting"]

QUICK = ("--method", "jitter", "-n", "3")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty rows on ten images, and one without an image."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        picture(number).save(f"{number}.png")
    rows = [{"image": f"{n % 10}.png", "question": f"Is it {n}?"} for n in range(40)]
    rows.append({"image": "none.png", "question": "Is it?"})
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def dry(capsys, *more: str) -> dict:
    main(["augment", "rows.jsonl", *QUICK, "--dry-run", "--json", *more])
    return json.loads(capsys.readouterr().out)


def test_it_counts_what_is_missing_and_keeps_what_it_tried(work, capsys):
    told = dry(capsys)
    assert (told["images"], told["failed"]) == (40, 1)
    before, left, tried = told["to_make_before"], told["to_make"], told["measured"]
    assert (before["candidates"], before["to_make"]) == (120, 30)  # equal views count once
    made = Store().info().namespaces["views"]
    assert made.files == before["to_make"] - left["to_make"] == 3 + tried["views"]
    assert tried["seconds"] > 0 and told["seconds"] >= left["to_make"] * tried["seconds"]
    assert told["store"]["files"] == left["to_make"] and told["out"]["files"] == 120
    assert not (work / "hb-tta-out").exists()
    assert main(["augment", "rows.jsonl", *QUICK]) == 1
    capsys.readouterr()
    whole = Store().info().namespaces["views"]
    assert whole.files == 30  # as it said
    grown = whole.bytes - made.bytes
    assert told["store"]["bytes"] == pytest.approx(grown, rel=0.2)  # beside what describes each
    again = dry(capsys)
    assert again["to_make"]["to_make"] == again["seconds"] == 0 and again["measured"] is None


def test_people_read_lines_and_a_part_is_a_part(work, capsys):
    assert main(["augment", "rows.jsonl", *QUICK, "--dry-run"]) == 1
    told = capsys.readouterr()
    assert "images: 40, and 1 lines that cannot be used" in told.out and "none.png" in told.err
    assert "views: 120, of which 30 were missing" in told.out and "they are kept" in told.out
    assert dry(capsys, "--shard", "2/2")["images"] == 20
    assert dry(capsys, "--shard", "1/2")["images"] == 20
    assert main(["augment", "rows.jsonl", *QUICK, "--json"]) == 1
    assert "--json is for --dry-run" in capsys.readouterr().err


def looked_at(make_augmenter, **changed) -> tuple[Forecast, Forecast]:
    augmenter = make_augmenter(**changed)
    settings = ViewSettings("hummingbird", n=2, family="pocket")
    first = forecast(augmenter, settings, CONTEXTS)
    augmenter.make(CONTEXTS, n=2)
    return first, forecast(augmenter, settings, CONTEXTS)


def test_views_whose_description_is_to_be_written_count_as_lacking(make_augmenter):
    first, second = looked_at(make_augmenter)
    assert (first.before.to_describe, first.before.unknown, first.before.to_make) == (4, 4, 8)
    assert first.left.entries == 0 and first.measured is not None  # all four were tried
    assert second.before.entries == 0 and second.measured is None
    assert "nothing is missing" in second.text()


def test_scores_are_counted_too(make_augmenter):
    first, second = looked_at(make_augmenter, judge="itm", candidates=3)
    assert (first.before.to_make, first.before.to_judge) == (12, 16)  # the real images, too
    assert second.before.entries == 0
