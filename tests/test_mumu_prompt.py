"""Prompts of words and pictures: how they are written, read, cropped and cut out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_mumu import picture

from hb_tta.context import DescribedContext, SeenWord
from hb_tta.errors import UserError
from hb_tta.generators.mumu.generator import prompt_of
from hb_tta.generators.mumu.pictures import cut_out, load_cut_out, squared
from hb_tta.generators.mumu.prompt import Prompt, crop, parse, with_crops
from hb_tta.images import pixel_digest

MAN, DOG = picture(0), picture(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    MAN.save(tmp_path / "man.png")
    DOG.save(tmp_path / "my dog.png")
    return tmp_path


def kinds(prompt: Prompt) -> list[str]:
    """Texts, and digests of images."""
    return [part if isinstance(part, str) else pixel_digest(part) for part in prompt.parts]


# ── Written ──────────────────────────────────────────────────────────────────────────────────────


def test_a_text_with_files_is_the_list_of_its_parts(folder):
    typed = parse("a <img:man.png> man and his <img:my dog.png> dog", folder)
    listed = Prompt.of(["a", MAN, " man and his ", folder / "my dog.png", "dog"])
    assert kinds(typed) == kinds(listed)
    assert typed.to_json() == listed.to_json()
    assert typed.written("<image>") == "a <image> man and his <image> dog"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<img:man.png>", "#"),
        ("<img:man.png> man", "# man"),
        ("a man like <img:man.png>", "a man like #"),
        ("<img:man.png><img:man.png> two", "# # two"),
        (r"the words \<img:man.png>", "the words <img:man.png>"),
        (r"a < b and \< c", "a < b and < c"),
        ("no picture at all", "no picture at all"),
        (" <img: man.png >  man ", "# man"),
        ("<img:man.png>, riding", "# , riding"),
    ],
)
def test_images_at_the_ends_beside_each_other_and_literal_marks(folder, text, written):
    assert parse(text, folder).written("#") == written


def test_texts_that_follow_each_other_are_one():
    assert Prompt.of(["a man", "and", "", "a dog"]).parts == ("a man and a dog",)


def test_pictures_are_called_by_names(folder):
    named = {"him": "man.png", "it": DOG}
    prompt = parse("a <img:him> man, <img:it> dog, again <img:him>", folder, named)
    assert kinds(prompt)[1::2] == [pixel_digest(MAN), pixel_digest(DOG), pixel_digest(MAN)]


MISTAKES = [
    ("a <img:cat.png> cat", {}, r"<img:cat.png>: there is no image .*cat.png"),
    ("a <img:man.png man", {}, "names no image: write <img:FILE>"),
    ("a <img:> man", {}, "names no image"),
    ("a man", {"him": "man.png"}, "does not use the image 'him'"),
    ("<img:man.png>" * 5, {}, "has 5 images: give at most 4"),
    ("", {}, "the prompt is empty"),
    ("  ", {}, "the prompt is empty"),
    ("a \ud800 man", {}, "no Unicode text"),
]


@pytest.mark.parametrize(("text", "named", "sentence"), MISTAKES)
def test_a_sentence_for_each_mistake(folder, text, named, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text, folder, named)


@pytest.mark.parametrize("given", [3, None, {"a": 1}, np.zeros((4, 4, 3), np.uint8)])
def test_what_is_no_prompt(given):
    with pytest.raises(UserError, match="a prompt is a list of strings and images"):
        Prompt.of(given)


def test_what_is_no_part_of_a_prompt():
    with pytest.raises(UserError, match="an image is a path"):
        Prompt.of(["a", 3])


def test_the_key_knows_pixels_words_and_order(folder):
    keys = [
        Prompt.of(given).to_json()
        for given in (
            ["a", MAN, "man"], ["a", DOG, "man"], ["a", "man", MAN], ["A", MAN, "man"],
            ["a", MAN, MAN, "man"],
        )
    ]  # fmt: skip
    assert all(keys.count(key) == 1 for key in keys)
    assert Prompt.of(["a", folder / "man.png", "man"]).to_json() == keys[0]


# ── Crops ────────────────────────────────────────────────────────────────────────────────────────


def seen(text: str, word: str, box: tuple[float, float, float, float]) -> SeenWord:
    start = text.index(word)
    return SeenWord(word, start, start + len(word), box, 0.9)


def test_crops_go_before_their_words_in_the_texts_order():
    text = "a red circle and a dog."
    boxes = [seen(text, "dog", (8, 8, 16, 16)), seen(text, "red circle", (0, 0, 8, 8))]
    prompt = with_crops(text, MAN, boxes)
    assert prompt.written("#") == "a # red circle and a # dog."
    assert kinds(prompt)[1] == pixel_digest(MAN.crop((0, 0, 8, 8)))
    assert kinds(prompt)[3] == pixel_digest(MAN.crop((8, 8, 16, 16)))


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((1.6, 2.2, 9.1, 10.0), (9, 8)),
        ((-3, -3, 100, 100), (40, 24)),
        ((5, 5, 5, 5), (1, 1)),
        ((39.9, 23.9, 60, 60), (1, 1)),
    ],
)
def test_a_crop_has_a_pixel_at_least_and_stays_inside(box, size):
    assert crop(MAN, box).size == size


def test_a_context_without_boxes_is_words_alone_and_without_words_the_image():
    context = DescribedContext(MAN, "a dog", boxes=())
    assert prompt_of(context).parts == ("a dog",)
    assert kinds(prompt_of(context._replace(description=""))) == [pixel_digest(MAN)]
    with pytest.raises(UserError, match="context 7 has no boxes"):
        prompt_of(context._replace(boxes=None), 7)


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (32, 32), (1, 64)])
def test_pictures_are_squared_with_black_and_never_squashed(size):
    image = Image.new("RGB", size, "white")
    square = np.asarray(squared(image))
    assert square.shape == (max(size), max(size), 3)
    assert (square == 255).all(-1).sum() == size[0] * size[1]
    assert set(np.unique(square)) <= {0, 255}


def test_cut_out_by_transparency_or_by_a_mask_beside(tmp_path):
    mask = Image.new("L", MAN.size)
    mask.paste(255, (8, 4, 24, 20))
    clear = MAN.copy()
    clear.putalpha(mask)
    clear.save(tmp_path / "clear.png")
    MAN.save(tmp_path / "man.png")
    mask.save(tmp_path / "man.mask.png")
    cut = cut_out(MAN, mask)
    assert cut.size == (16, 16)
    assert pixel_digest(cut) == pixel_digest(MAN.crop((8, 4, 24, 20)))
    assert pixel_digest(load_cut_out(tmp_path / "clear.png")) == pixel_digest(cut)
    assert pixel_digest(load_cut_out(tmp_path / "man.png")) == pixel_digest(cut)


def test_the_surroundings_are_black():
    mask = Image.new("L", MAN.size)
    mask.paste(255, (0, 0, 8, 24))
    mask.paste(255, (32, 0, 40, 24))
    cut = np.asarray(cut_out(MAN, mask))
    assert cut.shape[:2] == (24, 40) and not cut[:, 8:32].any() and cut[:, :8].any()


def test_masks_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match="give one of the same size"):
        cut_out(MAN, Image.new("L", (8, 8), 255))
    with pytest.raises(UserError, match="covers nothing"):
        cut_out(MAN, Image.new("L", MAN.size))
    MAN.save(tmp_path / "man.png")
    with pytest.raises(UserError, match="no transparency, and there is no mask 'man.mask.png'"):
        load_cut_out(tmp_path / "man.png")
    with pytest.raises(UserError, match="there is no image"):
        load_cut_out(tmp_path / "nobody.png")
