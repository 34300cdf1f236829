"""The gate, presets and rows of text inside lmms-eval, on a tiny random model."""

from __future__ import annotations

from statistics import median

import pytest
import tiny_models
from augmenting import picture
from lmms_eval_runs import METHODS, QUESTIONS, answers, evaluate, records, small_tasks, value_of

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from loguru import logger

from hb_tta import spelling
from hb_tta.generators.registry import GENERATORS
from hb_tta.integrations.lmms_eval import backend, classes, prepare
from hb_tta.integrations.lmms_eval.model_args import model_args
from hb_tta.integrations.rows import shown_together
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.store import Store


@pytest.fixture(autouse=True)
def methods(monkeypatch, tmp_path):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tasks = small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme")
    mllm = tiny_models.save_llava(tmp_path_factory.mktemp("models") / "llava")

    def run(**settings):
        arguments = f"pretrained={mllm},device_map=cpu"
        return evaluate(tasks, model="llava_hf", model_args=arguments, **settings)

    return run


@pytest.fixture(scope="module")
def stock(run):
    return run()


def views_in(store):
    return {entry.key for entry in Store(store).entries() if entry.namespace == "views"}


def gates(results):
    return [record["gate"] for record in records(results)]


def test_gate_0_is_plain_and_no_generator_is_asked(run, stock):
    closed = run(augment="failing", augment_args="family=pocket,gate=0")
    assert answers(closed) == answers(stock)
    assert closed["results"]["pocket_mme_dev"] == stock["results"]["pocket_mme_dev"]
    for record in records(closed):
        assert 0 < record["gate"]["p"] < 1 and record["gate"]["passed"] is False
        assert len(record["views"]) == 1 and record["images"][0]["keys"] == []


def test_a_gate_shows_views_to_those_who_are_not_sure(run, stock, tmp_path):
    flags = {"augment": "randaugment", "augment_args": "family=pocket,n=2"}
    every = run(**flags)
    p = [gate["p"] for gate in gates(run(**{**flags, "augment_args": "family=pocket,n=2,gate=0"}))]
    gate = median(p)
    store = tmp_path / "own"
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="INFO")
    some = run(augment="randaugment", augment_args=f"family=pocket,n=2,gate={gate},store={store}")
    logger.remove(sink)
    passed = sum(its["passed"] for its in gates(some))
    assert any(f"{passed} of {len(p)} questions were answered from views" in line for line in said)
    passed = [its["passed"] for its in gates(some)]
    assert passed == [its < gate for its in p] and any(passed) and not all(passed)
    for number, through in enumerate(passed):
        expected = answers(every if through else stock)[number]
        assert answers(some)[number] == expected
    asked = {key for record in records(some) for key in record["images"][0]["keys"]}
    assert views_in(store) == asked


def test_a_share_lets_the_least_sure_through(run):
    found = gates(run(augment="same", augment_args="family=pocket,n=1,gate_share=0.3"))
    through = sorted(gate["p"] for gate in found if gate["passed"])
    assert len(found) == QUESTIONS and len(through) == round(0.3 * QUESTIONS)
    assert through[-1] <= min(gate["p"] for gate in found if not gate["passed"])


def test_a_share_is_refused_where_not_all_questions_are_there(monkeypatch):
    argv = ["lmms-eval", "--model", "llava_hf", "--augment", "same"]
    argv += ["--augment_args", "family=pocket,gate_share=0.3"]
    with pytest.raises(SystemExit, match="--use_cache keeps some: use gate=P"):
        prepare([*argv, "--use_cache", "somewhere"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2 processes share them: use gate=P"):
        prepare(list(argv))


def test_rewordings_of_the_same_picture_are_crossed_with_its_views(run, stock):
    found = run(augment="same", augment_args="family=pocket,n=1,paraphrases=2")
    for record, plain in zip(records(found), records(run(augment="same")), strict=True):
        said = [view["yes"] for view in record["views"]]
        assert len(said) == 6
        assert said[0] == said[1] == pytest.approx(plain["views"][0]["yes"], abs=0.05)  # bfloat16
        assert said[2] == said[3] != said[0] and said[4] == said[5] != said[2]


def test_a_description_alone_generates_nothing(run, tmp_path):
    store = tmp_path / "own"
    settings = f"family=pocket,n=0,combine=describe,gate=none,store={store}"
    found = records(run(augment="hummingbird", augment_args=settings))
    assert views_in(store) == set()
    for record in found:
        assert len(record["views"]) == 2 and record["images"][0]["description"]
        assert record["views"][0] != record["views"][1]


def test_contrast_with_equal_views_gives_the_stock_answers(run, stock, monkeypatch):
    from lmms_eval_runs import SameSpec

    monkeypatch.setattr(SameSpec, "distorts", True)
    found = run(augment="same", augment_args="family=pocket,n=2,combine=contrast")
    assert answers(found) == answers(stock)


def test_the_gate_of_choices_is_their_questions_and_sees_no_answer(monkeypatch):
    from lmms_eval import models as upstream
    from lmms_eval.api.instance import Instance

    monkeypatch.setitem(upstream.AVAILABLE_SIMPLE_MODELS, "texts", "lmms_eval_texts.Texts")
    argv = ["lmms-eval", "--model", "texts", "--augment", "randaugment"]

    def asked(gate, choices, answer="red"):
        prepare([*argv, "--augment_args", f"family=pocket,n=2,gate={gate}"])
        settings = backend.AugmentedBackend.hb_flags.settings
        model = classes.texts__simple.create_from_arg_string(model_args(settings))
        model.task_dict = {"t": {"test": [{"image": picture(0), "answer": answer}]}}
        requests = []
        for choice in choices:
            arguments = ("What is it?", choice, lambda doc: [doc["image"]], 0, "t", "test")
            metadata = {"task": "t", "doc_id": 0, "repeats": 1}
            requests.append(Instance("loglikelihood", arguments, 0, metadata))
        return model, requests

    model, requests = asked(0.0, ["red", "blue"])
    plain = model.loglikelihood(requests)
    assert [value for value, _ in plain] == [value_of(picture(0), c) for c in ("red", "blue")]
    found = []
    for answer in ("red", "blue", "the right one is blue"):
        model, requests = asked(1.0, ["red", "blue"], answer)
        found.append(model.loglikelihood(requests))
    assert found[0] == found[1] == found[2] != plain
    model, requests = asked(0.5, ["red"])
    with pytest.raises(SystemExit, match="the right answer alone, which no gate may see"):
        model.loglikelihood(requests)


@pytest.mark.parametrize(
    ("method", "given", "part"),
    [
        ("hummingbird", "combine=contrast", "hummingbird makes none: use it with .*randaugment"),
        ("randaugment", "combine=contrast,n=0", "n=0 shows none"),
        ("randaugment", "combine=describe", "randaugment has none written"),
        ("randaugment", "n=0", "n=0 adds nothing"),
        ("randaugment", "combine=vote,gate=0.5", "vote is for models that give no probabilities"),
        ("randaugment", "gate=0.5,gate_share=0.5", "leave one out"),
        ("randaugment", "gate=1.5", "neither a number from 0 to 1 nor none"),
        ("randaugment", "paraphrases=9", "paraphrases=9 is out of range"),
        ("randaugment", "preset=best", "preset='best' is not known: choose from paper, safe"),
    ],
)
def test_what_does_not_go_together(method, given, part):
    from hb_tta import UserError

    with pytest.raises(UserError, match=part):
        AugmentSettings.parse(method, f"family=pocket,{given}")


def test_settings_are_written_as_they_are_read():
    for given in ("", "gate=0.25,preset=safe", "preset=paper", "n=0,combine=describe", "gate=none"):
        settings = AugmentSettings.parse("hummingbird", f"family=pocket,{given}")
        written = {k: v for k, v in settings.to_json().items() if k != "method"}
        again = AugmentSettings.parse("hummingbird", spelling.written(written))
        assert again == settings and again.digest == settings.digest


def test_another_gate_is_another_run():
    one, other = (
        AugmentSettings.parse("randaugment", f"family=pocket,gate={gate}") for gate in (0.5, 0.6)
    )
    assert one.digest != other.digest
    assert one.views.digest(one.augmenter.spec) == other.views.digest(other.augmenter.spec)


def test_an_image_with_fewer_views_stands_in_for_itself():
    real, views = ["a", "b"], [["a1", "a2"], ["b1"]]
    assert shown_together(real, views) == [["a1", "b1"], ["a2", "b"]]
    assert shown_together(real, [[], []]) == [] and shown_together([], []) == []
