"""Processors and tokenizers that are not as usual: the stock model's scores, or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_rewards import TEXTS, save_evaluator, save_pickscore, some_pixels, stock
from tiny_models import save_llava, save_llava_next
from tokenizers import Tokenizer
from transformers import AutoProcessor

from hb_tta.describe import DescriberSpec
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.rewards import MultimodalContextEvaluator
from hb_tta.rewards.pickscore import PickScore
from hb_tta.tta.answer import answer
from hb_tta.weights import Weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return save_evaluator(tmp_path_factory.mktemp("whole"))


def edited(whole: Path, folder: Path, name: str, change: Callable[[dict], object]) -> Path:
    """A copy of which one JSON file is changed."""
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def load(folder: Path) -> MultimodalContextEvaluator:
    return MultimodalContextEvaluator.from_pretrained(Weights(str(folder)))


def scores(evaluator: MultimodalContextEvaluator) -> torch.Tensor:
    with torch.no_grad():
        given = evaluator(some_pixels(), evaluator.targets([], TEXTS))
    return torch.stack([given["global"], given["fine_grained"]])


# ── The same scores ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"padding_side": "left"},
        {"truncation_side": "left"},
        {"pad_token": None},
        {"model_input_names": ["input_ids"]},
        {"model_max_length": 4},
    ],
)
def test_tokenizers_that_pad_otherwise_give_the_same_scores(whole, changes, tmp_path):
    folder = edited(whole, tmp_path, "tokenizer_config.json", lambda found: found.update(changes))
    ours = load(folder)
    torch.testing.assert_close(scores(ours), scores(load(whole)), rtol=0, atol=1e-5)
    with torch.no_grad():
        theirs = torch.stack(stock(ours, some_pixels(), TEXTS))
    torch.testing.assert_close(scores(ours), theirs, rtol=0, atol=1e-5)


def test_a_processor_that_does_not_normalise_gives_the_stock_scores(whole, tmp_path):
    folder = edited(
        whole, tmp_path, "processor_config.json",
        lambda found: found["image_processor"].update(do_normalize=False),
    )  # fmt: skip
    evaluator = load(folder)
    pixels = (some_pixels() * 255).round() / 255
    pictures = [
        Image.fromarray((row * 255).round().byte().permute(1, 2, 0).numpy()) for row in pixels
    ]
    processor = AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        ours = evaluator(pixels, evaluator.targets([], TEXTS))["global"]
        for row, (picture, text) in enumerate(zip(pictures, TEXTS, strict=True)):
            values = processor.image_processor(picture, return_tensors="pt").pixel_values
            ids = evaluator.tokenizer(text, return_tensors="pt")
            theirs = evaluator.model(
                pixel_values=values, input_ids=ids.input_ids, attention_mask=ids.attention_mask
            ).logits_per_image
            torch.testing.assert_close(ours[row], theirs[0, 0], rtol=0, atol=1e-4)
    assert (ours - scores(load(whole))[0]).abs().max() > 1e-4  # the mean of the whole one counts


# ── Refused ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"do_rescale": False}, "do_rescale=False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor=0.0078"),
        ({"do_resize": False}, "do_resize=False"),
        ({"resample": 2}, "resample=2"),
        ({"size": {"height": 48, "width": 32}}, "size="),
        ({"size": {"height": 64, "width": 64}}, "size=64"),
        ({"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}, "crop_size=16"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "three numbers"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "three numbers"),
    ],
)
def test_processors_of_other_pixels_are_refused(whole, changes, told, tmp_path):
    folder = edited(
        whole, tmp_path, "processor_config.json",
        lambda found: found["image_processor"].update(changes),
    )  # fmt: skip
    with pytest.raises(UserError, match=told):
        load(folder)


def without_edges(found: dict[str, Any]) -> None:
    found["post_processor"] = None


def with_an_end_alone(found: dict[str, Any]) -> None:
    found["post_processor"]["single"] = found["post_processor"]["single"][1:]


@pytest.mark.parametrize("change", [without_edges, with_an_end_alone])
def test_a_tokenizer_without_its_first_token_is_refused(whole, change, tmp_path):
    folder = edited(whole, tmp_path, "tokenizer.json", change)
    with pytest.raises(UserError, match="does not put cls_token before a text"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(whole, tmp_path):
    bundled = Path(get_family("pocket").weights("evaluator").local_folder())
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled / name, tmp_path / name)
    with pytest.raises(UserError, match="has 154 words, the model 397"):
        load(tmp_path)


def test_an_uncased_vocabulary_that_is_asked_in_capitals_is_refused(tmp_path):
    bundled = Path(get_family("pocket").weights("evaluator").local_folder())
    shutil.copytree(bundled, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    assert content["normalizer"]["lowercase"] is True
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_lower_case": False}))
    assert Tokenizer.from_file(str(path)).encode("Red").tokens != ["[CLS]", "red", "[SEP]"]
    with pytest.raises(UserError, match="and not '[A-Z]+' .do_lower_case"):
        load(tmp_path)
    load(bundled)


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_folder_without_one_of_them_is_told(whole, name, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(UserError):
        load(tmp_path)


def test_a_q_former_that_reads_no_text_is_refused(whole, tmp_path):
    folder = edited(
        whole, tmp_path, "config.json",
        lambda found: found["qformer_config"].update(use_qformer_text_input=False),
    )  # fmt: skip
    with pytest.raises(UserError, match="use_qformer_text_input"):
        load(folder)


def test_pickscores_folder_is_checked_too(tmp_path):
    folder = save_pickscore(tmp_path / "whole")
    PickScore.from_pretrained(Weights(str(folder)))
    cut = edited(folder, tmp_path / "cut", "tokenizer.json", without_edges)
    with pytest.raises(UserError, match="does not put bos_token before a text"):
        PickScore.from_pretrained(Weights(str(cut)))
    other = edited(
        folder, tmp_path / "other", "processor_config.json",
        lambda found: found["image_processor"].update(resample=0),
    )  # fmt: skip
    with pytest.raises(UserError, match="resample=0"):
        PickScore.from_pretrained(Weights(str(other)))


# ── LLaVA's older folders ────────────────────────────────────────────────────────────────────────

GONE = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")


@pytest.mark.parametrize("save", [save_llava, save_llava_next])
def test_an_older_llava_folder_describes_and_answers_as_a_newer_one(save, tmp_path):
    newer = save(tmp_path / "newer")
    older = edited(
        newer, tmp_path / "older", "processor_config.json",
        lambda found: [found.pop(name, None) for name in GONE],
    )  # fmt: skip
    picture = Image.new("RGB", (48, 32), (200, 30, 30))
    said, answers = [], []
    for folder in (newer, older):
        describer = DescriberSpec(Weights(str(folder)), max_new_tokens=6).load("cpu")
        said.append(describer.describe_with([picture], ["What is it?"]))
        processor = AutoProcessor.from_pretrained(folder)
        answers.append(answer(describer.model, processor, picture, "What?", max_new_tokens=4).text)
    assert said[0] == said[1] and answers[0] == answers[1]


def test_what_a_folder_says_itself_stays(tmp_path):
    folder = save_llava(tmp_path)
    describer = DescriberSpec(Weights(str(folder)), max_new_tokens=2).load("cpu")
    assert describer.processor.patch_size == 8
    assert describer.processor.num_additional_image_tokens == 1
