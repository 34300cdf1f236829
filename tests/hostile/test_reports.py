"""Results folders of anybody's: a damaged one is told of in a sentence, and shows nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_files import line, png, write_augmented, write_plain, write_run

from hb_tta.cli import main
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.report import page, score, table
from hb_tta.report.album import data_uri
from hb_tta.store import Store
from hb_tta.tpt.results import read_results

RESULTS = "20260101_000000_results.json"
DEEP = "[" * 5000 + "]" * 5000


@pytest.fixture
def out(tmp_path) -> Path:
    write_plain(tmp_path / "out")
    write_augmented(tmp_path / "out", Store(tmp_path / "store"), date="20260102_000000")
    return tmp_path / "out"


def figures(out: Path) -> dict[str, Any]:
    return table.to_json(*scored(out))


def scored(out: Path) -> Any:
    task, runs = read_runs([str(out)])
    return task, score(runs)


def edit(path: Path, number: int, change: Any) -> None:
    """Edit the object in a line of a file."""
    lines = path.read_text().split("\n")
    found = json.loads(lines[number])
    change(found)
    lines[number] = json.dumps(found)
    path.write_text("\n".join(lines))


def refused(*sources: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_runs([str(source) for source in sources])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


# ── Paths in data ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "pixels", ["../../x", "/etc/hostname", "..", "", 7, None, "g" * 64, "a" * 64 + "/../../x"]
)
def test_pixels_are_a_digest_and_no_path(out, tmp_path, pixels):
    secret = Image.new("RGB", (9, 9), (1, 2, 3))
    for folder in (out, out / "hb_tta", *(out / "hb_tta").iterdir()):
        (folder / "x.png").write_bytes(png(secret))
    sound = figures(out)
    (samples,) = out.rglob("20260102*_samples_*.jsonl")
    beside = next(out.rglob("mme.jsonl"))
    for path in (samples, beside):
        edit(path, 0, lambda one: _images(one)[0].update(pixels=pixels))
    with pytest.warns(HbTtaWarning, match="records of what views said are damaged"):
        found = scored(out)
    assert table.to_json(*found) == sound
    made = page.render(*found, store=Store(tmp_path / "store"))
    assert data_uri(png(secret)) not in made.html


def _images(one: dict[str, Any]) -> list[dict[str, Any]]:
    return (one if "images" in one else one["token_counts"][0]["hb_tta"])["images"]


@pytest.mark.parametrize("key", ["../../x", "ab/../../../x", 3, None])
def test_a_views_key_is_a_digest_and_no_path(out, key):
    (samples,) = out.rglob("20260102*_samples_*.jsonl")
    edit(samples, 0, lambda one: _images(one)[0].update(keys=[key, key]))
    next(out.rglob("mme.jsonl")).unlink()
    with pytest.warns(HbTtaWarning, match="damaged"):
        _, runs = read_runs([str(out)])
    assert runs[1].records[0].seen == ()


def test_a_link_among_the_images_leads_nowhere(out, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(Image.new("RGB", (9, 9), (1, 2, 3))))
    image = next(out.rglob("images/*.png"))
    image.unlink()
    image.symlink_to(secret)
    made = page.render(*scored(out), store=Store(tmp_path / "store"))
    assert data_uri(secret.read_bytes()) not in made.html
    assert made.missing["hummingbird"] == 2


# ── What is beside the samples ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    ["null", "[1]", "{", DEEP, '{"doc_id": 0, "images": 3}', '{"doc_id": 0, "views": [null, [1]]}',
     '{"doc_id": 0, "images": [{}]}', '{"doc_id": 0, "views": [{"yes": "a", "no": 1}]}',
     '{"doc_id": 0, "combined": [1]}', '{"idx": -5, "doc_id": 0}', '{"images": []}',
     '{"doc_id": 0, "views": [{"yes": NaN, "no": 0}]}', '{"idx": 1e9, "doc_id": 0}'],
)  # fmt: skip
def test_damage_beside_the_samples_changes_no_figure(tmp_path, text):
    write_plain(tmp_path / "plain")
    write_augmented(tmp_path / "hb", Store(tmp_path / "store"), beside=True)
    sound = figures(tmp_path)
    beside = next(tmp_path.rglob("mme.jsonl"))
    lines = beside.read_text().split("\n")
    beside.write_text("\n".join([text, *lines[1:]]))
    with pytest.warns(HbTtaWarning, match="the figures are as they were"):
        found = scored(tmp_path)
    assert table.to_json(*found) == sound
    page.render(*found, store=Store(tmp_path / "store"))


@pytest.mark.parametrize("text", ["null", "{", DEEP, '{"method": 3}', '{"method": "x", "n": [[]]}'])
def test_settings_of_a_run_that_are_damaged(out, text):
    (next(out.rglob("mme.jsonl")).parent / "settings.json").write_text(text)
    _, runs = read_runs([str(out)])
    assert runs[1].command is not None and "lmms-eval" in runs[1].command


# ── Samples and results ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "line 1 is damaged"),
        (DEEP, "line 1 is damaged"),
        ('{"doc_id": ' + "9" * 5000 + "}", "line 1 is damaged"),
        ('{"doc_id": {}}', "line 1 has no doc_id"),
        ('{"doc_id": true}', "line 1 has no doc_id"),
        ('{"question": 1}', "line 1 has no doc_id"),
        ('{"doc_id": 0, "acc": NaN}', "no number a question (acc)"),
        ('{"doc_id": 0, "acc": 1e999}', "no number a question (acc)"),
        ('{"doc_id": 0, "acc": "' + "9" * 400 + '.0"}', "no number a question (acc)"),
        ('{"doc_id": 0, "acc": [[1]]}', "no number a question (acc)"),
        ('{"doc_id": 0, "acc": {"score": {"score": 1}}}', "no number a question (acc)"),
        ('{"doc_id": 0, "' + "m" * 70_000 + '": "x"}', "no number a question (mmm"),
    ],
)
def test_lines_of_another_shape(tmp_path, text, told):
    path = tmp_path / "0_samples_x.jsonl"
    path.write_text(text + "\n")
    assert told in refused(path)


@pytest.mark.parametrize(
    "score", [{"score": 1}, {"question_id": [], "category": "a", "score": 1}, 3, None,
              {"question_id": "a", "category": {}, "score": 1},
              {"question_id": "a", "category": "b", "score": "x"}],
)  # fmt: skip
def test_scores_of_mme_of_another_shape(tmp_path, score):
    path = write_plain(tmp_path)
    edit(path, 3, lambda one: one.update(mme_perception_score=score))
    assert "line 4 has no score of MME" in refused(tmp_path)
    edit(path, 0, lambda one: one.update(mme_perception_score=score))
    assert "line 1 has no score of MME" in refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"config": []}, {"config": {"model": {}}}, {"config": {"model_args": [1]}},
     {"config": {"limit": {}}}, {"model_name": 3, "model_name_sanitized": None}, {"configs": 1},
     {"higher_is_better": []}, {"results": "x"}],
)  # fmt: skip
def test_results_files_of_another_shape(tmp_path, change):
    path = write_plain(tmp_path).with_name(RESULTS)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert "results.json is damaged" in refused(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", DEEP, "\x00", '{"config": ' + "9" * 5000])
def test_results_files_that_hold_no_object(tmp_path, text):
    write_plain(tmp_path).with_name(RESULTS).write_text(text)
    assert "results.json is damaged" in refused(tmp_path)


def test_what_a_results_file_says_of_the_task_may_be_odd(tmp_path):
    lines = [{"doc_id": n, "acc": n % 2} for n in range(4)]
    path = write_run(tmp_path, lines, task="odd").with_name(RESULTS)
    about = json.loads(path.read_text())
    odd = {"metric_list": [3, {"metric": []}], "filter_list": [None], "score_key": 3,
           "cluster_key": {}}  # fmt: skip
    about |= {"configs": {"odd": odd}, "results": {"odd": [1]}, "higher_is_better": {"odd": 0}}
    path.write_text(json.dumps(about))
    assert score(read_runs([str(tmp_path)])[1])[0].total.acc.estimate == 0.5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0_samples_x.jsonl")
    assert "holds no samples file" in refused(tmp_path)
    assert "is no folder" in refused(tmp_path / "0_samples_x.jsonl")
    path = write_plain(tmp_path)
    path.with_name(RESULTS).unlink()
    os.mkfifo(path.with_name(RESULTS))
    assert read_runs([str(tmp_path)])[1][0].model is None


def test_names_with_signs_of_a_pattern(tmp_path):
    """A task's name is one, and matches no other's files."""
    write_augmented(tmp_path, Store(tmp_path / "store"), task="mme[ab]*", beside=True)
    _, runs = read_runs([str(tmp_path)])
    assert len(runs[0].records[0].seen) == 3


def test_the_command_gives_no_traceback(tmp_path, capsys):
    path = write_plain(tmp_path / "out")
    path.write_text(DEEP)
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "p.html")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hb-tta: ") and error.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


# ── Results of prompt tuning ─────────────────────────────────────────────────────────────────────

METHOD = {"accuracy": {"estimate": 0.5, "low": 0, "high": 1, "n": 2}, "ece": 0.1, "scores": [0, 1]}
RESULT = {"task": "t", "augment": "none", "samples": 2, "of": 4, "subset": True,
          "methods": {"zero-shot": METHOD}}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"task": 3}, {"augment": None}, {"samples": 0}, {"samples": 3}, {"of": "4"}, {"subset": "no"},
     {"methods": {}}, {"methods": {"a": 3}}, {"methods": {"a": {**METHOD, "scores": []}}},
     {"methods": {"a": {**METHOD, "scores": [0, 2]}}}, {"methods": {"a": {**METHOD, "ece": "x"}}},
     {"methods": {"a": METHOD, "b": {**METHOD, "scores": [1]}}},
     {"methods": {"a": {**METHOD, "gain over zero-shot": 1}}},
     {"methods": {"a": {**METHOD, "accuracy": {"estimate": 0.5}}}}],
)  # fmt: skip
def test_results_of_prompt_tuning_of_another_shape(tmp_path, change):
    path = tmp_path / "tpt.json"
    path.write_text(json.dumps({"format": 1, "results": [{**RESULT, **change}]}))
    with pytest.raises(UserError, match=r"tpt.json is no whole result of hb-tta tpt \(result 1: "):
        read_results(path)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", DEEP, '{"format": 2, "results": [{}]}', '{"format": 1, "results": []}',
     '{"format": 1, "results": [3]}'],
)  # fmt: skip
def test_files_that_are_no_results_of_prompt_tuning(tmp_path, text, capsys):
    path = tmp_path / "tpt.json"
    path.write_text(text)
    with pytest.raises(UserError, match="tpt.json is no whole result"):
        read_results(path)
    assert main(["report", str(path), "--out", str(tmp_path / "p.html")]) == 1
    assert capsys.readouterr().err.startswith("hb-tta: ")


def test_sound_results_of_prompt_tuning(tmp_path):
    path = tmp_path / "tpt.json"
    path.write_text(json.dumps({"format": 1, "results": [RESULT]}))
    assert read_results(path) == [RESULT]


def test_texts_that_are_no_utf8_make_a_page(tmp_path):
    """Halves of surrogate pairs, in answers and in names."""
    lines = [{**line(n, True), "filtered_resps": "\ud800", "input": "\udfff?"} for n in range(4)]
    write_run(tmp_path, lines)
    made = page.render(*scored(tmp_path), store=Store(tmp_path / "store"))
    made.html.encode()
