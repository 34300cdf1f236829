"""Augmented evaluations through lmms-eval's stock backends, on tiny random models.

Which stock backends work here at all: ``llava_hf`` (LLaVA, LLaVA-NeXT), ``qwen2_5_vl`` and
``internvl_hf``. ``huggingface`` of lmms-eval 0.7.3 does not, with or without us: it hands
``audios=`` to processors of transformers 5, which refuse it.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import pytest
import tiny_models
from augmenting import picture
from lmms_eval_runs import (
    METHODS,
    QUESTIONS,
    answers,
    evaluate,
    records,
    samples,
    small_tasks,
    value_of,
)

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.generators.registry import GENERATORS
from hb_tta.integrations import making
from hb_tta.integrations.lmms_eval import backend, classes, prepare
from hb_tta.integrations.lmms_eval.folders import run_name
from hb_tta.integrations.lmms_eval.model_args import model_args
from hb_tta.integrations.lmms_eval.view_counts import IDENTITY
from hb_tta.integrations.sidecar import read_sidecar
from hb_tta.settings.augmented import Combining
from hb_tta.tta.combine import RULES
from hb_tta.tta.vote import vote

BACKENDS = {
    "llava": ("llava_hf", "device_map=cpu"),
    "llava_next": ("llava_hf", "device_map=cpu"),
    "qwen_vl": ("qwen2_5_vl", "device_map=cpu"),
    "internvl": ("internvl_hf", "device_map=cpu"),
}


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = {name: getattr(tiny_models, f"save_{name}")(folder / name) for name in BACKENDS}
    # The "simple" backend puts texts into its messages, which the stock default template expects.
    return {**found, "plain": tiny_models.save_llava(folder / "plain", chat_template=None)}


@pytest.fixture
def run(tasks, models):
    def run(name="llava", **settings):
        model, args = BACKENDS.get(name, BACKENDS["llava"])
        return evaluate(
            tasks, model=model, model_args=f"pretrained={models[name]},{args}", **settings
        )

    return run


@pytest.mark.parametrize("name", BACKENDS)
def test_identical_views_give_the_stock_answers(run, name):
    stock = run(name)
    augmented = run(name, augment="same", augment_args="family=pocket,n=2")
    assert answers(augmented) == answers(stock)
    assert len(set(answers(stock))) > 1, "every answer is the same, so the test shows nothing"
    assert stock["results"]["pocket_mme_dev"] == augmented["results"]["pocket_mme_dev"]
    assert {record["mode"] for record in records(augmented)} == {"batched"}


@pytest.mark.parametrize("name", BACKENDS)
def test_different_views_are_all_heard(run, name):
    flags = {"augment": "randaugment", "augment_args": "family=pocket,n=3"}
    found = records(run(name, **flags))
    for record in found:
        assert len(record["views"]) == 4
        assert len(record["images"][0]["keys"]) == 3
    scores = [{view["yes"] for view in record["views"]} for record in found]
    assert any(len(its) == 4 for its in scores), "the views were not shown"
    first = [record["views"][0] for record in found]
    alone = records(run(name, augment="same", augment_args="family=pocket,n=1"))
    for ours, theirs in zip(first, alone, strict=True):
        assert ours["yes"] == pytest.approx(theirs["views"][0]["yes"], abs=0.05)  # bfloat16


def test_batch_size_does_not_matter(run):
    flags = {"augment": "randaugment", "augment_args": "family=pocket,n=2"}
    one, many = run("qwen_vl", **flags), run("qwen_vl", **flags, batch_size=4)
    assert answers(one) == answers(many)
    assert records(one) == records(many)


def test_many_questions_are_read_a_few_at_a_time(run, monkeypatch):
    flags = {"augment": "randaugment", "augment_args": "family=pocket,n=2"}
    together = run(**flags)
    monkeypatch.setattr(making, "CHUNK", 3)
    assert records(run(**flags)) == records(together)


def test_the_backends_class_stays_itself(run):
    results = run(augment="same", augment_args="family=pocket,n=1")
    assert results["config"]["model"] == "llava_hf"
    assert results["config"]["model_backend"].endswith("AugmentedLlavaHf (chat)")


def test_simple_backends(run):
    flags = {"augment": "same", "augment_args": "family=pocket,n=2", "force_simple": True}
    simple = run("plain", **flags)
    assert simple["config"]["model_backend"].endswith("AugmentedLlavaHf (simple)")
    assert answers(simple) == answers(run("plain", force_simple=True))
    assert all(len(record["views"]) == 3 for record in records(simple))


def test_the_file_beside_the_samples(run, tmp_path):
    flags = {"augment": "randaugment", "augment_args": "family=pocket,n=2"}
    results = run(**flags, output_path=tmp_path)
    folder = tmp_path / "hb_tta" / run_name(results["config"]["model_args"])
    lines, _ = read_sidecar(folder / "pocket_mme_dev.jsonl", IDENTITY)
    assert [line["doc_id"] for line in lines.values()] == list(range(QUESTIONS))
    for line, sample, record in zip(
        lines.values(), samples(results), records(results), strict=True
    ):
        assert line["answer"].strip() == "".join(sample["filtered_resps"][0]).strip()
        assert {key: line[key] for key in record} == record
        assert (folder / "images" / f"{record['images'][0]['pixels']}.png").exists()
    assert "target" not in json.dumps(lines)


def test_the_response_cache(run, tmp_path, monkeypatch):
    flags = {
        "augment": "randaugment",
        "augment_args": "family=pocket,n=2",
        "use_cache": str(tmp_path / "cache"),
        "output_path": tmp_path / "out",
    }
    first = run(**flags)
    monkeypatch.setattr(backend.AugmentedBackend, "_hb_answers", None)  # nobody may ask it
    second = run(**flags)
    assert answers(second) == answers(first)
    folder = tmp_path / "out" / "hb_tta" / run_name(second["config"]["model_args"])
    assert len(read_sidecar(folder / "pocket_mme_dev.jsonl", IDENTITY)[0]) == QUESTIONS
    with pytest.raises(SystemExit):  # other settings, other answers
        run(**{**flags, "augment_args": "family=pocket,n=3"})


def test_combining_by_vote(run):
    flags = {"augment": "same", "augment_args": "family=pocket,n=2,combine=vote"}
    voted = run(**flags)
    assert answers(voted) == answers(run())
    for record in records(voted):
        assert [view["answer"] for view in record["views"]] == [record["answer"]] * 3


@pytest.mark.parametrize(
    ("answers", "weight", "chosen"),
    [
        (["Yes", "no.", "No, it is not"], 1.0, 1),
        (["Yes", "no"], 1.0, 0),
        (["Yes", "no", "no"], 3.0, 0),
        (["Yes", "no", "maybe"], 0.0, 1),
        (["two dogs", "Two  dogs.", "three"], 1.0, 0),
        (["nothing", "no", "No"], 1.0, 1),
    ],
)
def test_votes(answers, weight, chosen):
    assert vote(answers, weight) == chosen


def test_a_generator_that_fails_stops_the_run(run, capsys):
    """llava_hf scores an empty answer where generate raises an Exception."""
    with pytest.raises(SystemExit, match="^hb-tta: the augmented .* RuntimeError: out of memory"):
        run(augment="failing")
    assert "Traceback" in capsys.readouterr().err


def test_our_warnings_are_seen_though_lmms_eval_silences_all(run, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # as lmms_eval.utils does when it is imported
        run(augment="warning", augment_args="family=pocket,views=1")
    assert {str(one.message) for one in caught} == {"a setting is ignored"}


def test_an_error_while_answering_stops_the_run(run, monkeypatch):
    monkeypatch.setitem(RULES.built_in, "mean", "lmms_eval_runs:broken_rule")
    with pytest.raises(SystemExit, match="ValueError: broken"):
        run(augment="same")


def test_a_backend_that_never_generates_needs_a_vote(tasks, monkeypatch):
    """It answers without transformers, as the backends of hosted models do."""
    from lmms_eval import models as upstream

    monkeypatch.setitem(upstream.AVAILABLE_SIMPLE_MODELS, "texts", "lmms_eval_texts.Texts")
    flags = {"model": "texts", "model_args": "", "augment": "randaugment"}
    with pytest.raises(SystemExit, match="never called transformers' generate.*combine=vote"):
        evaluate(tasks, **flags)
    voted = evaluate(tasks, **flags, augment_args="family=pocket,n=4,combine=vote")
    for record in records(voted):
        said = [view["answer"] for view in record["views"]]
        most = max(("yes", "no"), key=said.count)
        assert record["answer"] == most


def test_likelihoods_are_averaged(monkeypatch):
    """Instances as multiple-choice tasks make them, straight to a backend.

    Of the stock ones on transformers 5, ``llava_hf`` fails at them by itself.
    """
    from lmms_eval import models as upstream
    from lmms_eval.api.instance import Instance

    monkeypatch.setitem(upstream.AVAILABLE_SIMPLE_MODELS, "texts", "lmms_eval_texts.Texts")
    argv = ["lmms-eval", "--model", "texts", "--augment", "randaugment"]
    prepare([*argv, "--augment_args", "family=pocket,n=2,real_weight=2"])
    settings = backend.AugmentedBackend.hb_flags.settings
    model = classes.texts__simple.create_from_arg_string(model_args(settings))
    image = picture(0)
    model.task_dict = {"t": {"test": [{"image": image}]}}

    def request(choice):
        arguments = ("What is it?", choice, lambda doc: [doc["image"]], 0, "t", "test")
        metadata = {"task": "t", "doc_id": 0, "repeats": 1}
        return Instance("loglikelihood", arguments, 0, metadata)

    found = model.loglikelihood([request("red"), request("blue, or so")])
    views = settings.augmenter(image, "What is it?", n=2)
    for (value, _), choice in zip(found, ("red", "blue, or so"), strict=True):
        real, *generated = (value_of(i, choice) for i in (image, *views))
        assert value == pytest.approx((2 * real + sum(generated)) / 4)
    assert len({value_of(i, "red") for i in (image, *views)}) == 3
    model.hb_settings = replace(settings, combining=Combining("zero"))
    with pytest.raises(SystemExit, match="combine=zero has no meaning for multiple-choice"):
        model.loglikelihood([request("red")])


def test_rounds_are_refused():
    class Backend(backend.AugmentedBackend):
        pass

    with pytest.raises(SystemExit, match="several rounds cannot be augmented"):
        Backend().generate_until_multi_round([])


def test_what_is_relied_on_upstream_is_still_there():
    """Fails when lmms-eval moves: every name that the plugin counts on and that is not promised."""
    import inspect

    import lmms_eval.models as models
    from lmms_eval import __main__ as main
    from lmms_eval import evaluator, utils
    from lmms_eval.api.model import lmms
    from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask, Task
    from lmms_eval.models.model_utils.gen_metrics import log_metrics
    from lmms_eval.models.registry_v2 import ModelRegistryV2
    from lmms_eval.utils import _smart_comma_split

    assert "overwrite=True" in inspect.getsource(models._initialize_model_registry)
    assert models._build_builtin_manifests()
    assert hasattr(ModelRegistryV2, "_coerce_payload_to_manifests")
    assert "parser.parse_args()" in inspect.getsource(main.parse_eval_args)
    assert _smart_comma_split("a=1,b={2,3}") == ["a=1", "b={2,3}"]
    assert list(inspect.signature(lmms.create_from_arg_string).parameters) == [
        "arg_string",
        "additional_config",
    ]
    stock = getattr(utils.create_iterator, "hb_stock", utils.create_iterator)
    assert list(stock(iter(range(9)), 1, 2, 6, 2)) == [3, 5, 7]  # rank, processes, limit, offset
    assert "utils.create_iterator(" in inspect.getsource(Task.build_all_requests)
    assert evaluator.create_iterator is utils.create_iterator
    simple = inspect.getsource(ConfigurableTask.construct_requests)
    assert (
        "(ctx, copy.deepcopy(self.config.generation_kwargs), self.doc_to_visual, doc_id" in simple
    )
    assert "(ctx, self.doc_to_target, self.doc_to_visual, doc_id" in simple
    chat = inspect.getsource(ConfigurableMessagesTask.construct_requests)
    assert (
        "(ctx, self.doc_to_messages, copy.deepcopy(self.config.generation_kwargs), doc_id" in chat
    )
    assert {"total_elapsed_time", "total_gen_tokens", "avg_speed"} <= set(
        inspect.signature(log_metrics).parameters
    )
