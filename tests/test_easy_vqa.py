"""easy-VQA's questions in the pocket world's wording, and the experiment on a made-up copy."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw

from hb_tta.errors import UserError
from hb_tta.experiments import easy_vqa

PAIRS = [
    ("what is the color of the circle?", "red"),
    ("is there not a red shape?", "no"),
    ("is there a blue shape in the image?", "no"),
    ("is a triangle present?", "no"),
    ("what shape is in the image?", "circle"),
]


def test_questions_are_said_in_the_worlds_words() -> None:
    assert easy_vqa._told_of(PAIRS) == {
        "colour": ("Is the circle blue?", "No"),
        "shape": ("Is there a triangle in this image?", "No"),
    }


@pytest.mark.parametrize(
    "pairs",
    [
        [("is there a circle?", "yes")],  # no shape is named
        [("what is the color of the rectangle?", "red"), ("is there a circle?", "no")],
        [("what is the color of the circle?", "teal"), ("is there a circle?", "yes")],
        [("what is the color of the circle?", "red"), ("does it not contain a circle?", "no")],
    ],
)
def test_what_the_world_has_no_words_for_is_left_out(pairs: list[tuple[str, str]]) -> None:
    assert easy_vqa._told_of(pairs) == {}


def test_without_the_package_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(UserError, match="pip install easy-vqa"):
        easy_vqa.chosen(1)


def test_plain_and_copies_of_the_picture_on_two_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.new("RGB", (64, 64), (240, 250, 240))
    ImageDraw.Draw(picture).ellipse((20, 20, 44, 44), fill="red")
    picture.save(tmp_path / "0.png")
    package = ModuleType("easy_vqa")
    texts, answers = zip(*PAIRS, strict=True)
    for split in ("test", "train"):
        given = (texts, answers, (0,) * len(texts))
        setattr(package, f"get_{split}_questions", lambda given=given: given)
        setattr(package, f"get_{split}_image_paths", lambda: {0: str(tmp_path / "0.png")})
    monkeypatch.setitem(sys.modules, "easy_vqa", package)
    few = {name: easy_vqa.ROWS[name] for name in (easy_vqa.PLAIN, "jitter")}
    monkeypatch.setattr(easy_vqa, "ROWS", few)
    easy_vqa.main(["--out", str(tmp_path / "out"), "--images", "2", "--views", "1"])
    told = capsys.readouterr().out
    assert "4 questions of 2 images." in told and "| jitter |" in told
    assert (tmp_path / "out" / "easy_vqa.jitter.json").exists()
