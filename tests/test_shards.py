"""A job in parts: what each does, and that together they do what one run does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from augmenting import picture
from hypothesis import given
from hypothesis import strategies as st

from hb_tta.cli import main
from hb_tta.locks import owned
from hb_tta.shards import Shard
from hb_tta.spelling import Unfit
from hb_tta.store import Store

QUICK = ("--method", "jitter", "-n", "2", "--sheet", "0")  # needs no model


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 4))
def test_parts_are_disjoint_whole_and_balanced(items, count, block):
    parts = [list(Shard(i, count).part(range(items), block)) for i in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= block
    together = {item // block: number for number, part in enumerate(parts) for item in part}
    assert all(together[item // block] == n for n, part in enumerate(parts) for item in part)


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "1/0", "1", "1/2/3", "-1/4", "a/b", "", "1/ 2", "²/3"]
)
def test_what_is_no_part(text, capsys):
    with pytest.raises(Unfit, match="write I/N"):
        Shard.parse(text)
    with pytest.raises(SystemExit):
        main(["augment", "x.jsonl", f"--shard={text}"])
    assert "write I/N, from 1/N to N/N" in capsys.readouterr().err


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of seven rows, of which the fourth has no image, and blank lines between."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        if number != 3:
            picture(number).save(f"{number}.png")
    rows = [json.dumps({"image": f"{n}.png", "question": f"Is it {n}?"}) for n in range(7)]
    Path("rows.jsonl").write_text("\n\n".join(rows) + "\n")
    return tmp_path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def part(number: int, count: int, out: str, *more: str) -> list[str]:
    return ["augment", "rows.jsonl", *QUICK, "--out", out, "--shard", f"{number}/{count}", *more]


def test_four_processes_on_one_folder_do_what_one_does(work, capsys):
    running = [
        subprocess.Popen([sys.executable, "-m", "hb_tta.cli", *part(n, 4, "parts")])
        for n in range(1, 5)
    ]
    assert sorted(process.wait(120) for process in running) == [0, 0, 0, 1]  # one has the bad row
    shards = sorted((work / "parts").glob("manifest-*.jsonl"))
    assert [path.name for path in shards] == [
        f"manifest-{n:05d}-of-00004.jsonl" for n in (1, 2, 3, 4)
    ]
    assert sorted(len(lines(path)) for path in shards) == [1, 2, 2, 2]
    merged = [line for path in shards for line in lines(path)]
    before = Store().info()
    assert main(["augment", "rows.jsonl", *QUICK, "--out", "whole"]) == 1
    assert Store().info() == before  # all of it was there
    assert sorted(merged, key=lambda it: it["index"]) == lines(work / "whole" / "manifest.jsonl")
    assert json.loads((work / "parts/specs.json").read_text()) == json.loads(
        (work / "whole/specs.json").read_text()
    )
    views = {p.name: p.read_bytes() for p in (work / "parts/views").iterdir()}
    assert views == {p.name: p.read_bytes() for p in (work / "whole/views").iterdir()}


def test_the_joined_manifest_is_a_file_of_rows(work):
    for number in (1, 2):
        main(part(number, 2, "out"))
    shards = sorted((work / "out").glob("manifest-*"))
    (work / "out/manifest.jsonl").write_bytes(b"".join(path.read_bytes() for path in shards))
    assert main(["augment", "out/manifest.jsonl", *QUICK, "--out", "again"]) == 1
    assert len(lines(work / "again/manifest.jsonl")) == 7  # with the one that failed


def test_a_part_that_is_resumed_is_the_same_and_touches_no_others(work):
    main(part(1, 2, "out"))
    main(part(2, 2, "out"))
    before = {p.name: p.stat().st_mtime_ns for p in (work / "out").rglob("*") if p.is_file()}
    assert main(part(1, 2, "out")) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (work / "out").rglob("*") if p.is_file()}
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {"manifest-00001-of-00002.jsonl"}
    assert main(part(1, 2, "out", "--seed", "5")) == 0  # its own old views go, the other's stay
    left = {p.name for p in (work / "out/views").iterdir()}
    shards = [work / f"out/manifest-0000{n}-of-00002.jsonl" for n in (1, 2)]
    told = [line for path in shards for line in lines(path)]
    theirs = {view["file"] for line in told for view in line.get("views", [])}
    assert {f"views/{name}" for name in left} == theirs


@contextmanager
def held_elsewhere(folder: Path, *parts: str) -> Iterator[None]:
    """By another thread, to which a lock is as little its own as to another process."""
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(owned(folder, part))
            ready.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(60)
    yield
    done.set()
    thread.join()


def test_parts_and_a_whole_run_keep_out_of_each_others_folder(work, capsys):
    whole = ["augment", "0.png", *QUICK, "--out", "out"]
    with held_elsewhere(work / "out", "-00001-of-00002", "-00002-of-00002"):
        assert main(whole) == 1
        assert "'out' is in use by another run (process" in capsys.readouterr().err
        assert main(part(1, 2, "out")) == 1
        assert "in use by" in capsys.readouterr().err
    with held_elsewhere(work / "out", ""):
        assert main(part(1, 2, "out")) == 1
        assert "in use by" in capsys.readouterr().err
    assert main(part(1, 2, "out")) == 0


def test_more_parts_than_rows(work):
    assert main(part(9, 9, "out")) == 0
    assert not (work / "out/manifest.jsonl").exists()


# ── hb-tta tpt ───────────────────────────────────────────────────────────────────────────────────


def answered(capsys) -> str:
    return re.findall(r": (\d+) samples of part", capsys.readouterr().out)[-1]


def test_a_part_of_prompt_tuning_answers_chunks_for_the_whole(tmp_path, monkeypatch, capsys):
    from hb_tta.tpt import evaluate

    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path))
    monkeypatch.setattr(evaluate, "IMAGES_PER_CHUNK", 2)
    asked = ["tpt", "--task", "pocket_objects", "--family", "pocket", "--limit", "5"]
    asked += ["--crops", "3", "--quiet"]
    counts = []
    for number in (1, 2):
        assert main([*asked, "--shard", f"{number}/2"]) == 0
        counts.append(answered(capsys))
    assert counts == ["3", "2"]

    def refuse(*_):
        raise AssertionError("a part left something undone")

    monkeypatch.setattr(evaluate, "classified", refuse)
    assert main(asked) == 0
    assert "zero-shot" in capsys.readouterr().out
    assert main([*asked, "--shard", "1/2", "--out", "x.json"]) == 1
    assert "--out x.json is for scores" in capsys.readouterr().err


def test_few_shot_tasks_have_parts_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path))
    monkeypatch.setattr("hb_tta.tpt.evaluate.TASKS_PER_CHUNK", 1)
    asked = ["tpt", "--task", "pocket_hoi", "--family", "pocket", "--limit", "3", "--steps", "2"]
    for number, samples in ((1, "2"), (2, "1")):
        assert main([*asked, "--quiet", "--shard", f"{number}/2"]) == 0
        assert answered(capsys) == samples
    monkeypatch.setattr("hb_tta.tpt.evaluate.few_shot", None)
    assert main([*asked, "--quiet"]) == 0


# ── lmms-eval ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dealt():
    pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")
    from hb_tta.integrations.lmms_eval.shards import deal_out

    yield
    deal_out(None)


def test_parts_of_lmms_evals_questions_fill_the_store_for_the_whole(dealt, tmp_path, monkeypatch):
    import tiny_models
    from lmms_eval_runs import answers, evaluate, samples, small_tasks

    from hb_tta.views.models import Models

    tasks = small_tasks(tmp_path / "pocket_mme")
    mllm = tiny_models.save_llava(tmp_path / "mllm")
    asked = {
        "model": "llava_hf",
        "model_args": f"pretrained={mllm},device_map=cpu",
        "augment": "jitter",
        "augment_args": f"family=pocket,n=2,store={tmp_path / 'store'}",
    }
    seen, folders = [], []
    for number in (1, 2, 3):
        found = evaluate(tasks, shard=f"{number}/3", output_path=tmp_path / "out", **asked)
        seen.append([sample["doc_id"] for sample in samples(found)])
        folders.append({path.name for path in (tmp_path / "out/hb_tta").iterdir()})
    assert all(a // 2 == b // 2 for its in seen for a, b in zip(its[::2], its[1::2], strict=True))
    before = Store(tmp_path / "store").info()
    monkeypatch.setattr(Models, "generate", None)  # nothing is left to make
    whole = evaluate(tasks, **asked)
    assert sorted(doc for its in seen for doc in its) == [one["doc_id"] for one in samples(whole)]
    assert max(map(len, seen)) - min(map(len, seen)) <= 2
    assert [len(names) for names in folders] == [1, 2, 3]  # no part writes over another's
    assert Store(tmp_path / "store").info() == before and len(answers(whole)) > 4


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--shard", "1/2"], "--shard without --augment"),
        (["--shard", "3/2", "--augment", "jitter"], "--shard '3/2' is no part of a job"),
        (
            [
                "--shard=1/2",
                "--augment",
                "jitter",
                "--augment_args",
                "family=pocket,gate_share=0.5",
            ],
            "gate_share=0.5 needs all questions",
        ),
        (
            [
                "--shard=1/2",
                "--augment=jitter",
                "--augment_args=family=pocket",
                "--cache_requests=true",
            ],
            "--cache_requests keeps",
        ),
    ],
)
def test_a_part_that_cannot_be_had_of_lmms_eval(dealt, flags, told):
    from hb_tta.integrations.lmms_eval import prepare

    with pytest.raises(SystemExit, match=told):
        prepare(["lmms-eval", "--tasks", "pocket_mme_dev", *flags])
