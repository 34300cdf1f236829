"""``hb-tta vlmevalkit`` with the real VLMEvalKit: what it says is what ``hb_tta.answer`` says."""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

pytest.importorskip("vlmeval", reason="VLMEvalKit is not installed: see `make harnesses`")

import tiny_models
from serving import pocket, served
from vlmeval import config, inference
from vlmeval import run as vlmeval_run
from vlmeval.api.base import BaseAPI
from vlmeval.smp import encode_image_to_base64
from vlmeval.vlm import GraniteVision3
from vlmevalkit_runs import Run, command, evaluate, read, views_of, write_tsv

from hb_tta import answer
from hb_tta.cli import main
from hb_tta.describe import load_mllm
from hb_tta.families import get_family
from hb_tta.integrations.failure import AugmentationFailed
from hb_tta.integrations.vlmevalkit import command_line
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.tta.vote import vote

JITTER = ("--augment", "jitter", "--augment_args")
N2 = "family=pocket,n=2"
ROOT = Path(__file__).parents[1]
COUNT = 12  # VLMEvalKit keeps its answers every 10 questions


@pytest.fixture(scope="session")
def samples():
    return list(islice(pocket_mme("dev"), COUNT))


@pytest.fixture(scope="session")
def mllm():
    return load_mllm(get_family("pocket").weights("mllm"), device="cpu")


@pytest.fixture(scope="session")
def lmu(tmp_path_factory, samples):
    """VLMEvalKit's data: yes/no, choices, several images, and open questions."""
    folder = tmp_path_factory.mktemp("lmu")
    yes_no = [{"image": s.image, "question": s.question, "answer": s.answer} for s in samples]
    write_tsv(folder / "PocketYesNo.tsv", yes_no)
    choices = [
        {
            "image": one["image"],
            "question": one["question"],
            "A": "Yes",
            "B": "No",
            "answer": "AB"[one["answer"] == "No"],
            "category": "all",
        }
        for one in yes_no[:6]
    ]
    write_tsv(folder / "PocketChoices.tsv", choices)
    pairs = [{**yes_no[k], "image": [yes_no[k]["image"], yes_no[-1 - k]["image"]]} for k in (0, 2)]
    write_tsv(folder / "PocketPairs.tsv", pairs)
    write_tsv(folder / "PocketOpen.tsv", [{**yes_no[0], "question": "Describe this image."}] * 2)
    return folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, lmu):
    monkeypatch.setenv("LMUData", str(lmu))
    monkeypatch.delenv("MMEVAL_ROOT", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def no_gpu(monkeypatch):
    """VLMEvalKit's models call ``cuda``; here that is the CPU."""
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self, *_: self)


def expected(mllm, samples, arguments=N2, method="jitter", **settings):
    views = views_of(samples, method, arguments)
    return [
        answer(*mllm, one.image, one.question, its, do_sample=False, **settings)
        for one, its in zip(samples, views, strict=True)
    ]


# ── The same answers ─────────────────────────────────────────────────────────────────────────────


def test_its_answers_are_those_of_answer(tmp_path, mllm, samples):
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *JITTER, N2)
    found = expected(mllm, samples)
    assert list(run.answers.values()) == [one.text for one in found]
    for record, one in zip(run.records.values(), found, strict=True):
        assert (record["mode"], record["combine"]) == ("batched", "mean")
        for its, seen in zip(record["views"], one.seen, strict=True):
            assert (its["yes"], its["no"]) == pytest.approx(tuple(seen), abs=1e-4)
        assert record["combined"]["yes"] == pytest.approx(one.combined.yes, abs=1e-4)
    assert run.status["datasets"]["PocketYesNo"]["status"] == "done"


def test_generated_views_of_the_paper(tmp_path, mllm, samples):
    arguments = "family=pocket,n=1,preset=paper,steps=2"
    options = ("--augment", "hummingbird", "--augment_args", arguments, "--limit", "2")
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *options)
    found = expected(mllm, samples[:2], arguments, "hummingbird")
    assert list(run.answers.values()) == [one.text for one in found]
    assert all(one["images"][0]["description"] for one in run.records.values())


@pytest.mark.parametrize("at_once", ["1", "5", "auto"])
def test_the_number_at_once_changes_nothing(tmp_path, mllm, samples, at_once):
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *JITTER, f"{N2},at_once={at_once}")
    assert list(run.answers.values()) == [one.text for one in expected(mllm, samples)]


def test_without_views_it_is_vlmevalkits_own(tmp_path, mllm, samples):
    run = evaluate(tmp_path, "pocket", "PocketYesNo")
    plain = [answer(*mllm, one.image, one.question, do_sample=False).text for one in samples]
    assert list(run.answers.values()) == plain and run.records == {}
    gated = evaluate(tmp_path / "gated", "pocket", "PocketYesNo", *JITTER, f"{N2},gate=0")
    assert gated.answers == run.answers
    assert all(not its["gate"]["passed"] for its in gated.records.values())


def test_the_gate_shows_views_where_the_model_is_not_sure(tmp_path, mllm, samples):
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *JITTER, f"{N2},gate=0.95")
    found = expected(mllm, samples, gate=0.95)
    assert list(run.answers.values()) == [one.text for one in found]
    passed = [record["gate"]["passed"] for record in run.records.values()]
    assert passed == [one.gate.passed for one in found] and set(passed) == {True, False}
    for record, its in zip(run.records.values(), passed, strict=True):
        assert len(record["views"]) == (3 if its else 1)
        assert len(record["images"][0]["keys"]) == (2 if its else 0)


def test_votes_of_a_model_in_this_process(tmp_path, mllm, samples):
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *JITTER, f"{N2},combine=vote")
    shown = views_of(samples, "jitter", N2)
    for index, (one, views) in enumerate(zip(samples, shown, strict=True)):
        said = [answer(*mllm, p, one.question, do_sample=False).text for p in (one.image, *views)]
        assert [its["answer"] for its in run.records[index]["views"]] == said
        assert run.answers[index] == said[vote(said)]
        assert (run.records[index]["mode"], run.records[index]["combine"]) == ("vote", "vote")


@pytest.mark.parametrize("more", ["paraphrases=1", "combine=concat", "combine=confidence"])
def test_other_combinations(tmp_path, more):
    run = evaluate(tmp_path, "pocket", "PocketYesNo", *JITTER, f"{N2},{more}", "--limit", "3")
    rows = {"paraphrases=1": 6, "combine=concat": 0, "combine=confidence": 3}[more]
    assert [len(its["views"]) for its in run.records.values()] == [rows] * 3
    assert {its["combine"] for its in run.records.values()} == {
        more.partition("combine=")[2] or "mean"
    }


# ── VLMEvalKit's own models and data sets ────────────────────────────────────────────────────────


def weights(tmp_path, kind):
    if kind == "pocket":
        return get_family("pocket").weights("mllm").location
    return getattr(tiny_models, f"save_{kind}")(tmp_path / kind)


@pytest.mark.parametrize("kind", ["pocket", "llava", "llava_next"])
@pytest.mark.parametrize("data", ["PocketYesNo", "PocketChoices", "PocketPairs", "PocketOpen"])
def test_stock_models_and_kinds_of_task(tmp_path, monkeypatch, no_gpu, kind, data):
    """Joint decoding at batches of any size, and views that are the image change no answer."""
    build = partial(GraniteVision3, model_path=str(weights(tmp_path, kind)), max_new_tokens=5)
    monkeypatch.setitem(config.supported_VLM, "stock", build)
    plain = evaluate(tmp_path / "plain", "stock", data, "--limit", "4")
    gated = evaluate(tmp_path / "0", "stock", data, *JITTER, f"{N2},gate=0", "--limit", "4")
    assert gated.answers == plain.answers
    one, many = (
        evaluate(tmp_path / at, "stock", data, *JITTER, f"{N2},at_once={at}", "--limit", "4")
        for at in ("1", "8")
    )
    assert one.answers == many.answers
    for index, record in many.records.items():
        assert len(record["views"]) == 3 and record["mode"] in ("batched", "lock-step")
        assert len(record["images"]) == (2 if data == "PocketPairs" else 1)
        if record["views"] and "yes" in record["views"][0]:
            for its, alone in zip(record["views"], one.records[index]["views"], strict=True):
                assert its["yes"] == pytest.approx(alone["yes"], abs=2e-2)  # of 16 bits


def test_a_data_set_is_scored_as_vlmevalkit_scores_it(tmp_path, lmu):
    data = {"class": "ImageYORNDataset", "dataset": "PocketYesNo"}
    told = {"model": {"pocket": {}}, "data": {"PocketYesNo": data}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    line = ["vlmevalkit", "--config", str(tmp_path / "config.json"), "--judge", "exact_matching"]
    assert main([*line, "--work-dir", str(tmp_path / "out"), *JITTER, N2]) == 0
    run = read(tmp_path / "out", "pocket", "PocketYesNo")
    (score,) = (tmp_path / "out").rglob("*_score.csv")
    assert len(run.records) == COUNT and "Overall" in score.read_text()


# ── APIs ─────────────────────────────────────────────────────────────────────────────────────────


class Api(BaseAPI):
    """An API that says what the bundled model says, and gives up on some pictures."""

    is_api = True
    INTERLEAVE = True
    bad: frozenset[bytes] = frozenset()
    busy = most = 0
    lock = threading.Lock()

    def __init__(self, mllm, **settings):
        super().__init__(retry=1, wait=0, verbose=False, **settings)
        self._mllm = mllm

    def generate_inner(self, inputs, **settings):
        with self.lock:
            Api.busy += 1
            Api.most = max(Api.most, Api.busy)
        try:
            (path,) = [part["value"] for part in inputs if part["type"] == "image"]
            (text,) = [part["value"] for part in inputs if part["type"] == "text"]
            image = Image.open(path).convert("RGB")
            time.sleep(0.3)  # BaseAPI itself waits up to 0.5 s before a request
            if image.tobytes() in self.bad:
                return 500, "", "overloaded"
            with self.lock:
                return 0, answer(*self._mllm, image, text, do_sample=False).text, ""
        finally:
            with self.lock:
                Api.busy -= 1


@pytest.fixture
def api(monkeypatch, mllm):
    monkeypatch.setattr(Api, "most", 0)
    monkeypatch.setitem(config.supported_VLM, "api", partial(Api, mllm))
    return Api


def test_an_apis_rows_are_asked_together_and_vote(tmp_path, api, samples, mllm):
    options = (*JITTER, f"{N2},combine=vote", "--api-nproc", "2")
    through = evaluate(tmp_path / "api", "api", "PocketYesNo", *options)
    direct = evaluate(tmp_path / "direct", "pocket", "PocketYesNo", *JITTER, f"{N2},combine=vote")
    assert through.answers == direct.answers
    assert [its["views"] for its in through.records.values()] == [
        its["views"] for its in direct.records.values()
    ]
    assert 2 < api.most <= 6  # more than one question's, or than one view of each


def test_a_request_that_failed_has_no_vote(tmp_path, api, samples, monkeypatch, capsys):
    (first, second), *_, (last, _) = views_of(samples, "jitter", N2)
    lost = (samples[-1].image, *views_of(samples[-1:], "jitter", N2)[0])
    monkeypatch.setattr(Api, "bad", frozenset(its.tobytes() for its in (first, *lost)))
    run = evaluate(tmp_path, "api", "PocketYesNo", *JITTER, f"{N2},combine=vote")
    assert run.records[0]["failed"] == [1] and run.records[0]["views"][1] == {}
    assert run.answers[0] in ("Yes", "No")
    whole = run.records[COUNT - 1]
    assert whole["failed"] == [0, 1, 2] and "Failed" in run.answers[COUNT - 1]
    assert "4 requests failed" in capsys.readouterr().err or len(whole["failed"]) == 3


@pytest.mark.parametrize(
    "arguments, said",
    [
        (N2, "combine=mean needs a model's logits, and Api gives none: use combine=vote or concat"),
        (f"{N2},combine=concat,gate=0.5", "a gate needs probabilities, and Api gives texts alone"),
    ],
)
def test_what_an_api_cannot_do_is_refused(tmp_path, api, arguments, said):
    with pytest.raises(AugmentationFailed, match=said):
        main(command(tmp_path, "api", "PocketYesNo", *JITTER, arguments))
    assert not list(tmp_path.rglob("*.xlsx")) and api.most == 0


def test_through_the_server(tmp_path, mllm, samples):
    """VLMEvalKit's client sends JPEG of 100 pixels at least: its answers are about that."""
    with served(pocket(), "jitter", {"n": 2, "preset": "paper"}) as place:
        options = ("--base-url", f"{place}/v1", "--max-tokens", "32", "--retry", "1")
        run = evaluate(tmp_path, "pocket", "PocketYesNo", *options, "--key", "none")
    sent = []
    for one in samples:
        file = io.BytesIO(base64.b64decode(encode_image_to_base64(one.image)))
        sent.append(SimpleNamespace(image=Image.open(file).convert("RGB"), question=one.question))
    found = expected(mllm, sent, f"{N2},preset=paper")
    assert list(run.answers.values()) == [one.text for one in found]


# ── What goes wrong ──────────────────────────────────────────────────────────────────────────────


def test_what_was_answered_before_it_stopped_is_not_asked_again(tmp_path, monkeypatch):
    from hb_tta.integrations.vlmevalkit.families import FamilyMllm

    asked: list[str] = []
    stock = FamilyMllm.generate_inner

    def counted(self, message, dataset=None):
        asked.append(message[0]["value"])
        return stock(self, message, dataset)

    monkeypatch.setattr(FamilyMllm, "generate_inner", counted)
    whole = evaluate(tmp_path / "whole", "pocket", "PocketYesNo", *JITTER, f"{N2},at_once=1")
    assert len(asked) == 3 * COUNT

    def interrupted(self, message, dataset=None):
        if len(asked) >= 3 * (COUNT - 1):
            raise KeyboardInterrupt
        return counted(self, message, dataset)

    asked.clear()
    monkeypatch.setattr(FamilyMllm, "generate_inner", interrupted)
    again = command(tmp_path / "again", "pocket", "PocketYesNo", *JITTER, f"{N2},at_once=1")
    assert main(again) == 130
    asked.clear()
    monkeypatch.setattr(FamilyMllm, "generate_inner", counted)
    run = evaluate(tmp_path / "again", "pocket", "PocketYesNo", *JITTER, f"{N2},at_once=1")
    assert run.answers == whole.answers and len(asked) == 3 * 2
    assert run.records == whole.records


def test_answers_of_other_settings_are_not_taken_for_these(tmp_path):
    plain = evaluate(tmp_path, "pocket", "PocketYesNo", "--limit", "2")
    folders = set()
    for n in (1, 2):
        line = command(tmp_path, "pocket", "PocketYesNo", "--reuse", "--limit", "2")
        assert main([*line, *JITTER, f"family=pocket,n={n}"]) == 0
        folders = set(tmp_path.glob("jitter-*"))
        assert len(folders) == n
        newest = max(folders, key=lambda its: its.stat().st_mtime)
        run: Run = read(newest, "pocket", "PocketYesNo")
        assert [len(its["views"]) for its in run.records.values()] == [1 + n] * 2
        assert json.loads((newest / "settings.json").read_text())["n"] == n
    assert plain.records == {}


def test_a_question_that_fails_ends_the_run(tmp_path, monkeypatch, lmu, capsys):
    monkeypatch.setattr(
        "hb_tta.integrations.vlmevalkit.families.FamilyMllm.generate_inner",
        lambda *_: 1 / 0,
    )
    with pytest.raises(AugmentationFailed, match="ZeroDivisionError"):
        main(command(tmp_path, "pocket", "PocketYesNo", *JITTER, N2))
    assert "Traceback" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.xlsx"))


def test_a_data_set_that_was_not_done_is_told(tmp_path, capsys):
    assert main(command(tmp_path, "pocket", ["PocketOpen", "Nothing"], mode=None)) == 1
    err = capsys.readouterr().err
    assert "did not finish pocket on PocketOpen, pocket on Nothing: its own lines" in err


@pytest.mark.parametrize(
    "options, said",
    [
        ((*JITTER, N2, "--api-mode"), "--api-mode asks its questions before"),
        ((*JITTER, f"{N2},combine=rescore"), "combine=rescore needs log-probabilities"),
        (("--augment", "nothing"), "--augment nothing: there is no such method"),
        (("--augment_args", N2), "--augment_args without --augment"),
    ],
)
def test_flags_that_cannot_be_followed(tmp_path, capsys, options, said):
    assert main(command(tmp_path, "pocket", "PocketYesNo", *options)) == 1
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["a video", "several turns"])
def test_what_has_no_views_is_refused(tmp_path, monkeypatch, what):
    from vlmeval.dataset import image_vqa

    kind = {"MODALITY": "VIDEO"} if what == "a video" else {"TYPE": "MT"}
    for name, value in kind.items():
        monkeypatch.setattr(image_vqa.CustomVQADataset, name, value)
    with pytest.raises(AugmentationFailed, match=f"PocketOpen asks about .*{what}"):
        main(command(tmp_path, "pocket", "PocketOpen", *JITTER, N2))


# ── What is replaced, is still there ─────────────────────────────────────────────────────────────


def test_what_is_replaced_is_where_it_was():
    """A test that fails when upstream moves; nothing stays replaced behind a run."""
    parameters = list(inspect.signature(inference.infer_data).parameters)
    assert parameters[:5] == ["model", "model_name", "work_dir", "dataset", "out_file"]
    assert "infer_data(" in inspect.getsource(inference.infer_data_job)
    assert "supported_VLM[model_name](" in inspect.getsource(inference.infer_data)
    assert "_PREV.pkl" in inspect.getsource(inference.infer_data)
    source = inspect.getsource(vlmeval_run.run_local_mode)
    for name in ("infer_data_job_video(", "infer_data_job_mt(", "upsert_dataset_status("):
        assert name in source
    assert vlmeval_run.upsert_dataset_status.__module__ == "vlmeval.smp.status_report"
    assert inference.infer_data.__module__ == "vlmeval.inference"


@pytest.mark.parametrize("version", ["0.0.19", "0.0.21", "0.1"])
def test_another_version_is_refused(tmp_path, monkeypatch, capsys, version):
    monkeypatch.setattr(command_line.metadata, "version", lambda _: version)
    assert main(command(tmp_path, "pocket", "PocketYesNo")) == 1
    assert f"VLMEvalKit {version} is not known" in capsys.readouterr().err


def test_the_pages_lines_do_what_it_says(tmp_path, monkeypatch):
    """docs/harnesses.md: a data set is written, and evaluated without views and with them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    text = (ROOT / "docs" / "harnesses.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (lines,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(script, "harnesses.md", "exec"), {"__name__": "__main__"})
    done = subprocess.run(["bash", "-euc", lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("out/hummingbird-*")
    assert len(read(folder, "pocket", "PocketYesNo").records) == 20
    assert {"pocket", folder.name} <= {its.name for its in (tmp_path / "out").iterdir()}


def test_its_help_and_ours(capsys):
    with pytest.raises(SystemExit):
        main(["vlmevalkit", "--help", "--data"])
    told = capsys.readouterr().out
    assert "--augment NAME" in told and "--api-nproc" in told and "pocket" in told
