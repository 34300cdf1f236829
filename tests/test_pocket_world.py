"""Invariants of the pocket world, its captions and its questions."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from hb_tta.pocket.captions import (
    ATTRIBUTES,
    FULL,
    NUMBERS,
    Mention,
    caption,
    from_second,
    plural,
    random_caption,
    random_mention,
    wrong_scene,
)
from hb_tta.pocket.reading import answer, judge, reading_of
from hb_tta.pocket.tasks import (
    CATEGORIES,
    SPLITS,
    SUFFIX,
    make_pair,
    pocket_mme,
    question_pairs,
)
from hb_tta.pocket.world import (
    AGENT,
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    HELD_OUT_LOOKS,
    INVERSE,
    MAX_THINGS,
    MIRROR_RELATIONS,
    RELATIONS,
    SHAPES,
    SIZE,
    UNSEEN_PAIRS,
    agent_scene,
    ground_colour,
    is_held_out,
    render,
    render_batch,
    sample_scene,
    sample_scenes,
)

SCENES = list(islice(sample_scenes(77), 1500))


def _holds(scene, relation: str) -> bool:
    return reading_of(scene).holds([0], relation, [1])


def test_a_scene_is_what_its_record_says() -> None:
    for scene in SCENES:
        assert 1 <= len(scene.groups) <= 2
        for index, group in enumerate(scene.groups):
            assert group.shape in SHAPES and group.colour in COLOURS
            assert group.count == sum(thing.group == index for thing in scene.things) <= MAX_THINGS
        assert scene.background in BACKGROUNDS
        assert (scene.relation is None) == (len(scene.groups) == 1)
        if len(scene.groups) == 2:
            first, second = scene.groups
            assert first.shape != second.shape and first.colour != second.colour


def test_things_lie_inside_the_picture_and_equal_ones_apart() -> None:
    for scene in SCENES:
        for thing in scene.things:
            assert thing.radius <= min(thing.x, thing.y) + 1e-9
            assert max(thing.x, thing.y) <= SIZE - thing.radius + 1e-9
        for i, one in enumerate(scene.things):
            for other in scene.things[:i]:
                if one.group == other.group:
                    distance = np.hypot(one.x - other.x, one.y - other.y)
                    assert distance >= one.radius + other.radius


def test_the_drawn_relation_holds_and_its_contraries_do_not() -> None:
    seen = set()
    for scene in SCENES:
        if scene.relation is None:
            continue
        seen.add(scene.relation)
        assert _holds(scene, scene.relation), scene
        if scene.relation in INVERSE:
            contraries = {*DIRECTIONS, "touching", "apart from"} - {scene.relation}
            assert not any(_holds(scene, relation) for relation in contraries), scene
            assert _holds(from_second(scene), INVERSE[scene.relation]), scene
        else:
            others = [relation for relation in CONTACTS if relation != scene.relation]
            assert not any(_holds(scene, relation) for relation in others), scene
    assert seen == set(RELATIONS)


def test_few_shot_relations_survive_a_mirror() -> None:
    for scene in SCENES:
        if scene.relation in MIRROR_RELATIONS:
            things = tuple(replace(thing, x=SIZE - thing.x) for thing in scene.things)
            assert _holds(replace(scene, things=things), scene.relation)


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("relation", MIRROR_RELATIONS)
def test_an_agent_can_stand_in_every_mirror_relation_to_every_shape(relation, shape) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        scene = agent_scene(rng, relation, shape)
        assert [group.shape for group in scene.groups] == [AGENT, shape]
        assert _holds(scene, relation)


def test_training_streams_never_hold_a_held_out_combination() -> None:
    for scene in SCENES:
        looks = {(group.shape, group.colour, scene.background) for group in scene.groups}
        assert not looks & HELD_OUT_LOOKS
        if scene.relation and scene.groups[0].shape == AGENT:
            assert (scene.relation, scene.groups[1].shape) not in UNSEEN_PAIRS


def test_held_out_streams_hold_nothing_else_and_all_of_it() -> None:
    looks, pairs = set(), set()
    for scene in islice(sample_scenes(78, held_out=True), 800):
        assert is_held_out(scene)
        looks |= {(group.shape, group.colour, scene.background) for group in scene.groups}
        if scene.relation:
            pairs.add((scene.relation, scene.groups[1].shape))
    assert looks >= HELD_OUT_LOOKS and pairs >= UNSEEN_PAIRS


def test_every_word_of_a_held_out_combination_is_seen_in_training() -> None:
    for shape, colour, background in HELD_OUT_LOOKS:
        groups = [(g.shape, g.colour, s.background) for s in SCENES for g in s.groups]
        assert any((shape, colour) == look[:2] for look in groups)
        assert any((shape, background) == look[::2] for look in groups)
        assert any((colour, background) == look[1:] for look in groups)


def test_a_seed_gives_one_stream_and_seeds_share_no_scene() -> None:
    again = list(islice(sample_scenes(77), 200))
    assert again == SCENES[:200]
    assert np.array_equal(render_batch(again[:20]), render_batch(SCENES[:20]))
    others = set(islice(sample_scenes(79), 1500))
    assert not others & set(SCENES)


def test_every_colour_shows_on_every_background() -> None:
    for background in BACKGROUNDS.values():
        for colour in COLOURS.values():
            assert np.linalg.norm(np.subtract(background, colour)) > 80


def test_a_picture_shows_background_and_colours_of_its_record() -> None:
    for scene in SCENES[:200]:
        pixels = np.asarray(render(scene))
        assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
        present = {tuple(int(v) for v in pixel) for pixel in pixels.reshape(-1, 3)}
        assert ground_colour(scene) in present
        assert {COLOURS[group.colour] for group in scene.groups} <= present
        absent = set(COLOURS.values()) - {COLOURS[group.colour] for group in scene.groups}
        assert not absent & present


# ── Captions ────────────────────────────────────────────────────────────────────────────────────


def test_a_full_caption_tells_the_whole_record() -> None:
    texts: dict[str, tuple] = {}
    for scene in SCENES:
        told = [(group.shape, group.colour, group.count) for group in scene.groups]
        record = (scene.background, told, scene.relation)
        assert texts.setdefault(caption(scene), record) == record
    scene = next(s for s in SCENES if s.relation == "left of" and s.groups[0].count == 2)
    first, second = scene.groups
    assert caption(scene) == (
        f"two {first.colour} {plural(first.shape, 2)} left of "
        f"{NUMBERS[second.count - 1]} {second.colour} {plural(second.shape, second.count)} "
        f"on {scene.background}"
    )


@pytest.mark.parametrize(
    "part", [field.name for field in fields(Mention) if field.name not in ("groups", "without")]
)
def test_a_caption_leaves_out_what_is_not_mentioned(part: str) -> None:
    words = {
        "count": set(NUMBERS),
        "colour": set(COLOURS),
        "shape": {plural(shape, n) for shape in SHAPES for n in (1, 2)},
        "relation": {word for relation in RELATIONS for word in relation.split()},
        "background": set(BACKGROUNDS),
    }[part]
    for scene in SCENES[:300]:
        changed: dict[str, Any] = {part: False}
        partial = caption(scene, replace(FULL, **changed))
        assert not words & set(partial.split()), partial
        if part != "relation" or scene.relation:
            assert words & set(caption(scene).split())


def test_telling_from_the_second_group_tells_the_same_picture() -> None:
    for scene in SCENES:
        if len(scene.groups) == 2:
            told = from_second(scene)
            assert render(told).tobytes() == render(scene).tobytes()
            assert set(told.groups) == set(scene.groups)
            if scene.relation in DIRECTIONS:
                assert from_second(told) == scene


def test_random_captions_are_true() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        mention = random_mention(scene, rng)
        verdict = judge(reading_of(scene), scene, mention)
        assert all(verdict.values())
        assert random_caption(scene, rng).strip()


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_wrong_scene_differs_in_exactly_one_attribute(attribute: str) -> None:
    rng = np.random.default_rng(1)
    edits = 0
    for scene in SCENES[:600]:
        wrong = wrong_scene(scene, attribute, rng)
        if wrong is None:
            assert attribute == "relation" and scene.relation is None
            continue
        edits += 1
        assert _differences(scene, wrong) == [attribute]
        assert caption(wrong) != caption(scene)
        looks = [(group.shape, group.colour) for group in wrong.groups]
        assert len({shape for shape, _ in looks}) == len({c for _, c in looks}) == len(looks)
    assert edits > 200


def _differences(scene, wrong) -> list[str]:
    different = ["scene"] if scene.background != wrong.background else []
    for before, after in zip(scene.groups, wrong.groups, strict=True):
        different += [
            n for n in ("colour", "count", "shape") if getattr(before, n) != getattr(after, n)
        ]
    return different + (["relation"] if scene.relation != wrong.relation else [])


# ── Questions ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("category", CATEGORIES)
def test_questions_are_answered_by_their_record(category: str) -> None:
    for sample in pocket_mme("dev", category=category, limit=150):
        assert sample.question.endswith(SUFFIX)
        given = answer(reading_of(sample.scene), sample.question)
        assert given is (sample.answer == "Yes"), sample


def test_the_benchmark_has_mmes_columns_and_one_yes_and_one_no_an_image() -> None:
    samples = list(pocket_mme("dev", limit=3))
    assert len(samples) == 2 * 3 * len(CATEGORIES)
    for yes, no in zip(samples[::2], samples[1::2], strict=True):
        assert (yes.answer, no.answer) == ("Yes", "No")
        assert yes.question_id == no.question_id and yes.scene == no.scene
        assert yes.category == no.category and yes.question != no.question
        assert yes.image.size == (SIZE, SIZE)
    assert samples == list(pocket_mme("dev", limit=3))


def test_splits_share_no_scene_with_each_other_or_with_training() -> None:
    seen = [
        {s.scene.things for s in pocket_mme(split, limit=200)} for split in SPLITS
    ]  # fmt: skip
    training = {s.things for s in islice(sample_scenes(1), 3000)}
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & training


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_blind_model_stays_at_chance(category: str) -> None:
    """What knowing each question's usual answer gives, on questions that it was not taken from."""
    pairs = list(islice(question_pairs(category, 5), 1600))
    usual: dict[str, int] = {}
    for pair in pairs[:1200]:
        usual[pair.yes] = usual.get(pair.yes, 0) + 1
        usual[pair.no] = usual.get(pair.no, 0) - 1
    right = [
        says == (question == pair.yes)
        for pair in pairs[1200:]
        for question in (pair.yes, pair.no)
        for says in [usual.get(question, 0) > 0]
    ]
    assert np.mean(right) < 0.55 + 2 * np.sqrt(0.25 / len(right))  # two standard errors


@pytest.mark.parametrize("category", CATEGORIES)
def test_descriptions_keep_what_is_asked(category: str) -> None:
    for pair in islice(question_pairs(category, 6), 50):
        group, text = pair.told.groups[0], pair.description
        kept = {
            "existence": group.shape,
            "count": NUMBERS[group.count - 1],
            "position": str(pair.told.relation),
            "color": group.colour,
            "scene": pair.told.background,
            "style": group.shape,  # a filling has no words
            "reasoning": NUMBERS[group.count - 1],
        }[category]
        assert kept in text


def test_a_pair_asks_about_the_group_that_is_told_first() -> None:
    rng = np.random.default_rng(2)
    for scene in SCENES[:200]:
        pair = make_pair(scene, "color", rng)
        assert scene.groups[0].shape in pair.yes and scene.groups[0].colour in pair.yes
        assert scene.groups[0].colour not in pair.no


def test_unknown_splits_and_categories_name_the_choices() -> None:
    with pytest.raises(ValueError, match="dev, sealed"):
        next(pocket_mme("test"))
    with pytest.raises(ValueError, match="existence"):
        next(question_pairs("colour", 1))


def test_scenes_come_in_the_shares_that_are_stated() -> None:
    rng = np.random.default_rng(9)
    scenes = [sample_scene(rng) for _ in range(4000)]
    shares = [
        np.mean([len(scene.groups) == 1 for scene in scenes]),
        np.mean([scene.relation in DIRECTIONS for scene in scenes]),
        np.mean([scene.relation in CONTACTS for scene in scenes]),
    ]
    assert shares == pytest.approx([0.4, 0.4, 0.2], abs=0.03)
