"""The describer: prompts that ask for what is there, any chat model, the same in any batch."""

import json
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from hb_tta.context import TASKS, DescribedContext, MultimodalContext
from hb_tta.describe import Describer, DescriberSpec, load_mllm, tidy_description
from hb_tta.describe.templates import (
    GUIDANCE_LIMIT,
    clean_guidance,
    clean_question,
    evaluation_prompt,
    training_prompt,
)
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.weights import Weights

TOKENS = 16


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def describer(llava: Path) -> Describer:
    return DescriberSpec(Weights(str(llava)), max_new_tokens=TOKENS).load("cpu")


# ── Questions ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "cleaned"),
    [
        ("Is there a dog? Please answer yes or no.", "Is there a dog?"),
        ("Is there a dog?\nAnswer the question using a single word or phrase.", "Is there a dog?"),
        (
            "Is it red? Is it round? Please answer yes or no.\n"
            "Answer the question using a single word or phrase.",
            "Is it red?",  # MME: cut at the first question mark
        ),
        ("What is it? Is it alive?", "What is it? Is it alive?"),
        (
            "Which?\nA. a cat\nB. a dog\nAnswer with the option's letter from the given choices "
            "directly.",
            "Which? A. a cat B. a dog",
        ),
        ("<image>\nQuestion: How many cups are there? Short answer:", "How many cups are there?"),
        ("What does the sign say? ASSISTANT:", "What does the sign say?"),
        ("Is the answer yes or no?", "Is the answer yes or no?"),
        ("Does the man answer the phone?", "Does the man answer the phone?"),
        ("Answer briefly.", "Answer briefly."),  # nothing would be left of it
        ("这是什么？请直接回答问题。", "这是什么？"),
        ("ما لون السيارة؟", "ما لون السيارة؟"),
        ("a\x00b\x1b[31m\ud800 c\r\n\td", "a b [31m c d"),
        ("Is <b>this</b> {bold}?", "Is <b>this</b> {bold}?"),
        ("cafe\u0301?", "café?"),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_a_question_is_cleaned(question: str, cleaned: str) -> None:
    assert clean_question(question) == cleaned


def test_a_question_of_100_kilobytes_ends_at_a_word() -> None:
    cleaned = clean_question("word " * 20_000)
    assert GUIDANCE_LIMIT - 5 <= len(cleaned) <= GUIDANCE_LIMIT
    assert cleaned.endswith("word")
    assert len(clean_question("长" * 50_000)) == GUIDANCE_LIMIT
    assert len(clean_question("word " * 20_000, limit=None)) == 99_999


@given(st.text(max_size=300))
def test_cleaning_any_text_leaves_one_printable_line(text: str) -> None:
    cleaned = clean_question(text)
    assert cleaned == " ".join(cleaned.split())
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in cleaned)
    cleaned.encode("utf-8")


parts = st.sampled_from(
    [
        *("Question:", "Q:", "user：", "<image>", "<image 1>", " ", "\n", "\u2028", "?", ".", "("),
        *("Is it red?", "Answer:", "The answer is:", "Please answer yes or no.", "yes or no"),
        *("Answer with the letter.", "请直接回答问题。", "Think step by step", "Best option:"),
        *("only give me one", "e", "\u0301", "长", "\x00", "x" * 995, "word " * 150, "word"),
    ]
)


@given(st.lists(st.text(max_size=20) | parts, max_size=9).map("".join))
@example("user: Question: Is it red?")
@example("Question: <image> Question: Is it red?")
@example("The answer is: Answer with the letter.\nIt is red")
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    for task in ("vqa", "hoi", "object"):
        cleaned = clean_guidance(text, task)
        assert clean_guidance(cleaned, task) == cleaned


@pytest.mark.parametrize("part", ["Question: ", "<image>", "Answer: ", " yes or no", "word ", "长"])
def test_cleaning_takes_no_long_time(part: str) -> None:
    began = time.process_time()
    clean_question(part * 20_000, limit=None)
    assert time.process_time() - began < 5


# ── Prompts ──────────────────────────────────────────────────────────────────────────────────────


def test_the_prompts_ask_for_what_the_paper_asks_for() -> None:
    assert "How many cats?" in evaluation_prompt("How many cats?", "vqa")
    assert "between the person and the bicycle" in evaluation_prompt("person | bicycle", "hoi")
    assert "the bicycle (ride)" in evaluation_prompt("person | ride | bicycle", "hoi")
    assert "riding a bicycle" in evaluation_prompt("riding a bicycle", "hoi")
    assert "main object" in evaluation_prompt("", "object")
    assert "how many" in evaluation_prompt("", "generic")
    for task in TASKS:
        prompt = evaluation_prompt("person | bicycle", task)
        assert "clear and concise" in prompt and "never name what is absent" in prompt
        assert "{" not in prompt


def test_object_and_generic_read_the_image_alone() -> None:
    for task in ("object", "generic"):
        assert evaluation_prompt("a hint", task) == evaluation_prompt("", task)
        assert clean_guidance("a hint", task) == ""


def test_without_a_question_the_image_as_a_whole_is_described() -> None:
    for task in ("vqa", "hoi"):
        assert evaluation_prompt(" ", task) == evaluation_prompt("", "generic")


def test_the_ground_truth_is_in_the_training_prompt_alone() -> None:
    for task in ("vqa", "hoi", "object"):
        context = MultimodalContext(picture(0), "person | bicycle", task, "zebra")
        assert "zebra" in training_prompt(context)
        untold = MultimodalContext(picture(0), "person | bicycle", task)
        assert training_prompt(untold) == evaluation_prompt("person | bicycle", task)


def test_evaluation_refuses_a_context_with_its_ground_truth(describer: Describer) -> None:
    contexts = [
        MultimodalContext(picture(0), "Is it?"),
        MultimodalContext(picture(0), "", "vqa", ""),
    ]
    with pytest.raises(UserError, match="context 1 carries its ground truth"):
        describer.describe(contexts)
    assert "ground_truth" not in DescribedContext._fields


# ── Descriptions ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("Yes, there is a red circle.", "There is a red circle."),
        ("No, the circle is on the left.", "The circle is on the left."),
        ("NO: a cat\n on a  sofa.", "A cat on a sofa."),
        ("No, there is no dog. A cat sits on a sofa.", "A cat sits on a sofa."),
        ("The image does not show a dog, but a cat on a sofa.", "A cat on a sofa."),
        ("A cat. There isn't any dog. A sofa.", "A cat. A sofa."),
        ('A sign that says "no parking" on a wall.', 'A sign that says "no parking" on a wall.'),
        ("There is no dog in the image.", ""),
        ("**Description:** `A cat`", "A cat"),
        ("Nobles at noon on a knot.", "Nobles at noon on a knot."),
        ("Yesterday's paper", "Yesterday's paper"),
        ("红色的圆", "红色的圆"),
        ("a\x00\x07b", "A b"),
        ("", ""),
    ],
)
def test_a_description_says_what_is_there(text: str, tidy: str) -> None:
    assert tidy_description(text) == tidy


def test_an_echo_of_the_prompt_is_taken_off() -> None:
    prompt = evaluation_prompt("Is there a dog?", "vqa")
    assert tidy_description(f"{prompt}\n\na dog on grass", prompt) == "A dog on grass"


# ── Models ───────────────────────────────────────────────────────────────────────────────────────

QUESTIONS = (
    "Is there a dog?",
    "",
    "How many red circles are left of the blue squares, above the triangles and below the rest?",
    "这是什么？",
)
SIZES = ((64, 64), (40, 90), (70, 32), (64, 64))


def contexts() -> list[MultimodalContext]:
    return [
        MultimodalContext(picture(seed, *size), question)
        for seed, (size, question) in enumerate(zip(SIZES, QUESTIONS, strict=True))
    ]


@pytest.mark.parametrize(
    "save",
    [
        tiny_models.save_llava,
        tiny_models.save_llava_next,
        tiny_models.save_qwen_vl,
        tiny_models.save_internvl,
    ],
)
def test_any_chat_model_says_the_same_in_any_batch(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    spec = DescriberSpec(Weights(str(save(tmp_path))), max_new_tokens=TOKENS)
    describer = spec.load("cpu")
    together = describer.describe(contexts())
    assert together == [describer.describe([context])[0] for context in contexts()]
    assert together[::-1] == describer.describe(contexts()[::-1])
    assert together == spec.load("cpu").describe(contexts())
    assert len(set(together)) > 2  # random weights, but they do look at images and questions


def test_image_and_question_both_count(describer: Describer) -> None:
    first, *others = describer.describe(
        [
            MultimodalContext(picture(0), "Is there a dog?"),
            MultimodalContext(picture(1), "Is there a dog?"),
            MultimodalContext(picture(0), "Is there a cat?"),
        ]
    )
    assert first not in others


def test_a_description_has_at_most_its_tokens(describer: Describer) -> None:
    (text,) = describer.describe_with([picture(0)], ["Describe it."])
    assert 0 < len(describer.processor.tokenizer(text).input_ids) <= 2 * TOKENS
    shorter = DescriberSpec(describer.spec.mllm, max_new_tokens=2).load("cpu")
    assert len(shorter.describe_with([picture(0)], ["Describe it."])[0]) < len(text)


def test_a_question_that_quotes_the_models_marks_is_only_text(describer: Describer) -> None:
    prompts = ["What does <image> mean?</s><pad>", "What does   mean?  "]
    quoted, plain = describer.describe_with([picture(0)] * 2, prompts)
    assert quoted == plain


def test_sampling_settings_of_the_checkpoint_are_set_aside(llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sampling"
    shutil.copytree(llava, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "top_k": 3}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    sampling = DescriberSpec(Weights(str(folder)), max_new_tokens=TOKENS).load("cpu")
    greedy = DescriberSpec(Weights(str(llava)), max_new_tokens=TOKENS).load("cpu")
    assert sampling.describe(contexts()) == greedy.describe(contexts())
    assert sampling.model.generation_config.temperature == 5.0  # left as it was


def test_a_description_of_absence_is_asked_for_again(
    describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([["No, there is no dog.", "A cat."], ["A sofa by a window."]])
    monkeypatch.setattr(describer.processor, "batch_decode", lambda *_, **__: next(said))
    assert describer.describe(contexts()[:2]) == ["A sofa by a window.", "A cat."]


def test_nothing_to_describe(describer: Describer) -> None:
    assert describer.describe([]) == []


# ── Specs ────────────────────────────────────────────────────────────────────────────────────────


def test_a_spec_names_content_and_never_a_path(llava: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(llava, elsewhere)
    spec = DescriberSpec(Weights(str(llava)))
    assert DescriberSpec(Weights(str(elsewhere))).to_json() == spec.to_json()
    assert str(llava) not in json.dumps(spec.to_json())
    tiny_models.save_llava(elsewhere, seed=1)
    for other in (
        DescriberSpec(Weights(str(elsewhere))),
        DescriberSpec(Weights(str(llava)), max_new_tokens=121),
        DescriberSpec(Weights(str(llava)), dtype="bfloat16"),
        DescriberSpec(Weights(str(llava)), template_version="0"),
    ):
        assert other.to_json() != spec.to_json()


def test_mistaken_specs(llava: Path) -> None:
    weights = Weights(str(llava))
    with pytest.raises(UserError, match="max_new_tokens=0"):
        DescriberSpec(weights, max_new_tokens=0)
    with pytest.raises(UserError, match="dtype 'int8'"):
        DescriberSpec(weights, dtype="int8")
    with pytest.raises(UserError, match="templates are '0'"):
        DescriberSpec(weights, template_version="0").load("cpu")


def test_a_model_without_a_chat_template_is_named(tmp_path: Path) -> None:
    tiny_models.save_llava(tmp_path, chat_template=None)
    with pytest.raises(UserError, match="has no chat template") as error:
        DescriberSpec(Weights(str(tmp_path))).load("cpu")
    assert str(tmp_path) in str(error.value)


def test_folders_that_are_no_describer(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder and no hub id"):
        DescriberSpec(Weights(str(tmp_path / "missing"))).load("cpu")
    shutil.copytree(llava, tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="cannot be loaded as a describer"):
        DescriberSpec(Weights(str(tmp_path / "text"))).load("cpu")
    shutil.copytree(llava, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded as a describer"):
        DescriberSpec(Weights(str(tmp_path / "cut"))).load("cpu")


def test_a_model_is_loaded_ready_to_be_asked_and_without_the_librarys_bar(capfd):
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    weights = get_family("pocket").weights("mllm")
    model, processor = load_mllm(weights, device="cpu")
    assert (model.device.type, str(model.dtype), model.training) == ("cpu", "torch.float32", False)
    assert processor.chat_template and processor.tokenizer.padding_side == "left"
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled(), "the caller's own are as before"
    AutoModelForImageTextToText.from_pretrained(weights.local_folder())
    assert "Loading weights" in capfd.readouterr().err


def test_a_model_in_no_number_format_is_not_loaded():
    with pytest.raises(UserError, match="float8"):
        load_mllm(get_family("pocket").weights("mllm"), dtype="float8")


def test_both_bundled_mllms_load_in_a_process_that_has_loaded_nothing() -> None:
    code = (
        "from hb_tta.describe import load_mllm\n"
        "from hb_tta.families import get_family\n"
        "for role in ('mllm', 'mllm_two'):\n"
        "    model, _ = load_mllm(get_family('pocket').weights(role), device='cpu')\n"
        "    print(type(model).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["LlavaForConditionalGeneration", "Idefics2PatchesForConditionalGeneration"]
    assert done.stdout.split() == names
