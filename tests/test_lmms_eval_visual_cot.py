"""lmms-eval's generate-then-answer tasks with any backend, our generators and the store."""

from __future__ import annotations

import inspect
import json

import pytest
import tiny_models
from engines import picture_of, serving
from lmms_eval_runs import METHODS, DrawingSpec, drawing, evaluate, evaluate_into, small_tasks

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.cli import main
from hb_tta.describe import load_mllm
from hb_tta.families import get_family
from hb_tta.generators.registry import GENERATORS
from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.integrations.lmms_eval.visual_cot import Told, let_chat_backends_in, read_prompt
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.tta.answer import spoken
from hb_tta.tta.combine import Combiner
from hb_tta.tta.together import Asked, decode_together

MODEL = str(get_family("pocket").weights("mllm").location)
TASK = """\
task: pocket_cot
include: _common.yaml_part
dataset_kwargs:
  data_files:
    test: dev.json
output_type: generate_visual_cot
doc_to_text: !function cot.doc_to_text
generation_kwargs:
  visual_cot: true
  max_new_tokens: 6
  do_sample: false
"""
DRAW = "draw the shapes of this again: {question}"
TEXTS = f"""\
def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    question = doc["question"] + " Look at both pictures."
    return "[GEN_PROMPT] {DRAW} [/GEN_PROMPT][QUESTION]" + question + "[/QUESTION]"
"""
COUNT = 4


@pytest.fixture(autouse=True)
def methods(monkeypatch, tmp_path):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    DrawingSpec.told.clear()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme")
    (folder / "pocket_cot.yaml").write_text(TASK)
    (folder / "cot.py").write_text(TEXTS)
    return folder


@pytest.fixture(scope="module")
def questions():
    """What the task asks: an image, the text, and what is told to the generator."""
    found = []
    for category in ("existence", "count", "position", "color"):
        for sample in pocket_mme("dev", category=category, limit=1):
            text = f"{sample.question} Look at both pictures."
            found.append((sample.image, text, DRAW.replace("{question}", text)))
    return found[:COUNT]


def run(tasks, arguments, model="llava_hf", model_args=None, **settings):
    return evaluate(
        tasks,
        model=model,
        model_args=model_args or f"pretrained={MODEL},device_map=cpu",
        task="pocket_cot",
        augment="drawing",
        augment_args=f"family=pocket,seeds=fixed,{arguments}",
        limit=COUNT,
        **settings,
    )


def said(results):
    return ["".join(sample["filtered_resps"][0]) for sample in results["samples"]["pocket_cot"]]


def told(results):
    return [sample["token_counts"][0]["hb_tta"] for sample in results["samples"]["pocket_cot"]]


def beside(image, drawn, text):
    """A message that shows both."""
    parts = [{"type": "image", "image": its} for its in (image, *drawn)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("n", [1, 3])
def test_each_drawing_is_shown_beside_the_image(tasks, questions, n):
    """Of one drawing the model's own answer to both pictures, of more the rows' joint one."""
    found = run(tasks, f"n={n}")
    model, processor = load_mllm(MODEL, device="cpu")
    settings = {"max_new_tokens": 6, "do_sample": False}
    for record, answer, (image, text, draw) in zip(
        told(found), said(found), questions, strict=True
    ):
        drawn = [drawing(draw, image.size, seed) for seed in range(n)]
        messages = [beside(image, [its], text) for its in drawn]
        calls = [lambda m=m: spoken(model, processor, m, settings).text for m in messages]
        (alone,) = decode_together([Asked(calls, Combiner())])
        assert answer == alone.value
        assert record["views"][0] == {} and len(record["views"]) == 1 + n
        assert record["images"][0]["description"] == draw
        first = alone.first_combined_RK[0].float().log_softmax(-1).max().exp().item()
        assert record["combined"]["share"] == pytest.approx(first, abs=2e-2)  # float16
    assert sorted(set(DrawingSpec.told)) == sorted({draw for *_, draw in questions})
    assert found["results"]["pocket_cot"]["acc,none"] is not None


def test_the_store_keeps_the_drawings(tasks):
    first = run(tasks, "n=2")
    drawn = len(DrawingSpec.told)
    assert drawn and said(run(tasks, "n=2")) == said(first) and len(DrawingSpec.told) == drawn


def test_a_gate_draws_for_those_who_are_not_sure(tasks, questions):
    sure = sorted(record["gate"]["p"] for record in told(run(tasks, "n=1,gate=0")))
    assert DrawingSpec.told == []
    found = run(tasks, f"n=1,gate={(sure[1] + sure[2]) / 2}")
    passed = [record["gate"]["passed"] for record in told(found)]
    assert set(passed) == {True, False}
    model, processor = load_mllm(MODEL, device="cpu")
    for record, answer, (image, text, draw), on in zip(
        told(found), said(found), questions, passed, strict=True
    ):
        shown = [drawing(draw, image.size, 0)] if on else []
        alone = spoken(model, processor, beside(image, shown, text),
                       {"max_new_tokens": 6, "do_sample": False}).text  # fmt: skip
        assert answer == alone and len(record["images"][0]["keys"]) == on
    assert set(DrawingSpec.told) == {d for (*_, d), on in zip(questions, passed, strict=True) if on}


def test_with_the_bundled_generator(tasks, questions):
    found = evaluate(
        tasks,
        model="llava_hf",
        model_args=f"pretrained={MODEL},device_map=cpu",
        task="pocket_cot",
        augment="hummingbird",
        augment_args="family=pocket,n=1,preset=paper,steps=2",
        limit=2,
    )
    for record, (*_, draw) in zip(told(found), questions, strict=False):
        assert draw.startswith(record["images"][0]["description"])  # as far as its window goes
        assert len(record["images"][0]["keys"]) == 1


@pytest.mark.parametrize(
    "name, backend, simple",
    [
        ("llava", "llava_hf", False),
        ("llava", "llava_hf", True),
        ("qwen_vl", "qwen2_5_vl", False),
        ("internvl", "internvl_hf", False),
    ],
)
def test_stock_backends(tasks, tmp_path, name, backend, simple):
    """Chat and simple ones; in whatever batches, the answers are the same."""
    chat: dict = {"chat_template": None} if simple else {}
    folder = getattr(tiny_models, f"save_{name}")(tmp_path / name, **chat)
    model_args = f"pretrained={folder},device_map=cpu"
    one, many = (
        run(tasks, f"n=2,at_once={at}", backend, model_args, force_simple=simple) for at in (1, 4)
    )
    assert said(one) == said(many)
    for record in told(many):
        assert len(record["views"]) == 3 and record["views"][0] == {}


@pytest.mark.parametrize("combine, rows", [("vote", 2), ("concat", 1)])
def test_an_api_answers_too(tasks, questions, combine, rows):
    asked: list[tuple[int, str]] = []

    def answer(request):
        parts = request["messages"][-1]["content"]
        pictures = [its for its in map(picture_of, parts) if its is not None]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        asked.append((len(pictures), " ".join(texts)))
        return {"text": "Yes"}

    with serving(answer) as service:
        model_args = f"model_version=m,base_url={service.url},api_key=none,num_cpus=4"
        found = run(tasks, f"n=2,combine={combine}", "async_openai", model_args)
    assert said(found) == ["Yes"] * COUNT
    texts = sorted(text for _, text, _ in questions for _ in range(rows))
    assert sorted(text for _, text in asked) == texts  # and no word of ours
    assert {count for count, _ in asked} == {2 if combine == "vote" else 3}
    for record in told(found):
        assert record["views"] == ([{}, {"answer": "Yes"}, {"answer": "Yes"}] if rows == 2 else [])


def test_the_report_reads_it(tasks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate_into(
        tmp_path / "out", tasks, date="d", model="llava_hf",
        model_args=f"pretrained={MODEL},device_map=cpu", task="pocket_cot", augment="drawing",
        augment_args="family=pocket,n=2", limit=COUNT,
    )  # fmt: skip
    (path,) = tmp_path.rglob("hb_tta/*/pocket_cot.jsonl")
    for line in map(json.loads, path.read_text().splitlines()):
        assert "GEN_PROMPT" not in line["prompt"] and len(line["views"]) == 3
    _, (found,) = read_runs([str(tmp_path / "out")])
    for record in found.records:
        assert [seen.label.split()[0] for seen in record.seen] == ["real", "seed", "seed"]
        assert record.seen[0].yes is None and record.seen[1].yes is not None
    assert main(["report", "out", "--json", "report.json"]) == 0
    assert (tmp_path / "hb-tta-report.html").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("n=1,combine=describe", "combine=describe has no meaning for generate-then-answer"),
        ("n=1,paraphrases=1", "paraphrases=1 has no meaning"),
        ("n=1,real_weight=2", "real_weight=2.0 has no meaning"),
        ("n=0,combine=describe", "combine=describe has no meaning"),
    ],
)
def test_what_has_no_meaning_there_is_refused(tasks, arguments, said):
    with pytest.raises(SystemExit, match=said):
        run(tasks, arguments)
    assert DrawingSpec.told == []


def test_a_prompt_is_read_as_upstream_reads_it():
    assert read_prompt("[GEN_PROMPT] a {question} [/GEN_PROMPT]x[QUESTION]\nb?\n[/QUESTION]") == (
        Told("a b?", "b?")
    )
    untold = read_prompt("What is {this}?")
    assert untold.question == "What is {this}?"
    from lmms_eval.models.simple import bagel_unig2u

    upstream = inspect.getsource(bagel_unig2u)
    assert untold.drawing.replace("What is {this}?", "{question}") in upstream
    assert r'r"\[GEN_PROMPT\](.*?)\[/GEN_PROMPT\]"' in upstream


def test_what_is_replaced_is_still_there():
    from lmms_eval.api.task import ConfigurableMessagesTask

    let_chat_backends_in()
    ours = ConfigurableMessagesTask.construct_requests
    let_chat_backends_in()
    assert ConfigurableMessagesTask.construct_requests is ours
    stock = inspect.getsource(ours.hb_stock)
    assert "(ctx, self.doc_to_messages, copy.deepcopy(self.config.generation_kwargs)" in stock
    assert '"generate_visual_cot"' not in stock, "upstream lets them in: the patch can go"
