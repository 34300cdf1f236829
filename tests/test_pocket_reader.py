"""Readings, the strict reader, and the trained reader's network."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hb_tta.errors import UserError
from hb_tta.pocket.captions import Mention
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.reader import FILLING_HEADS, HEADS, Reader
from hb_tta.pocket.reading import (
    Place,
    Reading,
    answer,
    judge,
    matches,
    places_of,
    reading_of,
    relations_between,
)
from hb_tta.pocket.world import (
    BACKGROUNDS,
    CONTACTS,
    RELATIONS,
    Group,
    is_held_out,
    render_batch,
    sample_scenes,
)
from hb_tta.training.pocket_family.evaluate import read_rightly
from hb_tta.training.pocket_family.optimize import Draws
from hb_tta.training.pocket_family.reader import (
    UNSURE,
    draw_scenes,
    reading_labels,
    reading_loss,
    roughen,
    train_reader,
)
from hb_tta.training.pocket_family.run import RecipeRun, from_pixels, to_pixels
from hb_tta.training.pocket_family.strict_reader import read_strictly

SCENES = list(islice(sample_scenes(4711), 120))
CROSS, SQUARE = Group("cross", "red", 1), Group("square", "blue", 2)
SEEN = Reading(
    "sea", (CROSS, SQUARE), frozenset({(0, "left of", 1), (1, "right of", 0)}), confidence=0.9
)


# ── Readings ────────────────────────────────────────────────────────────────────────────────────


def test_a_perfect_reading_satisfies_every_judge() -> None:
    for scene in SCENES:
        reading = reading_of(scene)
        assert matches(reading, scene)
        assert ("position" in judge(reading, scene)) == (scene.relation is not None)


_UNBOUND = {"count", "position", "bound"}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"background": "sand"}, {"scene"}),
        ({"groups": (CROSS, Group("square", "white", 2))}, {"colour", *_UNBOUND}),
        ({"groups": (CROSS, Group("circle", "blue", 2))}, {"existence", *_UNBOUND}),
        ({"groups": (CROSS, Group("square", "blue", 3))}, {"count"}),
        ({"relations": frozenset({(0, "above", 1)})}, {"position"}),
        ({"groups": (Group("cross", "blue", 1), Group("square", "red", 2))}, _UNBOUND),
    ],
)
def test_a_judge_says_what_is_wrong(change: dict, wrong: set[str]) -> None:
    scene = replace(SCENES[0], background="sea", groups=(CROSS, SQUARE), relation="left of")
    assert matches(SEEN, scene)
    verdict = judge(replace(SEEN, **change), scene)
    assert {name for name, right in verdict.items() if not right} == wrong


def test_what_a_caption_leaves_open_is_not_judged() -> None:
    scene = next(scene for scene in SCENES if scene.relation)
    nothing = Reading("sea", ())
    assert judge(nothing, scene, Mention(groups=(), background=False)) == {}
    assert set(judge(nothing, scene, Mention(colour=False, background=False))) == {
        "existence",
        "count",
        "position",
    }
    one = judge(reading_of(scene), scene, Mention(groups=(1,), shape=False))
    assert one == {"scene": True, "colour": True, "count": True}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is there a cross in this image?", True),
        ("Is there a circle in this image? Please answer yes or no.", False),
        ("Are there two squares in this image?", True),
        ("Is there one square in this image?", False),
        ("Are there three circles in this image?", False),
        ("Is the cross red?", True),
        ("Are the squares white?", False),
        ("Are the circles white?", None),
        ("Is this image on sea?", True),
        ("Is this image on dusk?", False),
        ("Is the cross left of the squares?", True),
        ("Are the squares right of the cross?", True),
        ("Are the squares left of the cross?", False),
        ("Is the circle above the squares?", None),
        ("How many crosses are there?", None),
        ("", None),
    ],
)
def test_questions_are_answered_from_a_reading(question: str, expected: bool | None) -> None:
    assert answer(SEEN, question) is expected


def test_relations_are_told_by_geometry() -> None:
    here, right = Place(20, 30, 9), Place(44, 30, 9)
    assert relations_between([here], [right]) == {"left of"}
    assert relations_between([here], [right, Place(22, 50, 9)]) == set()
    assert relations_between([here], [Place(34, 30, 9)]) == {"left of", "touching"}
    assert relations_between([Place(30, 31, 6)], [Place(31, 30, 20)]) == {"inside"}
    assert relations_between([Place(31, 30, 20)], [Place(30, 31, 6)]) == set()
    assert relations_between([Place(14, 14, 9)], [Place(50, 50, 9)]) == {
        "left of",
        "above",
        "apart from",
    }
    assert relations_between([], [here]) == set()


def test_slack_widens_and_narrows_the_margins() -> None:
    for scene in SCENES:
        if scene.relation:
            first, second = places_of(scene)
            narrow, as_is, wide = (
                relations_between(first, second, slack=slack) for slack in (-1.0, 0.0, 1.0)
            )
            assert scene.relation in narrow
            assert narrow - {"touching"} <= as_is <= wide | {"touching"}


def test_a_contact_is_told_before_a_direction() -> None:
    scene = next(scene for scene in SCENES if scene.relation == "apart from")
    assert reading_of(scene).relation == "apart from"
    assert str(SEEN) == "1 red cross, 2 blue square | left of | sea"


# ── The strict reader ───────────────────────────────────────────────────────────────────────────


def test_the_strict_reader_is_right_on_rendered_scenes() -> None:
    figures = read_rightly(read_strictly(render_batch(SCENES)), SCENES)
    least = dict.fromkeys(figures, 0.97) | {"filling": 0.93, "relation": 0.94}
    assert all(values.mean() >= least[name] for name, values in figures.items())


def test_the_strict_reader_measures_places() -> None:
    for scene, reading in zip(SCENES, read_strictly(render_batch(SCENES[:30])), strict=False):
        if scene.relation in CONTACTS:
            continue
        measured = [place for group in reading.places for place in group]
        for place in (place for group in places_of(scene) for place in group):
            assert min(np.abs(np.subtract(place, m)).max() for m in measured) < 1.2, scene


def test_the_strict_reader_sees_through_noise_and_finds_nothing_in_nothing() -> None:
    rng = np.random.default_rng(0)
    scenes = SCENES[:30]
    noisy = render_batch(scenes) + rng.normal(0, 8, (30, 64, 64, 3))
    readings = read_strictly(noisy.clip(0, 255).astype(np.uint8))
    figures = read_rightly(readings, scenes)
    assert min(values.mean() for values in figures.values()) >= 0.9
    empty = np.full((1, 64, 64, 3), BACKGROUNDS["dusk"], np.uint8)
    assert read_strictly(empty)[0] == Reading("dusk", (), confidence=0.0)
    speckles = rng.integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    assert sum(group.count for group in read_strictly(speckles)[0].groups) <= 1


def test_a_blob_that_fits_no_shape_is_nothing() -> None:
    picture = np.full((1, 64, 64, 3), BACKGROUNDS["sand"], np.uint8)
    picture[0, 30:34, 4:60] = (33, 64, 221)  # a bar
    assert read_strictly(picture)[0].groups == ()


# ── The trained reader ──────────────────────────────────────────────────────────────────────────


def test_a_reader_is_kept_and_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = Reader(widths=(8, 16), hidden=32).eval()
    reader.half().save_pretrained(tmp_path)
    again = Reader.from_pretrained(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32} and not again.training
    pictures = render_batch(SCENES[:70])  # more than a batch
    assert again.read(pictures) == reader.float().read(pictures)
    images = [Image.fromarray(picture) for picture in pictures]
    assert again.read(images) == again.read(pictures)
    assert again.read([]) == []


def test_pictures_of_another_size_are_read_too() -> None:
    torch.manual_seed(0)
    reader = Reader(widths=(8, 16), hidden=32).eval()
    image = Image.fromarray(render_batch(SCENES[:1])[0])
    large = image.resize((128, 128), Image.Resampling.BICUBIC)
    assert reader.read([large])[0].background in BACKGROUNDS


@pytest.mark.parametrize("damage", ["missing", "config", "weights"])
def test_a_damaged_reader_is_one_clear_sentence(tmp_path: Path, damage: str) -> None:
    Reader(widths=(8, 16), hidden=32).save_pretrained(tmp_path / "reader")
    if damage == "config":
        (tmp_path / "reader" / "config.json").write_text('{"width": 3}')
    if damage == "weights":
        (tmp_path / "reader" / "model.safetensors").write_bytes(b"not safetensors")
    folder = tmp_path / ("nowhere" if damage == "missing" else "reader")
    with pytest.raises(UserError, match=folder.name):
        Reader.from_pretrained(folder)


def test_labels_tell_the_record_and_are_silent_where_margins_are_small() -> None:
    scenes = draw_scenes(np.random.default_rng(3), 300)
    labels = reading_labels(scenes)
    assert set(labels) == {*HEADS, *FILLING_HEADS}
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            assert labels[f"count_{group.shape}"][row] == group.count
            assert FILLINGS[labels[f"filling_{group.shape}"][row] - 1] == group.filling
        counts = sum(int(labels[name][row]) for name in HEADS if name.startswith("count"))
        assert counts == len(scene.things)
        if len(scene.groups) != 2:
            assert (labels["relation"][row] == UNSURE).all()
    related = [row for row, scene in enumerate(scenes) if scene.relation]
    assert (labels["relation"][related].amax(1) == 1).all()


def test_inside_is_told_from_the_agent_though_its_shape_comes_last() -> None:
    scene = next(scene for scene in SCENES if scene.relation == "inside")
    row = reading_labels([scene])["relation"][0]
    assert row[RELATIONS.index("inside")] == 1


def test_the_judge_learns_held_out_combinations_too_and_half_of_its_scenes_are_scattered() -> None:
    scenes = draw_scenes(np.random.default_rng(0), 400)
    assert np.mean([is_held_out(scene) for scene in scenes]) > 0.1
    assert any(len(scene.groups) == 3 for scene in scenes)
    assert np.mean([scene.relation is not None for scene in scenes]) == pytest.approx(0.3, abs=0.07)


def test_roughened_pictures_stay_near_and_a_quarter_stays_as_it_is() -> None:
    pictures = render_batch(SCENES[:40])
    rough = from_pixels(roughen(to_pixels(pictures), Draws(0, "rough", 0)))
    again = from_pixels(roughen(to_pixels(pictures), Draws(0, "rough", 0)))
    assert np.array_equal(rough, again)
    error = np.abs(rough.astype(float) - pictures).mean((1, 2, 3))
    assert error[:10].max() < 1 < error[10:].mean() < 12
    strict = read_rightly(read_strictly(rough), SCENES[:40])
    assert strict["scene"].mean() == 1 and strict["colour"].mean() > 0.7


def test_the_reader_learns() -> None:
    torch.manual_seed(0)
    reader, scenes = Reader(widths=(16, 32), hidden=64), SCENES[:32]
    pixels, labels = to_pixels(render_batch(scenes)), reading_labels(scenes)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = reading_loss(reader(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    readings = reader.eval().read(render_batch(scenes))
    assert np.mean([matches(r, s) for r, s in zip(readings, scenes, strict=True)]) > 0.7
    assert all(0 <= reading.confidence <= 1 for reading in readings)


def test_a_miniature_training_gives_the_same_reader_twice(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        run = RecipeRun(tmp_path / name / "work", tmp_path / name / "weights", scale=0.001)
        train_reader(run)
        weights.append((run.weights / "reader" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert len(weights[0]) < 3e6
    Reader.from_pretrained(tmp_path / "one" / "weights" / "reader")
