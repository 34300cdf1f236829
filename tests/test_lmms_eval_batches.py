"""Many questions in one batch of a stock backend: what one at a time gives."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from lmms_eval_runs import METHODS, QUESTIONS, answers, evaluate, records, small_tasks
from transformers import PreTrainedModel

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.generators.registry import GENERATORS
from hb_tta.integrations.lmms_eval import passes
from hb_tta.integrations.lmms_eval.view_counts import IDENTITY
from hb_tta.integrations.sidecar import read_sidecar
from hb_tta.tta import together

BACKENDS = {"llava": "llava_hf", "llava_next": "llava_hf", "qwen_vl": "qwen2_5_vl",
            "internvl": "internvl_hf"}  # fmt: skip
FLAGS = "family=pocket,n=2"


@pytest.fixture(autouse=True)
def methods(monkeypatch, tmp_path):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """float32, also where a backend asks for bfloat16: rounding is not what is looked for."""
    own = PreTrainedModel.from_pretrained.__func__

    def load(cls, *args, torch_dtype=None, **settings):
        return own(cls, *args, **{**settings, "dtype": torch.float32})

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(load))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def run(tasks, folders):
    def run(name="llava", arguments=FLAGS, **settings):
        folder = folders / name
        if not folder.exists():
            getattr(tiny_models, f"save_{name}")(folder)
        flags = {"augment": "randaugment", "augment_args": arguments, **settings}
        pretrained = f"pretrained={folder},device_map=cpu"
        return evaluate(tasks, model=BACKENDS[name], model_args=pretrained, **flags)

    return run


@pytest.fixture
def batches(monkeypatch):
    seen: list[int] = []
    own = together._decode_batch

    def decode(batch):
        seen.append(len(batch))
        return own(batch)

    monkeypatch.setattr(together, "_decode_batch", decode)
    return seen


def check_same(one, other):
    assert answers(one) == answers(other)
    for mine, theirs in zip(records(one), records(other), strict=True):
        for view, its in zip(mine["views"], theirs["views"], strict=True):
            assert view["yes"] == pytest.approx(its["yes"], abs=1e-4)
        assert mine["images"] == theirs["images"]


@pytest.mark.parametrize("name", BACKENDS)
def test_questions_in_a_batch_get_what_they_get_one_at_a_time(run, batches, name):
    alone = run(name, f"{FLAGS},at_once=1")
    assert batches == []
    check_same(run(name), alone)
    assert batches == [10, QUESTIONS - 10]  # 32 rows at once, three a question
    check_same(run(name, f"{FLAGS},at_once=3"), alone)
    assert batches[2:] == [3, 3, 3, 3, 2] and QUESTIONS == 14


def test_the_plain_answers_of_a_gate_are_batches_too(run, batches):
    alone = run(arguments=f"{FLAGS},at_once=1,gate=0")
    middle = sorted(record["gate"]["p"] for record in records(alone))[QUESTIONS // 2 - 1 :]
    half = (middle[0] + middle[1]) / 2
    alone = run(arguments=f"{FLAGS},at_once=1,gate={half}")
    batches.clear()
    together = run(arguments=f"{FLAGS},gate={half}")
    assert batches == [QUESTIONS, QUESTIONS // 2]
    check_same(together, alone)
    assert [its["gate"]["passed"] for its in records(together)].count(True) == QUESTIONS // 2


def test_a_question_that_fails_stops_the_run_and_its_neighbours_are_kept(
    run, tmp_path, monkeypatch
):
    from lmms_eval.models.chat.llava_hf import LlavaHf

    own = LlavaHf.generate_until

    def generate_until(self, requests):
        if requests[0].doc_id == 3:
            raise ValueError("a picture of nothing")
        return own(self, requests)

    monkeypatch.setattr(LlavaHf, "generate_until", generate_until)
    with pytest.raises(SystemExit, match="ValueError: a picture of nothing"):
        run(output_path=tmp_path)
    (folder,) = (tmp_path / "hb_tta").iterdir()
    lines, _ = read_sidecar(folder / "pocket_mme_dev.jsonl", IDENTITY)
    assert sorted(line["doc_id"] for line in lines.values()) == [
        n
        for n in range(10)
        if n != 3  # of the first batch
    ]


def test_questions_without_a_picture_are_asked_as_they_are(run, tasks, monkeypatch):
    """Beside others in one batch."""
    own = passes.Question.read.__func__

    def read(cls, request, simple, task_dict):
        question = own(cls, request, simple, task_dict)
        if request.doc_id % 2:
            question.shown = []
        return question

    augmented = run()
    stock = run(augment=None)
    monkeypatch.setattr(passes.Question, "read", classmethod(read))
    mixed = run()
    for number, answer in enumerate(answers(mixed)):
        assert answer == answers(stock if number % 2 else augmented)[number]
