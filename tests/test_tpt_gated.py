"""Prompt tuning with generated views only where the CLIP is not sure without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hb_tta import Augmenter, UserError
from hb_tta.datasets import load_tasks
from hb_tta.families import get_family
from hb_tta.store import MemoryStore
from hb_tta.tpt import PromptTuner
from hb_tta.tpt.evaluate import TptSettings, evaluate_few_shot
from hb_tta.tpt.gated import classified
from hb_tta.tpt.models import load_clip
from hb_tta.tpt.views import ViewFeatures, ViewRequest

IMAGES = 6


@pytest.fixture(scope="module")
def clip():
    return load_clip(get_family("pocket").weights("clip"))


@pytest.fixture(scope="module")
def task():
    return load_tasks("pocket_objects_r", limit=IMAGES)[0]


@pytest.fixture(scope="module")
def tuner(clip, task):
    return PromptTuner(clip.encoder, None, task.class_names, selection=0.5)


class Never(Augmenter):
    """Makes nothing: whoever asks is wrong."""

    def augment(self, *_, **__):
        raise AssertionError("views are made for an image that gets none")


class Asked(Augmenter):
    """Tells how many images it was asked for, and gives image ``i`` ``i % 3`` views."""

    asked = 0

    def augment(self, contexts, **settings):
        made = super().augment(contexts, **settings)
        self.asked += len(made)
        return made


class Fewer(Asked):
    def augment(self, contexts, **settings):
        made = super().augment(contexts, **settings)
        return [replace(its, files=its.files[: i % 3]) for i, its in enumerate(made)]


def views(clip, kind=Asked, generated=2, crops=1):
    augmenter = kind.from_pretrained("randaugment", family="pocket", store=False)
    return ViewFeatures(clip, MemoryStore(), augmenter=augmenter, generated=generated, crops=crops)


def requests(task):
    return [ViewRequest(image) for image, _ in task.images]


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=0)


def test_gate_0_is_the_run_without_an_augmenter_and_asks_none(clip, task, tuner):
    found = classified(tuner, views(clip, Never), requests(task), 0.0)
    bare = ViewFeatures(clip, MemoryStore(), crops=1)
    same(found, classified(tuner, bare, requests(task), None))


def test_each_image_is_answered_as_the_gate_has_it(clip, task, tuner):
    closed = classified(tuner, views(clip, Never), requests(task), 0.0)
    opened = classified(tuner, views(clip), requests(task), None)
    sure = closed["zero-shot"].amax(-1)
    gate = float(sure.median()) + 1e-6
    between = views(clip)
    found = classified(tuner, between, requests(task), gate)
    unsure = sure < gate
    assert between.augmenter.asked == int(unsure.sum()) and 0 < int(unsure.sum()) < IMAGES
    same({k: v[unsure] for k, v in found.items()}, {k: v[unsure] for k, v in opened.items()})
    same({k: v[~unsure] for k, v in found.items()}, {k: v[~unsure] for k, v in closed.items()})
    assert not torch.allclose(opened["tpt"], closed["tpt"], atol=1e-3), "the views change nothing"


def test_an_image_with_fewer_views_is_tuned_on_those(clip, task, tuner):
    found = classified(tuner, views(clip, Fewer), requests(task), None)
    for number in range(3):
        some = requests(task)[number : number + 1]
        bare = ViewFeatures(clip, MemoryStore(), crops=1)
        alone = classified(tuner, views(clip, generated=number) if number else bare, some, None)
        same({name: its[number : number + 1] for name, its in found.items()}, alone)


def test_a_tuner_has_the_gate_too(clip, task, tuner):
    pictures = [clip.preprocess(image) for image, _ in task.images]
    crops = [torch.stack([p, p.flip(-1), p.roll(9, -1), p.roll(9, -2)]) for p in pictures]
    images = torch.stack(crops)
    settings = {"selection": 1.0}
    plain = PromptTuner(clip.encoder, None, task.class_names, **settings)
    opened, closed = plain(images, generated=2), plain(images[:, :2])
    sure = plain.sureness(clip.encoder.encode_images(images))
    gate = float(sure.median()) + 1e-6
    gated = PromptTuner(clip.encoder, None, task.class_names, gate=gate, **settings)
    found = gated(images, generated=2)
    unsure = (sure < gate)[:, None]
    torch.testing.assert_close(found, torch.where(unsure, opened, closed), atol=1e-4, rtol=0)
    assert torch.equal(gated(images), plain(images)), "without generated views there is no gate"
    with pytest.raises(UserError, match="gate=2 is out of range"):
        PromptTuner(clip.encoder, None, task.class_names, gate=2)


def test_few_shot_queries_have_it(clip):
    task = load_tasks("pocket_hoi", limit=2)[0]
    settings = TptSettings(steps=3)

    def scores(kind, **more):
        found = views(clip, kind, generated=1, crops=0)
        result = evaluate_few_shot(task, found, replace(settings, **more), progress=False)
        return result["methods"]["tpt"]

    bare = evaluate_few_shot(task, ViewFeatures(clip, MemoryStore()), settings, progress=False)
    assert scores(Never, gate=0.0) == bare["methods"]["tpt"]
    opened = scores(Asked)
    assert scores(Asked, gate=1.0) == opened
    assert opened["ece"] != bare["methods"]["tpt"]["ece"], "the views change nothing"
