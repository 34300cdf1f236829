"""The gate: who is asked for views, and that nobody else is; rows without a picture; rewordings."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny_models
import torch
from augmenting import picture
from transformers import AutoModelForImageTextToText, AutoProcessor

from hb_tta import UserError, answer
from hb_tta.describe import reworded
from hb_tta.describe.rewording import MOST
from hb_tta.tta.answer import behind
from hb_tta.tta.gate import Gated, decide, gated, sureness, sureness_of_choice

QUESTION = "Is there a red circle? Please answer yes or no."
VIEWS = [picture(1), picture(2, 96, 64)]
YES_NO = ([0, 1], [2])


# ── How sure ─────────────────────────────────────────────────────────────────────────────────────


def test_a_yes_has_the_probability_of_all_ways_to_say_it():
    logits_K = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    assert sureness(logits_K, [1.0, 1.0], "Yes, there is one", YES_NO) == pytest.approx(0.7)
    assert sureness(logits_K, [1.0], "red", None) == pytest.approx(0.4)


def test_an_open_answer_is_as_sure_as_its_words_are():
    logits_K = torch.log(torch.tensor([0.01, 0.01, 0.01, 0.97]))
    entropies = [0.1, 2.0, 0.9]
    assert sureness(logits_K, entropies, "a red dog", YES_NO) == pytest.approx(math.exp(-1.0))
    assert sureness(logits_K, entropies, "dog", YES_NO) == pytest.approx(0.97)


def test_of_several_choices_the_likeliest_counts_whatever_their_order():
    assert sureness_of_choice([1.0, 1.0]) == pytest.approx(0.5)
    losses = [0.3, 2.0, 5.0]
    expected = math.exp(-0.3) / sum(math.exp(-loss) for loss in losses)
    assert sureness_of_choice(losses) == pytest.approx(expected)
    assert sureness_of_choice(losses[::-1]) == pytest.approx(expected)


def test_gate_0_lets_nobody_through_and_a_share_lets_the_least_sure():
    assert gated(0.0, 0.0) == Gated(0.0, False)
    assert gated(0.6, 0.7).passed and not gated(0.7, 0.7).passed
    sure = {4: 0.9, 7: 0.2, 8: 0.5, 9: 0.5}
    shared = decide(sure, None, 0.5)
    assert [number for number, its in shared.items() if its.passed] == [7, 8]
    assert not any(its.passed for its in decide(sure, None, 0.0).values())
    assert all(its.passed for its in decide(sure, None, 1.0).values())


# ── In an answer ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["llava", "llava_next", "qwen_vl", "internvl"])
def mllm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    path = getattr(tiny_models, f"save_{request.param}")(folder)
    return SimpleNamespace(
        model=AutoModelForImageTextToText.from_pretrained(path).eval(),
        processor=AutoProcessor.from_pretrained(path),
    )


def ask(mllm, *views, **settings):
    settings = {"max_new_tokens": 5, **settings}
    return answer(mllm.model, mllm.processor, picture(0), QUESTION, *views, **settings)


def never():
    raise AssertionError("views are made for a question that gets none")


def test_views_are_made_only_where_the_model_is_not_sure(mllm):
    stock, all_views = ask(mllm), ask(mllm, VIEWS)
    assert stock.text != all_views.text, "the views change nothing"
    closed = ask(mllm, never, gate=0.0)
    assert closed.gate is not None and not closed.gate.passed
    p = closed.gate.p
    assert 0 < p < 1 and (closed.text, closed.seen) == (stock.text, stock.seen)
    assert ask(mllm, never, gate=p) == closed
    opened = ask(mllm, lambda: VIEWS, gate=min(1.0, 1.01 * p))
    assert opened.gate == Gated(p, True)
    assert (opened.text, opened.seen) == (all_views.text, all_views.seen)


def test_rows_of_text_are_heard_batched_as_in_lockstep(mllm):
    text = {"description": "One red circle is left of it.", "rewordings": reworded(QUESTION, 1)}
    batched, lockstep = (ask(mllm, VIEWS, mode=mode, **text) for mode in ("batched", "lock-step"))
    assert len(batched.seen) == 2 * 3 + 1
    assert batched.text == lockstep.text
    for one, other in zip(batched.seen, lockstep.seen, strict=True):
        assert one.yes == pytest.approx(other.yes, abs=1e-4)
    assert len({round(its.yes, 4) for its in batched.seen}) == 7, "a row says what another says"


def test_the_description_stands_in_the_pictures_place(mllm):
    alone = ask(mllm, description="One red circle.", real_weight=0.0)
    prompt = behind("One red circle.", QUESTION)
    assert prompt == f"One red circle.\n{QUESTION}"
    processor = mllm.processor
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )
    ids = mllm.model.generate(**inputs, max_new_tokens=5)[:, inputs["input_ids"].shape[1] :]
    assert alone.text == processor.batch_decode(ids, skip_special_tokens=True)[0]


def test_without_views_no_rule_has_anything_to_combine(mllm):
    stock = ask(mllm)
    for rule in ("mean", "contrast", "zero"):
        assert ask(mllm, lambda: [], gate=1.0, combine=rule).text == stock.text
    assert ask(mllm, real_weight=0.0).text == stock.text


def test_wrong_gates(mllm):
    for gate in (-0.1, 1.5, math.nan, "often"):
        with pytest.raises(UserError, match="use 0 .no views. to 1, or None"):
            ask(mllm, never, gate=gate)


# ── Rewordings ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("prompt", "first"),
    [
        (QUESTION, "Can you see a red circle? Please answer yes or no."),
        (
            "How many dogs are there?\nA. 1\nB. 2\nAnswer with the option's letter.",
            "What is the number of dogs?\nA. 1\nB. 2\nAnswer with the option's letter.",
        ),
        (
            "<image>\nWhat color are the shoes?\n"
            "Answer the question using a single word or phrase.",
            "<image>\nWhat is the color of the shoes?\n"
            "Answer the question using a single word or phrase.",
        ),
        ("Is the dog wet?", "In this image, is the dog wet?"),
        ("图中有红色的圆吗？请回答是或否。", "Look at the image. 图中有红色的圆吗？请回答是或否。"),
        ("Name the dog's breed.", "Look at the image. Name the dog's breed."),
    ],
)
def test_the_same_is_asked_in_other_words_and_how_to_answer_stays(prompt, first):
    found = reworded(prompt, MOST)
    assert found[0] == first
    assert len({*found, prompt}) == MOST + 1
    assert reworded(prompt, 2) == found[:2] and reworded(prompt, 0) == []
    suffix = prompt[prompt.find("?") + 1 :] if "?" in prompt else ""
    assert all(text.endswith(suffix) for text in found)


def test_nothing_is_asked_of_nothing():
    assert reworded("", 2) == []
    with pytest.raises(UserError, match="paraphrases=5 is out of range: use 0 to 4"):
        reworded(QUESTION, 5)
