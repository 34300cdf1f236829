"""Two runs in one folder, stale files, damaged bookkeeping: nothing is lost or mislabelled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from hb_tta.cli import main
from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.sidecar import Sidecar, read_sidecar
from hb_tta.locks import owned
from hb_tta.training.recipes import get_recipe
from hb_tta.training.train import train

QUICK = ("--method", "randaugment", "--family", "pocket")
IDENTITY = ("doc_id", "idx")

# ── One run at a time ────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys, time
from pathlib import Path
from hb_tta.locks import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def taken(tmp_path):
    """A folder in which another process runs."""
    folder = tmp_path / "taken"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    yield folder, holder
    holder.kill()
    holder.wait()


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> list[Path]:
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    paths = [tmp_path / f"{name}.png" for name in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (32, 32), path.stem).save(path)
    return paths


def test_a_second_run_is_told_who_has_the_folder(taken):
    folder, holder = taken
    with pytest.raises(UserError, match=rf"is in use by another run \(process {holder.pid} on "):
        with owned(folder):
            pass
    holder.kill()
    holder.wait()
    with owned(folder):  # a killed run holds nothing
        pass


def test_augment_keeps_out_of_another_runs_folder(taken, pictures, capsys):
    folder, _ = taken
    assert main(["augment", str(pictures[0]), *QUICK, "--out", str(folder)]) == 1
    assert "is in use by another run" in capsys.readouterr().err
    assert all(name.startswith(".") for name in os.listdir(folder))


def test_the_trainer_keeps_out_of_another_runs_folder(taken):
    folder, _ = taken
    with pytest.raises(UserError, match="is in use by another run"):
        train(get_recipe("pocket"), folder, quiet=True)
    assert all(name.startswith(".") for name in os.listdir(folder))


# ── A manifest lists what it says ────────────────────────────────────────────────────────────────


def manifest(folder: Path) -> list[dict]:
    lines = (folder / "manifest.jsonl").read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if line]


def views(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "views").iterdir()}


def test_what_an_earlier_run_left_goes_when_another_is_whole(tmp_path, pictures):
    out = tmp_path / "out"
    line = ["augment", str(pictures[0]), *QUICK, "--out", str(out)]
    assert main([*line, "-n", "3"]) == 0
    write_aside(out / "views" / "000001-seed0.png", b"an older version's")
    write_aside(out / "views" / "mine.png", b"a person's own")
    assert main([*line, "-n", "2", "--seed", "1"]) == 0
    listed = {Path(view["file"]).name for view in manifest(out)[0]["views"]}
    assert set(views(out)) == {*listed, "mine.png"}
    assert main(["augment", str(pictures[1]), *QUICK, "--out", str(out), "-n", "2"]) == 0
    assert len(views(out)) == 3


def test_a_run_that_stops_leaves_no_picture_under_anothers_name(tmp_path, pictures, monkeypatch):
    out, first = tmp_path / "out", tmp_path / "first"
    file = tmp_path / "q.jsonl"
    for folder, picture in ((first, pictures[0]), (out, pictures[0])):
        file.write_text(f'{{"image": "{picture}"}}\n' * 3)
        assert main(["augment", str(file), *QUICK, "-n", "1", "--out", str(folder)]) == 0
    before, known = manifest(out), views(out)
    file.write_text(f'{{"image": "{pictures[1]}"}}\n' * 3)
    monkeypatch.setattr("hb_tta.cli.output.Output.add", stopping_after(2))
    assert main(["augment", str(file), *QUICK, "-n", "1", "--out", str(out)]) == 130
    assert manifest(out) == before
    assert {name: views(out)[name] for name in known} == known == views(first)


def stopping_after(count: int):
    from hb_tta.cli.output import Output

    add = Output.add
    added: list[object] = []

    def stop(self, request, *rest):
        if len(added) == count:
            raise KeyboardInterrupt
        added.append(request)
        return add(self, request, *rest)

    return stop


def test_an_interrupted_warm_rerun_leaves_the_whole_manifest(tmp_path, pictures, monkeypatch):
    out, file = tmp_path / "out", tmp_path / "q.jsonl"
    file.write_text(f'{{"image": "{pictures[0]}"}}\n{{"image": "{pictures[1]}"}}\n')
    line = ["augment", str(file), *QUICK, "-n", "1", "--out", str(out)]
    assert main(line) == 0
    before = manifest(out)
    monkeypatch.setattr("hb_tta.cli.output.Output.add", stopping_after(1))
    assert main(line) == 130
    assert manifest(out) == before and len(views(out)) == 2


# ── Sidecars ─────────────────────────────────────────────────────────────────────────────────────


def said(number: int, answer: str = "yes") -> dict:
    return {"doc_id": number, "idx": 0, "answer": answer}


def written(folder: Path, *lines: dict) -> Path:
    sidecar = Sidecar(folder, 0, IDENTITY)
    for line in lines:
        sidecar.add("mme", line, {})
    sidecar.write()
    return folder / "mme.jsonl"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\ud800", "\x00", "\r"])
def test_a_second_evaluation_reads_any_answer_of_the_first(tmp_path, mark):
    written(tmp_path, said(1, f"one{mark}two"))
    path = written(tmp_path, said(2))
    lines, damaged = read_sidecar(path, IDENTITY)
    assert damaged == 0
    assert [line["answer"] for line in lines.values()] == [f"one{mark}two", "yes"]
    assert sorted(os.listdir(tmp_path)) == ["mme.jsonl"]


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b"\xff", b"3", b'{"doc_id": 1}', b"[" * 9999, b"9" * 5000]
)
def test_a_damaged_sidecar_is_set_aside_before_the_first_answer(tmp_path, damage):
    path = written(tmp_path, said(1), said(2))
    earlier = path.read_bytes() + damage + b"\n\n"
    path.write_bytes(earlier)
    sidecar = Sidecar(tmp_path, 0, IDENTITY)
    with pytest.warns(HbTtaWarning, match=r"damaged: 1; .* is now mme.jsonl.damaged1"):
        sidecar.begin("mme")
    assert (tmp_path / "mme.jsonl.damaged1").read_bytes() == earlier
    sidecar.add("mme", said(3), {})
    sidecar.write()
    lines, damaged = read_sidecar(path, IDENTITY)
    assert ([line["doc_id"] for line in lines.values()], damaged) == ([1, 2, 3], 0)


def test_a_cut_sidecar_keeps_its_whole_lines(tmp_path):
    path = written(tmp_path, said(1), said(2))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(HbTtaWarning):
        written(tmp_path, said(3))
    assert [line["doc_id"] for line in read_sidecar(path, IDENTITY)[0].values()] == [1, 3]


@pytest.mark.parametrize("task", ["../mme", "/mme", "a/../../mme"])
def test_a_tasks_name_leads_to_no_other_folder(tmp_path, task):
    with pytest.raises(UserError, match="cannot name a file"):
        Sidecar(tmp_path / "run", 0, IDENTITY).begin(task)


def test_a_disk_that_is_full_at_the_end_costs_no_answer():
    from hb_tta.integrations.lmms_eval.recording import Records
    from hb_tta.integrations.sidecar import Sidecar

    class Full(Sidecar):
        def __init__(self) -> None:
            pass

        def write(self) -> None:
            raise OSError(28, "No space left on device")

    Records(Full()).write()


# ── Trainings ────────────────────────────────────────────────────────────────────────────────────


SMALL = {
    "samples": 8, "held_out": 2, "num_inference_steps": 2, "gradient_steps": 1, "batch_size": 2,
    "micro_batch_size": 2, "save_steps": 1, "evaluate_steps": 5, "sample_contexts": 1,
    "trackers": "", "max_steps": 1, "dtype": "float32",
}  # fmt: skip


def test_a_finished_training_has_the_lora_that_it_says(tmp_path, capsys):
    line = ["train", "--recipe", "pocket", "--out", str(tmp_path / "run")]
    for key, value in (SMALL | {"cache": tmp_path / "cache"}).items():
        line += ["--set", f"{key}={value}"]
    assert main(line) == 0
    lora = tmp_path / "run" / "adapter_model.safetensors"
    config = tmp_path / "run" / "adapter_config.json"
    trained, settings = lora.read_bytes(), config.read_bytes()
    lora.write_bytes(b"junk")
    config.unlink()
    capsys.readouterr()
    assert main(line) == 0
    assert "what was trained is in" in capsys.readouterr().out
    assert (lora.read_bytes(), config.read_bytes()) == (trained, settings)


def test_a_lock_is_let_go_in_milliseconds(tmp_path):
    started = time.monotonic()
    for _ in range(20):
        with owned(tmp_path):
            pass
    assert time.monotonic() - started < 5
    assert os.listdir(tmp_path) == [".hb-tta.lock"]
