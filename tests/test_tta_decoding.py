"""Views decoded together: in one batch or in lock-step, on tiny random models of four families."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import tiny_models
import torch
from augmenting import picture
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

import hb_tta
from hb_tta.errors import UserError
from hb_tta.tta.answer import _inputs, answer, chat
from hb_tta.tta.combine import Combiner
from hb_tta.tta.decoding import decode_jointly
from hb_tta.tta.intercept import NeverGenerated
from hb_tta.tta.words import yes_no_tokens

QUESTION = "Is there a red circle? Please answer yes or no."
# Different shapes: LLaVA-NeXT's tiles, Qwen-VL's patches and so the prompts' lengths differ.
IMAGES = [picture(0), picture(1), picture(2, 96, 64), picture(3, 40, 120)]
SHORT, LONG = IMAGES[3], IMAGES[0]  # the prompts that LLaVA-NeXT's processor makes of them
MODELS = ["llava", "llava_next", "qwen_vl", "internvl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=MODELS)
def mllm(request, folder):
    path = getattr(tiny_models, f"save_{request.param}")(folder / request.param)
    return SimpleNamespace(
        name=request.param,
        model=AutoModelForImageTextToText.from_pretrained(path).eval(),
        processor=AutoProcessor.from_pretrained(path),
    )


@pytest.fixture(scope="module")
def llava(folder):
    path = tiny_models.save_llava_next(folder / "one")
    return SimpleNamespace(
        model=AutoModelForImageTextToText.from_pretrained(path).eval(),
        processor=AutoProcessor.from_pretrained(path),
    )


def inputs(mllm, image, question=QUESTION):
    return _inputs(mllm.model, mllm.processor, chat(image, question))


def plain(mllm, image, **settings):
    """What transformers itself gives for one image: prompt and new tokens."""
    torch.manual_seed(0)
    return mllm.model.generate(**inputs(mllm, image), **{"max_new_tokens": 6, **settings})


def jointly(mllm, images, mode="auto", combine=None, **settings):
    settings = {"max_new_tokens": 6, **settings}
    torch.manual_seed(0)
    calls = [partial(mllm.model.generate, **inputs(mllm, image), **settings) for image in images]
    return decode_jointly(calls, combine or Combiner(), mode=mode)


def first_logits(mllm, image):
    with torch.inference_mode():
        return mllm.model(**inputs(mllm, image)).logits[0, -1].float()


def test_identical_views_give_the_unaugmented_answer(mllm):
    expected = plain(mllm, IMAGES[2])
    for mode in ("batched", "lock-step"):
        decoded = jointly(mllm, [IMAGES[2]] * 3, mode)
        assert torch.equal(decoded.value, expected)
        assert decoded.mode == mode


def test_one_view_is_the_unaugmented_call(mllm):
    assert torch.equal(jointly(mllm, IMAGES[:1]).value, plain(mllm, IMAGES[0]))


def test_first_logits_are_the_mean_of_separate_ones(mllm):
    separate_VK = torch.stack([first_logits(mllm, image) for image in IMAGES])
    assert (separate_VK[0] - separate_VK[1]).abs().max() > 0.1, "the views say the same"
    for mode in ("batched", "lock-step"):
        decoded = jointly(mllm, IMAGES, mode)
        assert (decoded.first_logits_VRK[:, 0] - separate_VK).abs().max() <= 1e-4
        assert (decoded.first_combined_RK[0] - separate_VK.mean(0)).abs().max() <= 1e-4


def test_batched_equals_lockstep(mllm):
    batched, lockstep = (
        jointly(mllm, IMAGES, m, max_new_tokens=10) for m in ("batched", "lock-step")
    )
    assert torch.equal(batched.value, lockstep.value)
    assert jointly(mllm, IMAGES).mode == "batched"
    unaugmented = plain(mllm, IMAGES[0], max_new_tokens=10)
    assert not torch.equal(batched.value, unaugmented), "the views change nothing"


def test_the_order_of_views_does_not_matter(mllm):
    one = jointly(mllm, IMAGES)
    other = jointly(mllm, [IMAGES[0], IMAGES[3], IMAGES[1], IMAGES[2]])
    assert torch.equal(one.value, other.value)


def _real_alone(logits_VRK):
    """The other views are heard, and have no say."""
    return logits_VRK[0]


@pytest.mark.parametrize("mode", ["batched", "lock-step"])
@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 1.5, "top_k": 20},
        {"do_sample": True, "num_return_sequences": 3},
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6, "eos_token_id": list(range(3, 300))},
        {"eos_token_id": list(range(3, 300)), "pad_token_id": 0},
        {"max_new_tokens": None, "max_length": 60},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_act_as_without_augmentation(llava, settings, mode):
    """The second view's prompt is longer, so in a batch the real view is padded."""
    prompt = inputs(llava, SHORT)["input_ids"].shape[1]
    assert inputs(llava, LONG)["input_ids"].shape[1] > prompt
    if "max_length" in settings:
        settings = {**settings, "max_length": prompt + 4}
    expected = plain(llava, SHORT, **settings)
    decoded = jointly(llava, [SHORT, LONG], mode, _real_alone, **settings)
    assert torch.equal(decoded.value, expected)


def test_beams(llava):
    expected = plain(llava, SHORT, num_beams=3)
    assert torch.equal(jointly(llava, [SHORT] * 3, num_beams=3).value, expected)
    different = jointly(llava, [SHORT, LONG], "batched", _real_alone, num_beams=3)
    assert torch.equal(different.value, expected)
    assert different.first_logits_VRK.shape[:2] == (2, 1)


def test_beams_in_lockstep_are_refused(llava):
    with pytest.raises(UserError, match="beam search needs the views in one batch"):
        jointly(llava, IMAGES, "lock-step", num_beams=2)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"num_beams": 2, "do_sample": True}, "beam_sample does not work with several views"),
        ({"streamer": object()}, "streamer does not work with several views"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens does not work"),
    ],
)
def test_what_cannot_be_done_jointly_is_an_error(llava, settings, part):
    with pytest.raises(UserError, match=part):
        jointly(llava, IMAGES, **settings)


class _AfterFour(StoppingCriteria):
    """Stops the fourth time that it is asked about a row that begins with the given word."""

    def __init__(self, first) -> None:
        self.first, self.asked = first, 0
        self.rows: set[int] = set()

    def __call__(self, input_ids, scores, **kwargs):
        self.rows.add(input_ids.shape[0])
        self.asked += int(input_ids[0, 0] == self.first)
        return torch.full((input_ids.shape[0],), self.asked == 4)


@pytest.mark.parametrize("mode", ["batched", "lock-step"])
def test_the_real_views_stopping_criteria_end_it(llava, mode):
    """The criterion reads the first word, which is padding in the real view's row of a batch."""
    criterion = _AfterFour(inputs(llava, SHORT)["input_ids"][0, 0])
    given = StoppingCriteriaList([criterion])
    decoded = jointly(llava, [SHORT, LONG], mode, stopping_criteria=given)
    assert decoded.value.shape[1] == inputs(llava, SHORT)["input_ids"].shape[1] + 4
    assert criterion.rows == {1}


class _Never(LogitsProcessor):
    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, input_ids, scores):
        self.rows += scores.shape[0]
        scores[:, 7:] = -torch.inf
        return scores


@pytest.mark.parametrize("mode", ["batched", "lock-step"])
def test_the_real_views_processors_run_once_a_step(llava, mode):
    processor = _Never()
    decoded = jointly(llava, IMAGES, mode, logits_processor=[processor], min_new_tokens=6)
    assert processor.rows == 6
    assert (decoded.value[:, -6:] < 7).all()


def test_two_rows_of_one_call(llava):
    """A backend that batches questions itself."""
    questions = ["Is it red?", "How many dogs are there in this image?"]
    llava.processor.tokenizer.padding_side = "left"

    def call(image, rows):
        texts = [f"[INST] <image>\n{q} [/INST]" for q in rows]
        batch = llava.processor(
            images=[image] * len(rows), text=texts, padding=True, return_tensors="pt"
        )
        return partial(llava.model.generate, **batch, max_new_tokens=5)

    together = decode_jointly([call(image, questions) for image in IMAGES], Combiner())
    for row, question in enumerate(questions):
        alone = decode_jointly([call(image, [question]) for image in IMAGES], Combiner())
        assert torch.equal(together.value[row, -5:], alone.value[0, -5:])


def test_what_cannot_be_merged_walks_in_lockstep(llava):
    calls = [
        partial(
            llava.model.generate, **inputs(llava, image), max_new_tokens=4, vision_feature_layer=x
        )
        for image, x in zip(IMAGES, (-2, -1, -2, -2), strict=True)
    ]
    decoded = decode_jointly(calls, Combiner())
    assert decoded.mode == "lock-step"
    with pytest.raises(UserError, match="cannot be merged into one batch"):
        decode_jointly(calls, Combiner(), mode="batched")


def test_scores_can_be_returned(llava):
    decoded = jointly(llava, IMAGES, output_scores=True, return_dict_in_generate=True)
    assert decoded.value.sequences.shape[0] == 1
    first_K = decoded.value.scores[0][0]
    assert (first_K - decoded.first_combined_RK[0]).abs().max() <= 1e-5


def test_an_error_in_generate_gets_past_callers_that_swallow_errors(llava):
    def swallowing(**settings):
        try:
            return llava.model.generate(**inputs(llava, IMAGES[0]), **settings)
        except Exception:
            return "an empty answer"

    with pytest.raises(UserError, match="streamer"):
        decode_jointly([partial(swallowing, streamer=object())] * 2, Combiner())
    with pytest.raises((TypeError, ValueError)):
        decode_jointly([partial(swallowing, max_new_tokens=-3)] * 2, Combiner())


def test_generate_is_its_old_self_outside_a_session(llava):
    before = plain(llava, IMAGES[0])
    jointly(llava, IMAGES)
    assert torch.equal(plain(llava, IMAGES[0]), before)


def test_a_call_that_never_generates(llava):
    with pytest.raises(NeverGenerated, match="never called transformers' generate"):
        decode_jointly([lambda: "yes", lambda: "no"], Combiner())


def test_a_second_generate_for_one_answer_is_refused(llava):
    def twice():
        for _ in range(2):
            llava.model.generate(**inputs(llava, IMAGES[0]), max_new_tokens=2)

    with pytest.raises(UserError, match="more than once"):
        decode_jointly([twice, twice], Combiner())


def test_answer(mllm):
    views = IMAGES[1:]
    found = hb_tta.answer(mllm.model, mllm.processor, IMAGES[0], QUESTION, views, max_new_tokens=6)
    decoded = jointly(mllm, IMAGES)
    prompt = inputs(mllm, IMAGES[0])["input_ids"].shape[1]
    text = mllm.processor.batch_decode(decoded.value[:, prompt:], skip_special_tokens=True)[0]
    assert found.text == text
    yes, no = yes_no_tokens(mllm.processor.tokenizer)
    for score, image in zip(found.seen, IMAGES, strict=True):
        probabilities_K = first_logits(mllm, image).softmax(-1)
        assert abs(probabilities_K[yes].sum().log().item() - score.yes) <= 1e-4
        assert abs(probabilities_K[no].sum().log().item() - score.no) <= 1e-4


def test_answer_without_views_is_the_models_own(mllm):
    found = answer(mllm.model, mllm.processor, IMAGES[0], QUESTION, max_new_tokens=6)
    ids = plain(mllm, IMAGES[0])[:, inputs(mllm, IMAGES[0])["input_ids"].shape[1] :]
    assert found.text == mllm.processor.batch_decode(ids, skip_special_tokens=True)[0]
    assert len(found.seen) == 1


def test_answer_without_an_image_is_of_the_words_alone(llava):
    found = answer(llava.model, llava.processor, None, QUESTION, max_new_tokens=6)
    turns = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    given = llava.processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )  # fmt: skip
    assert "pixel_values" not in given
    ids = llava.model.generate(**given, max_new_tokens=6)[:, given["input_ids"].shape[1] :]
    assert found.text == llava.processor.batch_decode(ids, skip_special_tokens=True)[0]
    with pytest.raises(UserError, match="1 views of no image"):
        answer(llava.model, llava.processor, None, QUESTION, [IMAGES[0]])


def test_answer_needs_a_chat_template(llava):
    processor = SimpleNamespace(chat_template=None)
    with pytest.raises(UserError, match="no chat template"):
        answer(llava.model, processor, IMAGES[0], QUESTION)


def test_what_is_patched_in_transformers_is_still_there():
    """The names of transformers that decoding.py counts on and that it does not promise."""
    import inspect

    from transformers import GenerationMixin

    generate = inspect.signature(GenerationMixin.generate).parameters
    assert {"inputs", "custom_generate", "logits_processor", "stopping_criteria"} <= set(generate)
    for name in ("_sample", "_beam_search"):
        loop = inspect.signature(getattr(GenerationMixin, name)).parameters
        assert {"input_ids", "logits_processor", "stopping_criteria"} <= set(loop)
