"""Fitting descriptions into the text encoders' window."""

import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdxl_folders import PIPELINE, save_sdxl_base
from transformers import CLIPTokenizer

from hb_tta.errors import UserError
from hb_tta.generators import fit_description, load_tokenizers
from hb_tta.generators.description import count_tokens
from hb_tta.weights import Weights

WINDOW = 77


@cache
def tokenizers() -> list[CLIPTokenizer]:
    return load_tokenizers(Weights(str(PIPELINE)))


def test_what_fits_is_left_as_it_is():
    for text in ("", "  a cat,  on a mat ", "Two dogs. One cat."):
        assert fit_description(tokenizers(), text) == (text, False)


def test_whole_sentences_are_kept_first():
    text = "A red dog! Is it left of the bench? It is. " + "The sky is very blue " * 20 + "."
    assert fit_description(tokenizers(), text) == (
        "A red dog! Is it left of the bench? It is.",
        True,
    )


def test_a_point_inside_a_number_or_name_ends_no_sentence():
    text = "About 3.5 dogs sit here. " + "And a cat " * 40
    assert fit_description(tokenizers(), text)[0] == "About 3.5 dogs sit here."


def test_else_whole_words():
    text = "word " * 200
    shortened, was_shortened = fit_description(tokenizers(), text)
    assert was_shortened and set(shortened.split()) == {"word"}
    assert count_tokens(tokenizers(), shortened + " word") > WINDOW


def test_else_whole_characters():
    shortened, was_shortened = fit_description(tokenizers(), "红" * 100)
    assert was_shortened and 0 < len(shortened) < 100 and set(shortened) == {"红"}


def test_full_width_sentences_need_no_blanks():
    assert fit_description(tokenizers(), "红狗。" + "蓝" * 100) == ("红狗。", True)


def test_the_smaller_window_counts():
    narrow = CLIPTokenizer.from_pretrained(PIPELINE / "tokenizer", model_max_length=10)
    wide = tokenizers()[1]
    for order in ([narrow, wide], [wide, narrow]):
        shortened, was_shortened = fit_description(order, "a cat. a dog. a red circle.")
        assert was_shortened
        assert len(narrow(shortened).input_ids) <= 10


def test_a_hundred_kilobytes_take_no_time():
    for text in ("a b. " * 20_000, "word " * 20_000, "x" * 100_000, "a" + " " * 100_000):
        shortened, was_shortened = fit_description(tokenizers(), text)
        assert count_tokens(tokenizers(), shortened) <= WINDOW
        assert text.startswith(shortened)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_the_result_fits_and_is_a_beginning(text: str):
    shortened, was_shortened = fit_description(tokenizers(), text)
    assert count_tokens(tokenizers(), shortened) <= WINDOW
    assert text.startswith(shortened)
    assert was_shortened or shortened == text
    assert was_shortened == (count_tokens(tokenizers(), text) > WINDOW)


def test_tokenizers_of_sdxls_own_layout(tmp_path: Path):
    slow = load_tokenizers(Weights(str(save_sdxl_base(tmp_path / "base"))))
    assert [tokenizer.model_max_length for tokenizer in slow] == [WINDOW, WINDOW]
    text = "two red dogs, left of a blue bench"
    assert slow[0](text).input_ids == tokenizers()[0](text).input_ids


def test_a_folder_without_tokenizers_is_named(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        UserError, match="empty' cannot be loaded as a diffusers pipeline: it has no"
    ):
        load_tokenizers(Weights(str(empty)))
    shutil.copy(PIPELINE / "model_index.json", empty)
    with pytest.raises(UserError, match="empty' lacks the vocabulary of a tokenizer"):
        load_tokenizers(Weights(str(empty)))
