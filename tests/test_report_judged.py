"""What a run's files say of judges and gates: on the report's page, and damaged."""

from __future__ import annotations

import json

import pytest
from report_files import line, picture, png, said, write_run

from hb_tta.integrations.lmms_eval.folders import SamplesFile
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.integrations.lmms_eval.said import Damaged, check_record, seen_of
from hb_tta.report import page, score
from hb_tta.store import Store, content_key


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def judged(number, store):
    """A question with two views that a judge likes and one that it does not."""
    record = said(number, store)
    key = content_key({"question": number, "dropped": 0})
    store.put("views", key, png(picture(900 + number)), {})
    record["images"][0] |= {
        "scores": [0.75, 0.5],
        "real_score": 0.625,
        "dropped": [[2, key, 0.125]],
    }
    return {**record, "gate": {"p": 0.5625, "passed": True}}


def closed(number, store):
    """A question that the gate stopped."""
    record = said(number, store, views=0)
    return {**record, "gate": {"p": 0.96875, "passed": False}}


def run_of(tmp_path, store):
    make = [closed if number % 2 else judged for number in range(8)]
    counts = [{"hb_tta": make[number](number, store)} for number in range(8)]
    lines = [line(number, True, token_counts=[counts[number]]) for number in range(8)]
    return read_runs([str(write_run(tmp_path / "out", lines))])


def test_the_page_tells_scores_dropped_candidates_and_gates(tmp_path, store):
    task, (run,) = run_of(tmp_path, store)
    first, second = run.records[:2]
    assert [seen.score for seen in first.seen] == [0.625, 0.75, 0.5]
    assert [(seen.label, seen.score) for seen in first.dropped] == [("seed 2", 0.125)]
    assert (first.sure, second.sure) == (0.5625, 0.96875)
    assert len(second.seen) == 1 and second.dropped == ()
    html = page.render(task, score([run]), store=store).html
    for told in (
        "judge 0.625",
        "judge 0.125",
        "not shown to the model",
        "sure to 56.2 %: so views",
    ):
        assert told in html
    assert "sure to 96.9 %: its plain answer stood" in html


def test_an_image_with_fewer_views_stands_in_for_itself(tmp_path, store):
    record = said(0, store)
    fewer = {**record["images"][0], "seeds": [0], "keys": record["images"][0]["keys"][:1]}
    for about, scores in ((record["images"][0], [0.9, 0.8]), (fewer, [0.7])):
        about |= {"scores": scores, "real_score": 0.6, "dropped": []}
    record["images"].append(fewer)
    check_record(record)
    seen = seen_of(SamplesFile(tmp_path / "x_samples_mme.jsonl"), [record], [])
    assert [len(its.pictures) for its in seen] == [2, 2, 2]
    assert seen[2].pictures[1] == seen[0].pictures[1]
    assert [its.score for its in seen] == [0.6, 0.7, 0.6]


@pytest.mark.parametrize(
    "about",
    [
        {"scores": "high"},
        {"scores": [0.5, "high"]},
        {"real_score": float("nan")},
        {"dropped": [[1, "../../etc/passwd", 0.5]]},
        {"dropped": [[1, "0" * 64]]},
        {"dropped": {"seed": 1}},
    ],
)
def test_damaged_scores_are_no_record(store, about):
    record = said(0, store)
    record["images"][0] |= about
    with pytest.raises(Damaged):
        check_record(json.loads(json.dumps(record)))
