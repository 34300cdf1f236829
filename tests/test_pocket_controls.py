"""The experiment's controls are what they say: the ceiling keeps what is asked, and so on."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from hb_tta.experiments.pocket_controls import (
    controls,
    draw_again,
    other_numbers,
    prompt_of,
)
from hb_tta.experiments.pocket_mme import ARMS, settings_of
from hb_tta.generators.jitter import jittered
from hb_tta.pocket.captions import caption
from hb_tta.pocket.edition import THIRD
from hb_tta.pocket.tasks import CATEGORIES, FOCUS, focus, pocket_mme, question_pairs
from hb_tta.pocket.world import is_held_out
from hb_tta.settings import ViewSettings

# What each category's two questions are decided by.
FACTS = {
    "existence": lambda scene: [group.shape for group in scene.groups],
    "count": lambda scene: [(group.shape, group.count) for group in scene.groups],
    "position": lambda scene: (scene.relation, [group.shape for group in scene.groups]),
    "color": lambda scene: [(group.shape, group.colour) for group in scene.groups],
    "scene": lambda scene: scene.background,
    "style": lambda scene: [(group.shape, group.filling) for group in scene.groups],
    "reasoning": lambda scene: [(group.shape, group.count) for group in scene.groups],
}


def augmentation(number: int) -> SimpleNamespace:
    return SimpleNamespace(views=[f"view of {number}"], keys=[str(number)], description=None)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_ceiling_keeps_what_is_asked_and_varies_the_rest(category):
    rng = np.random.default_rng(0)
    backgrounds = set()
    for sample in pocket_mme("dev", category=category, limit=20):
        drawn = draw_again(sample.scene, FOCUS[category], rng, style=category == "style")
        assert FACTS[category](drawn) == FACTS[category](sample.scene)
        assert drawn.things != sample.scene.things
        assert not is_held_out(drawn) or is_held_out(sample.scene)
        backgrounds.add((sample.scene.background, drawn.background))
    changed = sum(old != new for old, new in backgrounds)
    assert changed == 0 if category == "scene" else changed > 4


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("category", THIRD.categories)
def test_the_ceiling_keeps_every_fact_of_the_third_edition(category, held_out):
    rng = np.random.default_rng(1)
    pairs = question_pairs(category, 5, held_out=held_out, edition=THIRD)
    for pair in islice(pairs, 12):
        drawn = draw_again(
            pair.told, focus(category, THIRD), rng, style=category == "style", edition=THIRD
        )
        assert FACTS[category](drawn) == FACTS[category](pair.told)
        assert drawn.relation == pair.told.relation
        assert held_out or not is_held_out(drawn)


def test_a_scene_that_the_world_never_draws_is_given_up():
    scene = next(question_pairs("count", 5)).told
    never = replace(scene, groups=tuple(replace(group, count=9) for group in scene.groups))
    with pytest.raises(RuntimeError, match="count=9"):
        draw_again(never, FOCUS["count"], np.random.default_rng(0))


def test_jitter_moves_a_little_and_changes_no_size():
    rng = np.random.default_rng(2)
    image = next(pocket_mme("dev", category="count", limit=1)).image
    moved = [jittered(image, rng) for _ in range(4)]
    assert {view.size for view in moved} == {image.size}
    assert len({view.tobytes() for view in (image, *moved)}) == 5
    apart = [np.abs(np.subtract(view, image, dtype=float)).mean() for view in moved]
    assert max(apart) < 60


def test_the_perfect_judge_keeps_views_that_keep_the_answer():
    samples = list(pocket_mme("dev", category="count", limit=2))
    right, wrong = samples[0].image, next(pocket_mme("dev", category="scene", limit=1)).image
    made = [SimpleNamespace(views=[wrong, right], keys=["a", "b"], description="") for _ in samples]
    shown = controls(samples, made, "dev", 2)["perfect judge"](0)
    assert list(shown.keys)[-1] == "b"
    assert shown.views[-1] is right


def test_other_views_are_of_the_next_image_with_the_same_answer():
    samples = list(pocket_mme("dev", limit=3))
    others = other_numbers(samples)
    assert sorted(others) == list(range(len(samples)))
    for sample, other in zip(samples, others, strict=True):
        assert samples[other].question_id != sample.question_id
        assert samples[other].category == sample.category
        assert samples[other].answer == sample.answer


def test_what_each_control_shows():
    samples = list(pocket_mme("dev", category="color", limit=2))
    made = [augmentation(number) for number in range(len(samples))]
    made[1].description = "Two red circles."
    arms = controls(samples, made, "dev", 3)
    prompt = prompt_of(samples[0])
    assert prompt.endswith("?\nAnswer the question using a single word or phrase.")
    assert arms["plain here"](0).prompt == arms["text"](0).prompt == prompt
    assert arms["text"](1).prompt == f"Two red circles.\n{prompt_of(samples[1])}"
    assert not arms["text"](1).views
    assert arms["words"](1).prompt == arms["text"](1).prompt
    assert not arms["words"](1).pictured and arms["text"](1).pictured
    assert arms["other"](0).views == ["view of 2"]
    assert arms["said"](0) == arms["plain here"](0)
    one, again = arms["ceiling"](0), arms["ceiling"](0)
    assert len(one.views) == 3
    assert [v.tobytes() for v in one.views] == [v.tobytes() for v in again.views]
    assert len({v.tobytes() for v in (*one.views, *arms["ceiling"](1).views)}) == 6


@pytest.mark.parametrize("category", THIRD.categories)
def test_what_a_right_description_says_is_the_answer(category):
    samples = list(pocket_mme("dev", category=category, limit=12, edition=THIRD))
    made = [
        SimpleNamespace(views=[], keys=[], description=caption(s.scene, focus(category, THIRD)))
        for s in samples
    ]
    said = controls(samples, made, "dev", 1)["said"]
    wanted = [None if category == "style" else sample.answer for sample in samples]
    assert [said(number).answered for number in range(len(samples))] == wanted


def test_what_a_description_leaves_open_is_asked():
    samples = list(pocket_mme("dev", category="count", limit=2, edition=THIRD))
    vague = f"red {samples[0].scene.groups[0].shape}"
    made = [SimpleNamespace(views=[], keys=[], description=vague) for _ in samples]
    assert controls(samples, made, "dev", 1)["said"](0).answered is None


def test_every_arm_is_what_its_name_says(tmp_path):
    pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")
    options = Namespace(views=3, seed=0, store=str(tmp_path), out=str(tmp_path))
    found = {arm: settings_of(arm, options) for arm in ARMS}
    assert all(its.n == 3 for arm, its in found.items() if arm not in ("describe", "paraphrases"))
    assert found["describe"].n == found["paraphrases"].n == 0
    gates = {arm: its.views.gate for arm, its in found.items() if its.views.gate is not None}
    assert gates == {"safe": ViewSettings(preset="safe").gate}
    judged = {arm for arm, its in found.items() if its.views.judge != "none"}
    assert judged == {"verified", "safe"}
    assert len({its.digest for its in found.values()}) == len(ARMS)


@pytest.mark.soak
def test_the_experiment_runs_and_goes_on(tmp_path):
    """End to end at its smallest size; a control's half-written line is answered again."""
    pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")
    command = [sys.executable, "-m", "hb_tta.experiments.pocket_mme", "--out", str(tmp_path)]
    command += ["--limit", "2", "--views", "1"]
    subprocess.run(command, check=True, timeout=1200)
    report = (tmp_path / "report.json").read_bytes()
    samples = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_samples_*.jsonl")}
    assert len(samples) == 9
    text = tmp_path / "controls" / "text.jsonl"
    text.write_bytes(text.read_bytes()[:-30])
    subprocess.run(command, check=True, timeout=600)
    assert {path: path.stat().st_mtime_ns for path in samples} == samples
    again = (tmp_path / "report.json").read_bytes()
    assert again.partition(b'"seconds"')[0] == report.partition(b'"seconds"')[0]
    refused = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "has results of another seed: name another --out" in refused.stderr
