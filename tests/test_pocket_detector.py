"""The pocket detector: the bundled one at work, and what its training is told."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import OwlViTForObjectDetection

from hb_tta.cli import main
from hb_tta.detect import Detector, Filters, boxes_in
from hb_tta.detect.boxes import overlap
from hb_tta.families import get_family
from hb_tta.pocket.boxes import corners, word_boxes
from hb_tta.pocket.captions import caption
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.world import Group, Scene, Thing, render, sample_scenes
from hb_tta.pocket.worn import CROP, TRAINED, crop_box, wear
from hb_tta.training.pocket_family import detector as stage
from hb_tta.training.pocket_family import detector_figures as figures
from hb_tta.training.pocket_family import detector_pictures as pictures
from hb_tta.training.pocket_family.phrases import (
    draw_asked,
    draw_for_scene,
    named_by,
    phrase_of_nothing,
)
from hb_tta.training.pocket_family.run import DEV_SEED, Scenes

WHOLE = (0.0, 0.0, 64.0, 64.0)
SQUARES = Scene(
    "grass",
    (Group("square", "red", 2, "striped"), Group("circle", "blue", 1, "hollow")),
    "left of",
    (Thing(0, 14, 16, 9), Thing(0, 16, 46, 9), Thing(1, 48, 34, 9)),
)


@pytest.fixture(scope="module")
def bundled() -> Detector:
    return Detector.from_pretrained(get_family("pocket").weights("detector"), device="cpu")


# ── The bundled one ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", ["ordinary", "held out", "worn"])
def test_it_finds_what_is_there_and_nothing_else(bundled: Detector, part: str) -> None:
    scenes = Scenes(DEV_SEED, 80, held_out=part == "held out")
    rates = figures.found_rate(bundled, scenes, worn=part == "worn")
    assert rates["found"] >= 0.93 and rates["of_nothing"] <= 0.05
    assert rates["all"] >= 0.85


@pytest.mark.parametrize(
    ("phrase", "group"),
    [
        ("red squares", 0),
        ("square", 0),
        ("two striped red squares", 0),
        ("striped squares", 0),
        ("Red Shapes", 0),
        ("a blue circle", 1),
        ("hollow circles", 1),
        ("one hollow blue circle", 1),
    ],
)
def test_all_things_of_a_phrase_are_found(bundled: Detector, phrase: str, group: int) -> None:
    (found,) = bundled.find([render(SQUARES)], [[phrase]])
    real = [corners(thing) for thing in SQUARES.things if thing.group == group]
    assert len(found) >= len(real)  # a thing between two patches may have a box of each
    assert all(max(overlap(one.box, box) for one in found) > 0.6 for box in real)
    assert all(max(overlap(one.box, box) for box in real) > 0.6 for one in found)


@pytest.mark.parametrize(
    "phrase",
    [
        *("blue squares", "hollow red squares", "plain square", "white shapes", "cross"),
        *("triangles", "red circle", "grass", "sea", "dog", "red dog", "head", "old man's hat"),
        "skateboarder beneath extraordinary umbrellas",
    ],
)
def test_what_is_not_there_is_found_nowhere(bundled: Detector, phrase: str) -> None:
    assert bundled.find([render(SQUARES)], [[phrase]]) == [[]]


def test_pictures_of_any_size_have_boxes_in_their_own_pixels(bundled: Detector) -> None:
    large = render(SQUARES).resize((320, 128), Image.Resampling.NEAREST)
    (found,) = bundled.find([large], [["blue circle"]])
    x0, y0, x1, y1 = corners(SQUARES.things[2])
    assert overlap(found[0].box, (5 * x0, 2 * y0, 5 * x1, 2 * y1)) > 0.6


def test_the_words_of_captions_have_boxes(bundled: Detector) -> None:
    scenes = list(islice(sample_scenes(DEV_SEED, edition=THIRD), 60))
    texts = [caption(scene) for scene in scenes]
    rng = np.random.default_rng(0)
    named, right, wrong = 0, 0, 0
    found = boxes_in(bundled, list(map(render, scenes)), texts, Filters(least_area=36))
    for scene, text, boxes in zip(scenes, texts, found, strict=True):
        real = {box.word: box for box in word_boxes(scene, text, rng)}
        named += len(real)
        wrong += sum(box.word not in real for box in boxes)
        for box in boxes:
            things = [
                corners(thing)
                for thing in scene.things
                if scene.groups[thing.group].shape in box.word
            ]
            right += any(overlap(box.box, other) > 0.5 for other in things)
    assert right / named >= 0.93 and wrong <= 1


def test_bootstrap_finds_with_the_familys_own(tmp_path: Path, capsys) -> None:
    render(SQUARES).save(tmp_path / "squares.png")
    row = {"image": "squares.png", "caption": caption(SQUARES)}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    command = ["bootstrap", str(tmp_path / "rows.jsonl"), "--family", "pocket"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    (line,) = map(json.loads, (tmp_path / "out" / "boxes.jsonl").read_text().splitlines())
    assert [box["word"] for box in line["boxes"]] == ["red squares", "blue circle"]


def test_it_is_small_and_names_no_place() -> None:
    folder = Path(get_family("pocket").weights("detector").local_folder())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1.4e6
    weights = load_file(folder / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    for path in folder.glob("*.json"):
        assert "_name_or_path" not in path.read_text()


# ── What its training is told ───────────────────────────────────────────────────────────────────


def test_of_every_scene_each_thing_has_a_patch_of_its_own() -> None:
    inside = 0
    for scene in islice(sample_scenes(5, held_out=None, edition=THIRD), 300):
        boxes = pictures.boxes_within(scene, WHOLE)
        patches = pictures.patches_of(boxes)
        assert len(set(patches.tolist())) == len(scene.things)
        inside += scene.relation == "inside"
        for thing, patch in zip(scene.things, patches, strict=True):
            far = max(abs(thing.x - 8 * (patch % 8) - 4), abs(thing.y - 8 * (patch // 8) - 4))
            assert far <= (4 if scene.relation != "inside" else 16)
    assert inside > 5


def test_boxes_go_where_a_crop_moves_the_things() -> None:
    picture = np.asarray(render(SQUARES))
    whole = crop_box(64, 64, TRAINED[-1], np.random.default_rng(3))
    worn = wear(picture, "crop", TRAINED[-1], np.random.default_rng(3))
    expected = Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC, box=whole)
    assert np.array_equal(worn, np.asarray(expected))
    scale = 64 / (whole[2] - whole[0]), 64 / (whole[3] - whole[1])
    assert min(scale) > 1 / (1 - 0.5 * CROP[TRAINED[-1]])
    middle = replace(SQUARES, things=(Thing(1, 30, 34, 9),))  # which no edge cuts
    ((x, y, *_),) = pictures.boxes_within(middle, whole)
    assert 64 * x == pytest.approx((30 - whole[0]) * scale[0], abs=1e-3)
    assert 64 * y == pytest.approx((34 - whole[1]) * scale[1], abs=1e-3)
    gone = pictures.boxes_within(SQUARES, (20.0, 0.0, 64.0, 64.0))
    assert (gone[:2] == 0).all() and (gone[2] > 0).all()


def test_phrases_name_what_they_say() -> None:
    scenes = list(islice(sample_scenes(5, edition=THIRD), 20))
    rng = np.random.default_rng(0)
    asked = draw_asked(scenes, 200, rng)
    named = named_by(asked, scenes)
    assert named.shape == (20, 4, 200) and named.any((0, 1)).mean() > 0.4
    for row, scene in enumerate(scenes):
        assert not named[row, len(scene.things) :].any()
        for place, thing in enumerate(scene.things):
            group = scene.groups[thing.group]
            for number, one in enumerate(asked):
                words = one.text.split()
                assert named[row, place, number] == one.names(group)
                if named[row, place, number]:
                    assert group.shape in words[-1] or "shape" in words[-1]
                    assert not ({"red", "blue", "yellow", "white", "black"} & {*words}) - {
                        group.colour
                    }
                    assert not {"plain", "striped", "hollow"} & {*words} - {group.filling}
    assert not any(phrase_of_nothing(rng).names(SQUARES.groups[0]) for _ in range(50))
    for scene in scenes:
        drawn = draw_for_scene(scene, rng)
        naming = [sum(one.names(group) for group in scene.groups) for one in drawn]
        assert sorted(naming, reverse=True)[: len(scene.groups)] == [1] * len(scene.groups)
        assert set(naming) == {0, 1}


def test_what_the_loss_is_of() -> None:
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    assert stage.generalised_overlap(box, box).item() == pytest.approx(1)
    apart = torch.tensor([[0.1, 0.5, 0.2, 0.2]])
    assert stage.generalised_overlap(box, apart).item() == pytest.approx(-1 / 3, abs=1e-5)
    sure, unsure = torch.tensor([4.0]), torch.tensor([0.0])
    there = torch.ones(1)
    assert stage.focal_loss(sure, there) < 1e-3 * stage.focal_loss(unsure, there)
    looks = pictures.looks_of(pictures.boxes_within(SQUARES, WHOLE)[None], [SQUARES])
    assert looks["shape"].shape == (1, 64)
    assert looks["shape"][0, 4 * 8 + 6] == 1 and looks["filling"][0, 4 * 8 + 6] == 3
    assert (looks["colour"] > 0).float().mean() < 0.5


def test_all_phrases_of_a_batch_are_asked_of_all_pictures_as_the_library_asks() -> None:
    torch.manual_seed(0)
    processor = stage.make_processor()
    model = stage.build_model(processor.tokenizer).eval()
    for head in (model.class_head.logit_scale, model.box_head.dense2):
        torch.nn.init.normal_(head.weight, std=0.1)
    scenes = Scenes(5, 2, edition=THIRD)
    texts = ["red squares", "three crosses", "dog"]
    with torch.no_grad():
        logits, boxes, _ = stage.look(model, processor.tokenizer, scenes.pixels(slice(0, 2)), texts)
        pictures = [Image.fromarray(picture) for picture in scenes.pictures]
        inputs = processor(text=[texts, texts], images=pictures, return_tensors="pt")
        theirs = model(**inputs)
    assert logits.shape == (2, 64, 3) and boxes.shape == (2, 64, 4)
    torch.testing.assert_close(logits, theirs.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, theirs.pred_boxes, atol=1e-5, rtol=1e-4)
    assert isinstance(model, OwlViTForObjectDetection)


def test_a_batch_has_worn_pictures_and_a_gradient_for_every_weight_that_is_used() -> None:
    torch.manual_seed(0)
    tokenizer = stage.make_tokenizer()
    model = stage.build_model(tokenizer).train()
    heads = stage.Heads(stage.WIDTH, pictures.LOOKS)
    scenes = Scenes(5, 40, edition=THIRD)
    rows = np.arange(32)
    batch = pictures.make_batch(scenes, rows, np.random.default_rng(0))
    changed = (batch.pixels_BCHW - scenes.pixels(rows)).abs().amax((1, 2, 3)) > 0.1
    assert 2 <= changed.sum() <= 16
    stage.batch_loss(model, heads, tokenizer, batch).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert set(without) == {"owlvit.logit_scale", "owlvit.visual_projection.weight"}
