"""The report's figures and what it reads: lmms-eval's samples files, ours and other people's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from report_files import SETTINGS, line, write_augmented, write_plain, write_run

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.report import Record, Run, score, table
from hb_tta.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def both(tmp_path, store) -> list[str]:
    """A run without and one with our flag: question 2 is broken; 3 and 5 are fixed."""
    write_plain(tmp_path / "plain")
    write_augmented(tmp_path / "hb", store)
    return [str(tmp_path / "plain"), str(tmp_path / "hb")]


def scored(sources, **settings):
    task, runs = read_runs(sources, **settings)
    return table.to_json(task, score(runs))


def test_figures(both):
    plain, augmented = scored(both)["runs"]
    assert (plain["name"], augmented["name"]) == ("plain", "hummingbird")
    count = plain["categories"]["count"]
    assert (count["acc"], count["acc_plus"]) == (75.0, 50.0)
    assert (count["questions"], count["images"]) == (4, 2)
    assert count["acc_interval"] == [50.0, 100.0]
    assert plain["categories"]["color"]["acc"] == 25.0
    assert plain["categories"]["all"]["acc"] == 50.0
    assert "against_plain" not in count
    against = augmented["categories"]["all"]["against_plain"]
    assert (against["fixed"], against["broken"]) == (2, 1)
    assert against["acc_difference"] == pytest.approx(12.5)
    assert against["acc_plus_difference"] == pytest.approx(25.0)
    assert 0 < against["acc_p_value"] <= 1
    assert augmented["compared_with"] == "plain"
    assert augmented["settings"]["views"] == "2"


def test_figures_by_hand():
    rights = [True, True, False, True, True, False, False, False, True, True]
    records = [Record(str(n), str(n // 2), "c", right) for n, right in enumerate(rights)]
    found = score([Run("plain", records, plain=True)])[0].scores["c"]
    assert found.acc.estimate == 6 / 10
    assert found.acc_plus is not None
    assert found.acc_plus.estimate == 2 / 5
    assert found.acc_plus.estimate <= found.acc.estimate
    assert found.acc.n == 5


def test_parts_of_a_point_count_as_parts():
    """As in VQA's accuracy; from half a point on an answer counts as right."""
    plain = [Record(str(n), str(n), "c", s) for n, s in enumerate((0.3, 0.6, 1.0))]
    tuned = [Record(str(n), str(n), "c", s) for n, s in enumerate((0.9, 0.3, 1.0))]
    _, one = score([Run("plain", plain, plain=True), Run("tuned", tuned)])
    found = one.scores["c"]
    assert found.acc.estimate == pytest.approx(2.2 / 3)
    assert found.change is not None
    assert found.change.acc.difference == pytest.approx(0.1)
    assert (found.change.fixed, found.change.broken) == (1, 1)


def test_an_order_of_questions_does_not_matter(tmp_path, store, both):
    first = scored(both)
    (samples,) = (tmp_path / "hb").rglob("*_samples_*.jsonl")
    samples.write_text("".join(reversed(samples.read_text().splitlines(keepends=True))))
    again = scored(both)
    assert first["runs"][0] == again["runs"][0]
    for name, its in first["runs"][1]["categories"].items():
        assert its == again["runs"][1]["categories"][name]


def test_runs_of_another_kind():
    """One question an image, as in classification: the table is made of it as it stands."""
    runs = [
        Run(
            "zero-shot", [Record(str(n), str(n), "real", n % 2 == 0) for n in range(8)], plain=True
        ),
        Run("tuned", [Record(str(n), str(n), "real", n % 4 < 3) for n in range(8)]),
    ]
    plain, tuned = score(runs)
    assert plain.scores["real"].acc_plus is None
    assert tuned.scores["real"].change is not None
    assert tuned.scores["real"].change.fixed == 2
    assert "ACC+" not in table.text("objects", [plain, tuned])
    assert table.to_json("objects", [plain, tuned])["runs"][1]["categories"]["real"]["acc"] == 75.0


def test_the_odd_question_of_a_limit_is_left_out(tmp_path):
    write_plain(tmp_path, "1111001")
    color = scored([str(tmp_path)])["runs"][0]["categories"]["color"]
    assert (color["acc"], color["acc_plus"], color["left_out"]) == (0.0, 0.0, 1)
    _, runs = read_runs([str(tmp_path)])
    assert "could have shown" not in table.text("mme", score(runs))  # nothing is compared
    assert "1 questions are left out" in table.text("mme", score(runs))


# ── What is read ─────────────────────────────────────────────────────────────────────────────────


def test_one_folder_of_several_runs(tmp_path, store):
    write_plain(tmp_path)
    write_augmented(tmp_path, store, date="20260102_000000")
    assert [run["name"] for run in scored([str(tmp_path)])["runs"]] == ["plain", "hummingbird"]


def test_samples_files_themselves(tmp_path, store):
    plain = write_plain(tmp_path / "a", results=False)
    other = write_augmented(tmp_path / "b", store, results=False)
    found = scored([str(other), str(plain)])
    assert [run["plain"] for run in found["runs"]] == [True, False]
    assert found["runs"][1]["compared_with"] == "plain"


def test_cognition_and_documents_of_older_files(tmp_path):
    lines = [line(n, True) for n in range(8)]
    for one in lines:
        one["mme_cognition_score"] = one.pop("mme_perception_score")
        one["doc"] = {"question": one.pop("input")}
        one["filtered_resps"] = [one["filtered_resps"]]
    write_run(tmp_path, lines, results=False)
    _, (run,) = read_runs([str(tmp_path)])
    assert run.records[3].text.startswith("Is it number 3?")
    assert run.records[3].answer == "No"
    assert all(record.right for record in run.records)


def test_what_the_views_said(both, tmp_path):
    _, (plain, augmented) = read_runs(both)
    assert not plain.records[0].seen
    record = augmented.records[0]
    assert [view.label for view in record.seen] == ["real", "seed 0", "seed 1"]
    assert record.seen[1].yes == -0.2
    assert record.seen[0].pictures[0].file is not None
    assert record.description == "a description of 0"


def test_answers_out_of_the_response_cache(tmp_path, store, both):
    """The samples file has no word of the views then; the file beside it has."""
    write_augmented(tmp_path / "cached", store, beside=True)
    (beside,) = (tmp_path / "cached").rglob("mme.jsonl")
    lines = beside.read_text().splitlines(keepends=True)
    beside.write_text("".join(lines[::2]))
    beside.with_name("mme.rank1.jsonl").write_text("".join(lines[1::2]))
    _, (cached,) = read_runs([str(tmp_path / "cached")])
    _, (_, augmented) = read_runs(both)
    assert [r.seen[1:] for r in cached.records] == [r.seen[1:] for r in augmented.records]


def test_runs_of_equal_names_are_told_apart(tmp_path, store):
    write_plain(tmp_path / "plain")
    for views in (2, 4):
        hb = SETTINGS.replace("views=2", f"views={views}")
        write_augmented(tmp_path / f"views{views}", store, hb=hb)
    found = scored([str(folder) for folder in tmp_path.iterdir() if folder.name != "store"])
    names = {run["name"] for run in found["runs"]}
    assert names == {"plain", "hummingbird views=2", "hummingbird views=4"}


def test_runs_of_other_weights_are_told_apart(tmp_path, store):
    for number, spec in enumerate(("aaaa", "bbbb", "bbbb")):
        hb = SETTINGS.replace("0123456789abcdef", spec)
        write_augmented(tmp_path / str(number), store, hb=hb)
    runs = scored([str(tmp_path / name) for name in "012"])["runs"]
    assert [run["name"] for run in runs] == [
        "hummingbird spec=aaaa",
        "hummingbird spec=bbbb (1)",
        "hummingbird spec=bbbb (2)",
    ]


def test_models_are_not_compared_with_each_other(tmp_path, store):
    write_plain(tmp_path / "plain", model="llava")
    write_augmented(tmp_path / "hb", store, model="internvl")
    _, runs = read_runs([str(tmp_path / "plain"), str(tmp_path / "hb")])
    assert all(one.plain is None for one in score(runs))
    text = " ".join(table.text("mme", score(runs)).split())  # notes are wrapped to the terminal
    assert "llava: plain" in text and "nothing is compared" in text


def test_the_latest_of_the_same_settings_counts(tmp_path):
    write_plain(tmp_path, "00000000")
    write_plain(tmp_path, "11111111", date="20260102_000000")
    with pytest.warns(UserWarning, match="20260101_000000_samples_mme.jsonl is left out"):
        (run,) = scored([str(tmp_path)])["runs"]
    assert run["categories"]["all"]["acc"] == 100.0


def test_the_command_that_makes_views_again(both):
    _, (plain, augmented) = read_runs(both, store="/data/views")
    assert plain.command is None
    assert augmented.command == (
        "lmms-eval --model llava_hf --tasks mme --model_args pretrained=tiny,device_map=cpu "
        "--limit 8 --device cpu --augment hummingbird --augment_args "
        "preset=paper,family=pocket,seed=0,views=2,store=/data/views --log_samples --output_path "
        + both[1]
    )  # fmt: skip


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────


def refused(*sources: Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        read_runs([str(source) for source in sources], **settings)
    return str(caught.value)


def test_no_folder_and_no_samples(tmp_path):
    assert "nowhere is no folder" in refused(tmp_path / "nowhere")
    assert "--log_samples" in refused(tmp_path)


def test_a_task_without_a_number_a_question(tmp_path):
    lines = [{"doc_id": n, "submission": {"0": "a cat"}, "bleu": ["a cat", "cat"]} for n in "ab"]
    other = write_run(tmp_path / "captions", lines, task="captions")
    told = refused(tmp_path / "captions")
    assert "captions.jsonl has no number a question (submission, bleu)" in told
    other.write_text("")
    assert "has no answers" in refused(other)


def test_damaged_files(tmp_path):
    samples = write_plain(tmp_path)
    text = samples.read_text()
    samples.write_text(text[:-40])
    assert "line 8 is damaged" in refused(tmp_path)
    samples.write_bytes(b"\xff\xfe")
    assert "is no text" in refused(tmp_path)
    samples.write_text(text + text)
    assert "question 0 more than once" in refused(tmp_path)
    lines = [line(0, True), {"doc_id": 1}]
    samples.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert "line 2 has no score of MME" in refused(tmp_path)
    samples.with_name("20260101_000000_results.json").write_text("{")
    assert "results.json is damaged" in refused(tmp_path)


def test_mixed_tasks(tmp_path):
    write_plain(tmp_path)
    write_plain(tmp_path, task="mme_tta")
    assert "several tasks (mme, mme_tta): choose one with --task" in refused(tmp_path)
    assert read_runs([str(tmp_path)], task="mme_tta")[0] == "mme_tta"
    assert "--task pope: the results hold mme, mme_tta alone" in refused(tmp_path, task="pope")


def test_runs_over_other_questions(tmp_path, store):
    a, b = tmp_path / "a", tmp_path / "b"
    write_plain(a)
    write_augmented(b, store, limit=4.0)
    assert "with limit 8.0 and hummingbird" in refused(a, b)
    write_augmented(b, store, torch_seed=3)
    assert "torch_seed None" in refused(a, b)
    write_augmented(b, store, "110111")
    assert "is in the run plain and not in hummingbird" in refused(a, b)
    path = write_augmented(b, store)
    path.write_text(path.read_text().replace("Is it number 3?", "Is it <b>number 4</b>?"))
    assert "question 3 is another one in plain" in refused(a, b)


def test_the_command(both, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["report", *both, "--store", str(tmp_path / "store"), "--json", "r.json"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "hummingbird  ACC 75.0 [50.0, 100.0] 0.0 (p=1.000)" in out
    assert out.splitlines()[-1] == str(tmp_path / "hb-tta-report.html")
    assert json.loads((tmp_path / "r.json").read_text()) == scored(both)
    assert main(["report", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("hb-tta: nowhere is no folder: give what stood")
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "name another file with --out" in capsys.readouterr().err


def test_the_command_needs_neither_torch_nor_lmms_eval(both, tmp_path):
    line = ["report", *both, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "p.html")]
    code = f"""
import sys
sys.modules["torch"] = sys.modules["lmms_eval"] = None  # an import of either fails
from hb_tta.cli import main
sys.exit(main({line!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all: 8 questions, 4 images" in done.stdout


def test_markdown(both):
    text = table.markdown(score(read_runs(both)[1]))
    assert "| count | hummingbird | 75.0 [50.0, 100.0] 0.0 (p=1.000) |" in text


def test_what_so_many_questions_could_have_shown_stands_below_the_table(tmp_path, store):
    write_plain(tmp_path)
    write_augmented(tmp_path, store, date="20260102_000000")
    runs = scored([str(tmp_path)])["runs"]
    against = runs[1]["categories"]["all"]["against_plain"]
    low, high = against["acc_difference_interval"]
    assert 0 < against["acc_could_have_shown"] == pytest.approx((high - low) * 2.8 / 3.92, rel=0.01)
    task, found = read_runs([str(tmp_path)])
    told = table.text(task, score(found))
    assert f"{against['acc_could_have_shown']:.1f} points of ACC" in " ".join(told.split())
