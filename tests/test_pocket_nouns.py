"""What captions tell of their nouns, and what pictures show of them."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from hb_tta.pocket.captions import FULL, NUMBERS, caption, from_second
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.world import SHAPES, sample_scenes
from hb_tta.training.pocket_family.edits import SWAPS, draw_choice
from hb_tta.training.pocket_family.labels import (
    COLOUR_NAMES,
    IGNORED,
    Heads,
    global_labels,
    head_loss,
)
from hb_tta.training.pocket_family.nouns import NOUN_HEADS, TEXT_HEADS, noun_labels, text_labels
from hb_tta.training.pocket_family.places import bearing_labels

SCENES = list(islice(sample_scenes(98, edition=THIRD), 300))


def test_a_full_caption_tells_what_its_picture_shows() -> None:
    texts = [caption(scene) for scene in SCENES]
    labels = noun_labels(texts, SCENES, 20)
    asked = labels["told_count"] != IGNORED
    assert asked.sum() == sum(len(scene.groups) for scene in SCENES)
    assert torch.equal(labels["told_count"][asked] + 1, labels["seen_count"][asked])
    assert torch.equal(labels["told_colour"][asked] + 1, labels["seen_colour"][asked])
    two = labels["told_bearing"] != IGNORED
    assert torch.equal(labels["told_bearing"][two], labels["seen_bearing"][two])
    assert two.sum() == 2 * sum(len(scene.groups) == 2 for scene in SCENES)


def test_of_swapped_groups_no_noun_tells_what_is_seen() -> None:
    rng, found = np.random.default_rng(0), 0
    for scene in SCENES:
        choice = draw_choice(scene, rng, partial=0.0, attributes=SWAPS)
        for what, text in choice.wrong.items():
            labels = {name: values[0] for name, values in noun_labels([text], [scene], 20).items()}
            nouns = labels["told_bearing"] != IGNORED
            kind = {"groups": "bearing", "colours": "colour"}[what]
            shift = int(kind == "colour")
            told, seen = labels[f"told_{kind}"][nouns] + shift, labels[f"seen_{kind}"][nouns]
            assert (told != seen).all(), text
            found += 1
    assert found > 200


def test_a_shape_that_is_not_there_is_seen_no_times() -> None:
    scene = next(s for s in SCENES if len(s.groups) == 1)
    other = next(shape for shape in SHAPES if shape != scene.groups[0].shape)
    labels = noun_labels([f"two red {other}s", "three shapes"], [scene, scene], 6)
    assert labels["seen_count"].tolist()[0][3] == 0
    assert labels["told_count"].tolist()[0][3] == NUMBERS.index("two")
    assert labels["told_colour"].tolist()[0][3] == COLOUR_NAMES.index("red")
    assert (labels["seen_count"][1] == IGNORED).all()


def test_texts_tell_of_the_shapes_that_they_name_what_pictures_show() -> None:
    whole = global_labels(SCENES) | bearing_labels(SCENES)
    for telling in (lambda scene: scene, lambda scene: from_second(scene)):
        scenes = [telling(s) if len(s.groups) == 2 else s for s in SCENES]
        labels = text_labels([f"a photo of {caption(scene, FULL)}." for scene in scenes])
        assert labels.keys() == TEXT_HEADS.keys()
        for name, values in labels.items():
            told = values.numpy() != IGNORED
            assert told.any()
            assert (values.numpy()[told] == whole[name][told]).all(), name


def test_heads_that_are_asked_nothing_cost_nothing() -> None:
    heads = Heads(4, NOUN_HEADS)
    labels = noun_labels(["three shapes"], SCENES[:1], 4)
    loss = head_loss(heads(torch.randn(1, 4, 4)), labels)
    loss.backward()
    assert torch.isfinite(loss)
