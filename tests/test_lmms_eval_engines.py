"""Combining by what a backend gives: votes, rescoring and one prompt, on engines and services."""

from __future__ import annotations

import json
import math

import pytest
import tiny_models
from engines import Engine, SamplingParams, picture_of, serving
from lmms_eval_runs import METHODS, QUESTIONS, answers, evaluate, records, small_tasks

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

import lmms_eval.models.chat.vllm as chat_vllm
import lmms_eval.models.simple.vllm as simple_vllm

from hb_tta import UserError
from hb_tta.families import get_family
from hb_tta.generators.registry import GENERATORS
from hb_tta.settings.augmented import AugmentSettings

VLLM = {"model": "vllm", "augment": "randaugment"}
MODEL = str(get_family("pocket").weights("mllm").location)


@pytest.fixture(autouse=True)
def methods(monkeypatch, tmp_path):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme")


@pytest.fixture
def engine(monkeypatch):
    """The engines that were made."""
    made: list[Engine] = []

    def start(**settings):
        made.append(Engine(**settings))
        return made[-1]

    for module in (simple_vllm, chat_vllm):
        monkeypatch.setattr(module, "LLM", start)
        monkeypatch.setattr(module, "SamplingParams", SamplingParams)
    return made


def on_engine(tasks, arguments, **settings):
    model_args = f"model={MODEL},disable_log_stats=True,max_new_tokens=4"
    flags = f"family=pocket,n=3,magnitude=30,{arguments}"
    return evaluate(tasks, **VLLM, model_args=model_args, augment_args=flags, **settings)


def test_rescoring_behind_an_engine_is_the_mean_of_logits(tasks, engine):
    """The same model, in transformers and behind an engine that gives texts and prompt scores."""
    found = on_engine(tasks, "combine=rescore,real_weight=2")
    mean = evaluate(
        tasks,
        model="llava_hf",
        model_args=f"pretrained={MODEL},device_map=cpu",
        augment="randaugment",
        augment_args="family=pocket,n=3,magnitude=30,combine=mean,real_weight=2",
    )
    assert answers(found) == answers(mean)
    disputed = [record for record in records(found) if "proposals" in record]
    assert disputed, "all views agree, so nothing was scored"
    for record, theirs in zip(records(found), records(mean), strict=True):
        assert record["mode"] == record["combine"] == "rescore"
        if "proposals" not in record:
            continue
        assert {text.strip().lower() for text in record["proposals"]} == {"yes", "no"}
        first = record["proposals"][0].strip().lower()
        other = "no" if first == "yes" else "yes"
        for mine, view in zip(record["views"], theirs["views"], strict=True):
            assert mine["scores"][1] == pytest.approx(view[other] - view[first], abs=0.02)
        combined = theirs["combined"][other] - theirs["combined"][first]
        assert record["scores"][1] == pytest.approx(combined, abs=0.02)  # float16
    assert engine[0].asked == [4 * QUESTIONS, 8 * len(disputed)], (
        "an engine gets all requests at once"
    )


def test_an_engine_gets_all_rows_of_a_vote_at_once(tasks, engine):
    record, *_ = records(on_engine(tasks, "combine=vote"))
    assert (
        engine[0].asked == [4 * QUESTIONS]
        and record["mode"] == "vote"
        and len(record["views"]) == 4
    )
    on_engine(tasks, "combine=vote,at_once=4")
    assert engine[1].asked == [16, 16, 16, 8] and 4 * QUESTIONS == 56


def test_one_prompt_shows_all_pictures(tasks, engine, monkeypatch):
    seen: list[list[str]] = []
    own = Engine._inputs

    def look(self, turns, begun):
        seen.append([part["type"] for turn in turns for part in turn["content"]])
        return own(self, turns, begun)

    monkeypatch.setattr(Engine, "_inputs", look)
    found = records(on_engine(tasks, "combine=concat"))
    assert engine[0].asked == [QUESTIONS]
    assert seen == [["image_url", "text", *["image_url"] * 3, "text"]] * QUESTIONS
    assert {record["mode"] for record in found} == {"concat"} and found[0]["views"] == []
    assert len(found[0]["images"][0]["keys"]) == 3


def test_one_prompt_of_a_simple_backend_says_which_picture_is_meant(tasks, monkeypatch):
    from lmms_eval import models as upstream

    monkeypatch.setitem(upstream.AVAILABLE_SIMPLE_MODELS, "texts", "lmms_eval_texts.Counts")
    flags = {"model": "texts", "model_args": "", "augment": "randaugment"}
    found = answers(evaluate(tasks, **flags, augment_args="family=pocket,n=2,combine=concat"))
    assert set(found) == {"3: The first picture is asked about; the others are variations of it."}
    with pytest.raises(SystemExit, match="a gate needs probabilities"):
        evaluate(tasks, **flags, augment_args="family=pocket,n=2,combine=concat,gate=0.5")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llava"
    return f"pretrained={tiny_models.save_llava(folder)},device_map=cpu"


def test_one_prompt_in_transformers_keeps_its_scores_and_its_gate(tasks, llava):
    flags = {"model": "llava_hf", "model_args": llava, "augment": "randaugment"}
    found = records(evaluate(tasks, **flags, augment_args="family=pocket,n=2,combine=concat"))
    plain = records(evaluate(tasks, **flags, augment_args="family=pocket,n=2,gate=0"))
    for record, alone in zip(found, plain, strict=True):
        assert record["views"] == [] and record["combined"]["yes"] != alone["combined"]["yes"]
    half = sorted(record["gate"]["p"] for record in plain)[QUESTIONS // 2]
    flags["augment_args"] = f"family=pocket,n=2,combine=concat,gate={half}"
    gated = records(evaluate(tasks, **flags))
    assert {its["gate"]["passed"] for its in gated} == {True, False}
    for record, alone, together in zip(gated, plain, found, strict=True):
        expected = together if record["gate"]["passed"] else alone
        assert record["combined"]["yes"] == pytest.approx(expected["combined"]["yes"], abs=1e-4)


# ── What cannot be done is refused before anything is generated ──────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("combine=mean", "combine=mean needs a model's logits, and VLLM gives none: use .*rescore"),
        ("combine=zero", "combine=zero needs a model's logits"),
        ("combine=concat,gate=0.5", "a gate needs probabilities, and VLLM gives texts alone"),
    ],
)
def test_an_engine_is_asked_for_nothing_that_it_does_not_give(tasks, engine, arguments, told):
    with pytest.raises(SystemExit, match=told):
        on_engine(tasks, arguments)
    assert engine[0].asked == []


def test_rescoring_is_for_who_scores_prompts(tasks, llava):
    flags = {"augment": "failing", "augment_args": "family=pocket,combine=rescore"}
    with pytest.raises(SystemExit, match="LlavaHf does not give: use combine=mean"):
        evaluate(tasks, model="llava_hf", model_args=llava, **flags)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("combine=rescore,gate=0.5", "rescore is for models that give no probabilities"),
        ("combine=concat,paraphrases=2", "concat asks once"),
        ("at_once=0", "at_once='0' in .* is not a whole number of at least 1, or auto"),
        ("at_once=many", "at_once='many'"),
    ],
)
def test_what_does_not_go_together(given, part):
    with pytest.raises(UserError, match=part):
        AugmentSettings.parse("randaugment", f"family=pocket,{given}")


def test_how_many_at_once_decides_no_answer():
    one, other = (
        AugmentSettings.parse("randaugment", f"family=pocket{given}")
        for given in ("", ",at_once=7")
    )
    assert one.digest == other.digest and (one.at_once, other.at_once) == (None, 7)
    assert (one.to_json()["at_once"], other.to_json()["at_once"]) == ("auto", 7)


# ── A service ────────────────────────────────────────────────────────────────────────────────────


def look(asked):
    """The pictures' sums, and what a request says, made of the first picture."""
    parts = [part for turn in asked["messages"] for part in turn["content"]
             if isinstance(part, dict)]  # fmt: skip
    pictures = [picture for picture in map(picture_of, parts) if picture is not None]
    sums = [sum(picture.tobytes()) for picture in pictures]
    return sums, ("yes", "no")[sums[0] % 2]


def on_service(tasks, url, arguments, model="openai", **settings):
    service = f"base_url={url},api_key=k,max_retries=1,num_concurrent=16,num_cpus=16,timeout=60"
    return evaluate(
        tasks,
        model=model,
        model_args=f"model_version=m,{service}",
        augment="randaugment",
        augment_args=f"family=pocket,n=4,{arguments}",
        **settings,
    )


def test_all_requests_of_a_service_are_in_flight_and_one_that_fails_has_no_vote(tasks):
    failing: list[int] = []

    def answer(asked):
        sums, text = look(asked)
        if not failing:
            failing.append(sums[0])
        return None if sums[0] == failing[0] else {"text": text}

    with serving(answer) as service:
        found = records(on_service(tasks, service.url, "combine=vote"))
    assert service.count == 5 * QUESTIONS and service.most > 5, "one question at a time"
    failed = [record for record in found if "failed" in record]
    assert failed, "no request failed"
    for record in found:
        said = [view.get("answer") for view in record["views"]]
        heard = [text for text in said if text is not None]
        assert record["answer"] in ("yes", "no")
        assert [n for n, text in enumerate(said) if text is None] == record.get("failed", [])
        assert heard.count(record["answer"]) * 2 >= len(heard)


def score(asked):
    """Another way to see it: of the answer that is begun, by the picture."""
    sums, _ = look(asked)
    word = asked["messages"][-1]["content"]
    return -1.0 - sums[0] % 7 if word == "no" else -3.0


@pytest.mark.parametrize("model", ["openai", "async_openai"])
def test_a_service_that_scores_prompts_rescores(tasks, model):
    def answer(asked):
        if "prompt_logprobs" not in asked:
            return {"text": look(asked)[1]}
        assert asked["continue_final_message"] and not asked["add_generation_prompt"]
        told = [None, {"5": {"logprob": -0.5}}, {"7": {"logprob": score(asked)}}]
        return {"text": "", "prompt_logprobs": told}

    with serving(answer, seconds=0.0) as service:
        found = records(on_service(tasks, service.url, "combine=rescore", model=model))
    disputed = [record for record in found if "proposals" in record]
    assert disputed and service.count == 5 * QUESTIONS + 10 * len(disputed)
    for record in disputed:
        first, other = record["proposals"]
        means = record["scores"]
        assert means[0] == 0.0 and record["answer"] == (other if means[1] > 0 else first)
        of_views = [view["scores"][1] for view in record["views"]]
        assert means[1] == pytest.approx(math.fsum(of_views) / 5, abs=1e-5)
    assert json.dumps(found)


def test_a_service_that_scores_none_is_told(tasks):
    with (
        serving(lambda asked: {"text": look(asked)[1]}, seconds=0.0) as service,
        pytest.raises(SystemExit, match="no log-probabilities of prompts .*combine=vote or concat"),
    ):
        on_service(tasks, service.url, "combine=rescore")
