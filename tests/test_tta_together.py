"""Many questions in one batch: what each of them gets is what it gets by itself."""

from __future__ import annotations

import functools
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import tiny_models
import torch
from augmenting import picture
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationMixin

from hb_tta.errors import UserError
from hb_tta.tta import together
from hb_tta.tta.answer import Question, _inputs, answer_many, chat
from hb_tta.tta.combine import Combiner
from hb_tta.tta.decoding import decode_jointly
from hb_tta.tta.intercept import NeverGenerated
from hb_tta.tta.room import ROWS, Room
from hb_tta.tta.together import Asked, decode_together

MODELS = ["llava", "llava_next", "qwen_vl", "internvl"]
# Other numbers of views, other lengths of prompts, pictures of other shapes; one without a picture.
QUESTIONS = [
    ("Is there a red circle?", [picture(0), picture(1), picture(2, 96, 64)]),
    ("How many dogs are there in this picture, and what do they do?", [picture(3, 40, 120)]),
    ("What colour is it?", [picture(4), picture(5, 40, 120), picture(6), picture(7), picture(8)]),
    ("Where is the square? Please say left or right.", [picture(9), picture(10, 96, 64)]),
    ("Say something.", [None]),
    ("Is there a red circle?", [picture(11), picture(12)]),
]


def load(name, folder):
    path = getattr(tiny_models, f"save_{name}")(folder / name)
    return SimpleNamespace(
        model=AutoModelForImageTextToText.from_pretrained(path).eval(),
        processor=AutoProcessor.from_pretrained(path),
    )


@pytest.fixture(scope="module", params=MODELS)
def mllm(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return load("llava_next", tmp_path_factory.mktemp("models"))


def asked(mllm, question, **settings):
    words, images = question
    settings = {"max_new_tokens": 8, **settings}
    calls = [
        partial(
            mllm.model.generate,
            **_inputs(mllm.model, mllm.processor, chat(image, words)),
            **settings,
        )
        for image in images
    ]
    return Asked(calls, Combiner())


def alone(mllm, question, **settings):
    return decode_jointly(*asked(mllm, question, **settings))


def check_same(one, other):
    assert torch.equal(one.value, other.value)
    assert (one.first_logits_VRK - other.first_logits_VRK).abs().max() <= 1e-4
    assert (one.first_combined_RK - other.first_combined_RK).abs().max() <= 1e-4
    assert one.entropies == pytest.approx(other.entropies, abs=1e-4)
    assert one.mode == other.mode


def early_words(mllm) -> list[int]:
    """Words that end some of the answers early: each question's own last but one, or the like."""
    ids = [alone(mllm, question).value[0, -8:] for question in QUESTIONS]
    return sorted({int(ids[0][1]), int(ids[2][4]), int(ids[3][2])})


@pytest.fixture
def batches(monkeypatch):
    """How many questions each batch had."""
    seen: list[int] = []
    own = together._decode_batch

    def decode(batch):
        seen.append(len(batch))
        return own(batch)

    monkeypatch.setattr(together, "_decode_batch", decode)
    return seen


def test_questions_get_what_they_get_alone_in_any_order_and_number(mllm, batches):
    ends = {"eos_token_id": early_words(mllm), "pad_token_id": 0}
    expected = [alone(mllm, question, **ends) for question in QUESTIONS]
    lengths = {len(its.entropies) for its in expected}
    assert len(lengths) > 2, "all answers are of one length, so nobody left early"
    for order, rows in (([0, 1, 2, 3, 4, 5], ROWS), ([4, 2, 5, 0, 3, 1], ROWS), ([3, 1, 2, 0], 6)):
        found = decode_together([asked(mllm, QUESTIONS[n], **ends) for n in order], Room(rows))
        for place, number in enumerate(order):
            check_same(found[place], expected[number])
    assert batches[:2] == [6, 6], "they were not decoded together"


def test_whoever_has_finished_leaves(llava, monkeypatch):
    ends = {"eos_token_id": early_words(llava), "pad_token_id": 0}
    steps = [len(alone(llava, question, **ends).entropies) for question in QUESTIONS]
    views = [len(images) for _, images in QUESTIONS]
    rows: list[int] = []
    own = type(llava.model).forward

    @functools.wraps(own)  # generate reads its signature
    def forward(self, input_ids=None, **inputs):
        rows.append(len(input_ids))
        return own(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(type(llava.model), "forward", forward)
    decode_together([asked(llava, question, **ends) for question in QUESTIONS])
    going_on = [
        sum(its for its, last in zip(views, steps, strict=True) if last > step)
        for step in range(max(steps))
    ]
    assert rows == going_on and rows[0] == sum(views) > rows[-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6, "eos_token_id": list(range(3, 300))},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_processors_see_the_real_prompt_of_their_question(llava, settings, batches):
    expected = [alone(llava, question, **settings) for question in QUESTIONS]
    plain = [alone(llava, question) for question in QUESTIONS]
    assert any(not torch.equal(a.value, b.value) for a, b in zip(expected, plain, strict=True)), (
        "the setting changes nothing"
    )
    found = decode_together([asked(llava, question, **settings) for question in QUESTIONS])
    assert batches == [6]
    for one, other in zip(found, expected, strict=True):
        check_same(one, other)


def test_stop_strings_end_their_own_question(llava):
    """transformers loses the tokenizer that they need on the way to a ``custom_generate``."""
    tokenizer = llava.processor.tokenizer
    words = tokenizer.decode(alone(llava, QUESTIONS[0]).value[0, -6])
    settings = {"stop_strings": [words], "tokenizer": tokenizer}
    expected = [alone(llava, question, **settings) for question in QUESTIONS[:3]]
    assert len(expected[0].entropies) < 8
    found = decode_together([asked(llava, question, **settings) for question in QUESTIONS[:3]])
    for one, other in zip(found, expected, strict=True):
        check_same(one, other)


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}, {"use_cache": False}],
    ids=lambda settings: "-".join(settings),
)
def test_what_cannot_share_a_batch_is_decoded_alone(llava, settings, batches):
    questions = QUESTIONS[:3]
    torch.manual_seed(0)
    expected = [alone(llava, question, **settings) for question in questions]
    torch.manual_seed(0)
    found = decode_together([asked(llava, question, **settings) for question in questions])
    assert batches == []
    for one, other in zip(found, expected, strict=True):
        check_same(one, other)


def test_other_settings_are_another_batch(llava, batches):
    short = [asked(llava, question, max_new_tokens=3) for question in QUESTIONS[:3]]
    long = [asked(llava, question) for question in QUESTIONS[3:]]
    found = decode_together([*short, *long])
    assert batches == [3, 3]
    assert [len(its.entropies) for its in found] == [3, 3, 3, 8, 8, 8]


def raises(error):
    def call():
        raise error

    return call


def test_a_question_that_fails_takes_no_neighbour_with_it(llava):
    expected = [alone(llava, question) for question in QUESTIONS]
    questions = [asked(llava, question) for question in QUESTIONS]
    unreadable, broken = ValueError("no picture"), ZeroDivisionError("a rule")
    questions[1] = Asked([raises(unreadable)], Combiner())
    questions[2] = Asked([questions[2].calls[0], raises(unreadable)], Combiner())
    questions[3] = questions[3]._replace(combine=lambda logits: (_ for _ in ()).throw(broken))
    questions[4] = Asked([lambda: "yes"], Combiner())
    found = decode_together(questions)
    assert found[1] is unreadable and found[2] is unreadable and found[3] is broken
    assert isinstance(found[4], NeverGenerated)
    for place in (0, 5):
        check_same(found[place], expected[place])


def test_a_failure_is_seen_through_callers_that_swallow_errors(llava):
    def swallowing(call, behind=None):
        def inner():
            try:
                value = call()
                return value if behind is None else behind()
            except Exception:
                return "an empty answer"

        return inner

    wrong = asked(llava, QUESTIONS[0], streamer=object())
    twice = asked(llava, QUESTIONS[3])
    questions = [
        Asked([swallowing(call) for call in wrong.calls], Combiner()),
        Asked([swallowing(call, call) for call in twice.calls], Combiner()),
        asked(llava, QUESTIONS[5]),
    ]
    found = decode_together(questions)
    assert isinstance(found[0], UserError) and "streamer" in str(found[0])
    assert isinstance(found[1], UserError) and "more than once" in str(found[1])
    check_same(found[2], alone(llava, QUESTIONS[5]))


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(llava, monkeypatch):
    expected = [alone(llava, question) for question in QUESTIONS]
    sizes: list[int] = []
    own = together._decode_batch

    def decode(batch):
        rows = sum(walk.rows for walk in batch)
        sizes.append(rows)
        if rows > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(batch)

    monkeypatch.setattr(together, "_decode_batch", decode)
    room = Room()
    for _ in range(2):
        found = decode_together([asked(llava, question) for question in QUESTIONS], room)
        for one, other in zip(found, expected, strict=True):
            check_same(one, other)
    assert sizes[0] == 14 and room.rows == 4
    assert all(rows <= 7 for rows in sizes[-3:])


def test_no_thread_and_no_switch_is_left_behind(llava):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        decode_together([asked(llava, QUESTIONS[0]), Asked([raises(KeyboardInterrupt())], None)])
    decode_together([asked(llava, QUESTIONS[0]), Asked([raises(ValueError())], Combiner())])
    assert threading.active_count() == before
    own = _inputs(llava.model, llava.processor, chat(picture(0), "?"))
    assert isinstance(llava.model.generate(**own, max_new_tokens=2), torch.Tensor)


def test_rows_are_limited_by_number_and_by_memory(monkeypatch):
    items = [SimpleNamespace(rows=3, length=10) for _ in range(7)]
    on_cpu = SimpleNamespace(device=torch.device("cpu"))
    assert [len(b) for b in Room(7).batches(items, on_cpu)] == [2, 2, 2, 1]
    assert [len(b) for b in Room(1).batches(items[:2], on_cpu)] == [1, 1]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 90 * 256, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    text = SimpleNamespace(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                           hidden_size=64)  # fmt: skip
    config = SimpleNamespace(get_text_config=lambda: text)
    on_gpu = SimpleNamespace(device=torch.device("cuda:0"), config=config, dtype=torch.bfloat16)
    assert [len(b) for b in Room(96).batches(items, on_gpu)] == [3, 3, 1]


def test_what_the_loop_counts_on_in_transformers_is_still_there():
    import inspect

    parts = {
        "_prefill": {"input_ids", "generation_config", "model_kwargs", "is_first_iteration"},
        "prepare_inputs_for_generation": {"next_sequence_length", "is_first_iteration"},
        "_update_model_kwargs_for_generation": {"outputs", "model_kwargs"},
    }  # fmt: skip
    for name, names in parts.items():
        assert names <= set(inspect.signature(getattr(GenerationMixin, name)).parameters)


# ── hb_tta.tta.answer.answer_many ────────────────────────────────────────────────────────────────


def many(mllm, questions, **settings):
    return answer_many(mllm.model, mllm.processor, questions, max_new_tokens=6, **settings)


def test_many_answers_are_the_answers_of_each(llava):
    questions = [
        Question(images[0], words, images[1:], rewordings=["Say: " + words] * (len(words) % 2))
        for words, images in QUESTIONS
    ]
    questions.append(Question(picture(0), "What is it?", description="A red circle."))
    for gate in (None, 0.012):
        found = many(llava, questions, gate=gate)
        for one, asked in zip(found, questions, strict=True):
            (alone,) = many(llava, [asked], gate=gate)
            assert one.text == alone.text and one.gate == pytest.approx(alone.gate, abs=1e-5)
            assert len(one.seen) == len(alone.seen)
            for mine, theirs in zip(one.seen, alone.seen, strict=True):
                assert mine == pytest.approx(theirs, abs=1e-4)
            assert one.combined == pytest.approx(alone.combined, abs=1e-4)
    passed = [one.gate.passed for one in found]
    assert any(passed) and not all(passed), "the gate tells none apart"


def test_an_answer_that_fails_takes_no_neighbour_with_it(llava, tmp_path):
    def none():
        raise ZeroDivisionError("no views today")

    questions = [
        Question(tmp_path / "missing.png", "What?"),
        Question(picture(0), "What?", [tmp_path / "missing.png"]),
        Question(picture(0), "What?", none),
        Question(None, "What?", [picture(0)]),
        Question(picture(0), "What?", [picture(1)]),
    ]
    *failed, last = many(llava, questions)
    assert [type(one) for one in failed] == [UserError, UserError, ZeroDivisionError, UserError]
    assert last == many(llava, questions[-1:])[0]
