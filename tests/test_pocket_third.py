"""What the third edition adds: fillings, leaning grounds, worn pictures, forms, questions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from hb_tta.pocket import worn
from hb_tta.pocket.captions import FORMS, FULL, Mention, caption, draw_caption, from_second
from hb_tta.pocket.edition import BUNDLED, FILLINGS, SECOND, THIRD
from hb_tta.pocket.reading import answer, fillings_kept, judge, reading_of
from hb_tta.pocket.tasks import LEANING, SPLITS, focus, pocket_mme, question_pairs
from hb_tta.pocket.world import (
    AROUND,
    BACKGROUNDS,
    COLOURS,
    NEIGHBOURS,
    SYMMETRIC,
    ground_colour,
    inverse,
    render_batch,
    sample_scenes,
)
from hb_tta.pocket.worn import KINDS, STRENGTHS, wear, wear_some
from hb_tta.training.pocket_family.strict_reader import read_strictly

SCENES = list(islice(sample_scenes(78, edition=THIRD), 1500))
OLDER = list(islice(sample_scenes(78, edition=SECOND), 1500))


def test_an_edition_changes_nothing_of_a_scene_but_what_it_adds() -> None:
    for new, old in zip(SCENES, OLDER, strict=True):
        assert (new.background, new.relation, new.things) == (
            old.background, old.relation, old.things,
        )  # fmt: skip
        for ours, theirs in zip(new.groups, old.groups, strict=True):
            assert (ours.shape, ours.colour, ours.count) == (
                theirs.shape, theirs.colour, theirs.count,
            )  # fmt: skip
        assert caption(new) == caption(old)
        assert old.lean == 0 and {group.filling for group in old.groups} == {"plain"}


def test_by_default_the_world_is_the_bundled_weights() -> None:
    assert next(sample_scenes(78)) == next(sample_scenes(78, edition=BUNDLED))


def test_fillings_are_uniform_and_grounds_lean_below_half() -> None:
    fillings = [group.filling for scene in SCENES for group in scene.groups]
    for filling in FILLINGS:
        assert 0.3 < fillings.count(filling) / len(fillings) < 0.37
    leans = np.array([scene.lean for scene in SCENES])
    assert leans.max() <= THIRD.lean < 0.5 and np.median(leans) < THIRD.lean / 3.5


def test_a_leaning_ground_is_still_nearest_to_its_name() -> None:
    for scene in SCENES:
        shade = np.array(ground_colour(scene))
        distances = {name: np.abs(shade - rgb).sum() for name, rgb in BACKGROUNDS.items()}
        assert min(distances, key=lambda name: distances[name]) == scene.background
        assert NEIGHBOURS[NEIGHBOURS[scene.background]] == scene.background


def test_every_filling_shows_on_every_ground_in_every_colour() -> None:
    pictures = render_batch(SCENES).astype(int)
    seen = set()
    for scene, picture in zip(SCENES, pictures, strict=True):
        if len(scene.groups) == 1:
            group, thing = scene.groups[0], scene.things[0]
            off = np.abs(picture - np.array(ground_colour(scene))).sum(-1)
            x, y = round(thing.x - 0.5), round(thing.y - 0.5)
            middle = off[y, x] > 60
            assert middle == (group.filling != "hollow"), scene
            assert (off > 60).sum() > 40
            seen.add((group.filling, group.colour))
    assert len(seen) == len(FILLINGS) * len(COLOURS)


def test_the_strict_reader_tells_fillings() -> None:
    scenes = SCENES[:40]
    pairs = list(zip(read_strictly(render_batch(scenes)), scenes, strict=True))
    assert np.mean([fillings_kept(*pair) for pair in pairs]) > 0.95
    assert np.mean([all(judge(*pair).values()) for pair in pairs]) > 0.9


# ── Captions ─────────────────────────────────────────────────────────────────────────────────────


def test_shares_of_the_forms_sum_to_one_and_few_say_and() -> None:
    assert sum(form.share for form in FORMS.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    two = [scene for scene in SCENES if len(scene.groups) == 2]
    joined = np.mean([" and " in f" {draw_caption(scene, rng)[1]} " for scene in two for _ in "12"])
    assert 0 < joined < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_no_form_names_a_filling_and_every_form_is_true(form: str) -> None:
    rng = np.random.default_rng(1)
    for scene in SCENES[:300]:
        words = set(FORMS[form].write(scene, FORMS[form].mention(scene, rng)).split())
        assert not words & {*FILLINGS}
        shapes = {group.shape for group in scene.groups}
        assert not any(w.startswith(("circle", "square", "triangle", "cross")) for w in words) or (
            any(word.startswith(shape) for word in words for shape in shapes)
        )
        grounds = words & {*BACKGROUNDS}
        assert grounds <= {scene.background}


def test_told_from_the_second_group_a_relation_is_kept() -> None:
    for scene in SCENES:
        if scene.relation is None:
            continue
        turned = from_second(scene)
        assert from_second(turned) == scene
        assert reading_of(turned).holds([0], str(turned.relation), [1])
        if scene.relation in SYMMETRIC:
            assert turned.relation == scene.relation


def test_inside_is_told_from_the_agent_by_whichever_side_it_is_asked() -> None:
    scene = next(scene for scene in SCENES if scene.relation == "inside")
    turned = from_second(scene)
    assert turned.relation == AROUND == inverse("inside")
    assert caption(turned) == caption(scene)
    vague = Mention(without=frozenset({(0, "colour")}))
    agent = Mention(without=frozenset({(1, "colour")}))
    assert caption(turned, vague) == caption(scene, agent)
    one = Mention(groups=(0,))
    assert caption(turned, one).split()[2].startswith(turned.groups[0].shape)
    assert judge(reading_of(scene), turned, FULL)["position"]


# ── Worn pictures ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_wear_is_a_pure_function_and_stronger_is_worse(kind: str) -> None:
    picture = render_batch(SCENES[:1])[0]
    before = picture.copy()
    losses = []
    for strength in STRENGTHS:
        first = wear(picture, kind, strength, np.random.default_rng(3))
        again = wear(picture, kind, strength, np.random.default_rng(3))
        assert first.dtype == np.uint8 and first.shape == picture.shape
        assert (first == again).all() and (picture == before).all()
        many = render_batch(SCENES[:40])
        rng = np.random.default_rng(4)
        changed = np.stack([wear(one, kind, strength, rng) for one in many])
        losses.append(np.square(changed.astype(float) - many).mean())
    assert losses == sorted(losses) and len(set(losses)) == len(STRENGTHS)


def test_unknown_wear_is_refused_with_the_choices() -> None:
    picture = render_batch(SCENES[:1])[0]
    with pytest.raises(ValueError, match="blur"):
        wear(picture, "fog", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="1, 2, 3, 4, 5"):
        wear(picture, "blur", 6, np.random.default_rng(0))


def test_some_of_a_batch_is_worn() -> None:
    pictures = render_batch(SCENES[:400])
    some = wear_some(pictures, np.random.default_rng(0), 0.25)
    changed = (some != pictures).any((1, 2, 3)).mean()
    assert 0.15 < changed < 0.35


def test_questions_are_asked_of_pictures_worn_more_than_in_training(monkeypatch) -> None:
    trained: set[int] = set()

    def noted(picture, kind, strength, rng):
        trained.add(strength)
        return picture

    monkeypatch.setattr(worn, "wear", noted)
    wear_some(np.zeros((300, 64, 64, 3), np.uint8), np.random.default_rng(0), 1.0)
    asked = {
        sample.wear.strength
        for sample in pocket_mme("dev", category="color", limit=300, edition=THIRD)
        if sample.wear
    }
    assert trained == set(worn.TRAINED) and asked == set(worn.ASKED)
    assert max(trained) <= min(asked)


# ── Questions ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("category", THIRD.categories)
def test_a_record_answers_its_questions(category: str, held_out: bool) -> None:
    pairs = question_pairs(category, SPLITS["dev"], held_out=held_out, edition=THIRD)
    for pair in islice(pairs, 60):
        seen = reading_of(pair.told)
        assert answer(seen, pair.yes) is True, pair
        assert answer(seen, pair.no) is False, pair
        if category == "scene":
            assert LEANING[0] <= pair.told.lean <= LEANING[1]


@pytest.mark.parametrize("category", THIRD.categories)
def test_a_description_of_two_groups_names_their_relation(category: str) -> None:
    assert focus(category, THIRD).relation
    pairs = question_pairs(category, SPLITS["dev"], edition=THIRD)
    for pair in islice(pairs, 60):
        assert " and " not in pair.description


@pytest.mark.parametrize("category", ["style", "reasoning"])
def test_what_is_asked_for_says_nothing_of_the_answer(category: str) -> None:
    lean: dict[str, int] = {}
    pairs = list(islice(question_pairs(category, 11, edition=THIRD), 1500))
    for pair in pairs:
        for question, sign in ((pair.yes, 1), (pair.no, -1)):
            key = (
                question.split("more")[-1].split()[0]
                if category == "reasoning"
                else (question.split()[-1])
            )
            lean[key] = lean.get(key, 0) + sign
    assert max(abs(value) for value in lean.values()) < 0.12 * len(pairs)
