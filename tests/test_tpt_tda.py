"""TDA: the authors' outputs on two streams, the caches' rules, and rows of whole tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hb_tta.errors import UserError
from hb_tta.tpt import TDA
from hb_tta.tpt.tda import NEGATIVE, POSITIVE, Cache, Stream

GOLDEN = Path(__file__).parent / "golden" / "tda"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "tda.safetensors")


def test_the_settings_are_those_of_the_authors_run():
    told = json.loads((GOLDEN / "tda.json").read_text())
    for cache, name in ((POSITIVE, "positive"), (NEGATIVE, "negative")):
        its = told[name]
        assert (cache.shots, cache.alpha, cache.beta) == (
            its["shot_capacity"],
            its["alpha"],
            its["beta"],
        )
    assert list(NEGATIVE.entropy) == told["negative"]["entropy"]
    assert list(NEGATIVE.mask) == told["negative"]["mask"]


@pytest.mark.parametrize(("views", "name"), [(1, "logits_single_NC"), (6, "logits_views_NC")])
def test_the_authors_logits_on_a_stream(golden, views, name):
    tda = TDA(golden["text_CD"], logit_scale=100.0)
    found = torch.stack([tda(features[:views]) for features in golden["features_NVD"]])
    assert (found - golden[name]).abs().max() < 1e-4
    right = (found.argmax(-1) == golden["labels_N"]).float().mean()
    kind = "single" if views == 1 else "views"
    # To the digits that were kept: whether its share was of 100 or of 1 is theirs.
    expected = float(golden[f"tda_{kind}_acc"])
    assert float(right) == pytest.approx(expected / 100 if expected > 1 else expected)


def test_another_order_gives_other_answers_and_the_same_one_the_same(golden):
    images = list(golden["features_NVD"])
    runs = [Stream(seed=seed).chances(golden["text_CD"], 100.0, images) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert sorted(Stream(seed=1).order(160)) == list(range(160))


def test_a_part_of_a_stream_is_a_stream_of_its_own(golden):
    images = list(golden["features_NVD"])
    whole, half = (
        Stream().chances(golden["text_CD"], 100.0, images[:n]) for n in (len(images), 80)
    )
    assert not torch.equal(whole[:80], half)


def test_without_caches_it_is_zero_shot(golden):
    tda = TDA(golden["text_CD"], 100.0, positive=None, negative=None)
    image = golden["features_NVD"][0, :1]
    assert torch.allclose(tda(image), 100 * image[0] @ golden["text_CD"].T, atol=1e-5)


def test_a_full_class_lets_in_what_is_surer_alone():
    text = torch.eye(3)
    sure, unsure = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.8, 0.6, 0]])
    one = Cache(shots=1, alpha=1.0, beta=0.0)  # every entry counts as one, whatever it is like

    def after(*images: torch.Tensor) -> TDA:
        tda = TDA(text, 10.0, positive=one, negative=None)
        for image in images:
            tda(image)
        return tda

    for first, second in ((sure, unsure), (unsure, sure)):
        kept = after(first, second)._positive._keys_CSD[0, 0]
        assert torch.equal(kept, sure[0])


@pytest.mark.parametrize("selection", [0.0, 1.5, -1])
def test_a_share_out_of_range_is_refused(selection):
    with pytest.raises(UserError, match="selection"):
        TDA(torch.eye(3), selection=selection)


def test_a_cache_without_room_is_refused():
    with pytest.raises(UserError, match="1 or more"):
        Cache(shots=0, alpha=1.0, beta=1.0)


# ── In a whole task ──────────────────────────────────────────────────────────────────────────────


def test_a_gated_stream_shows_each_image_what_the_other_methods_show_it():
    import numpy as np

    from hb_tta.augment import Augmenter
    from hb_tta.datasets import load_tasks
    from hb_tta.families import get_family
    from hb_tta.store import MemoryStore
    from hb_tta.tpt.evaluate import TptSettings, evaluate_classification
    from hb_tta.tpt.gated import shown
    from hb_tta.tpt.models import load_clip
    from hb_tta.tpt.tuner import PromptTuner
    from hb_tta.tpt.views import ViewFeatures, ViewRequest

    (task,) = load_tasks("pocket_objects_r", limit=8)
    clip = load_clip(get_family("pocket").weights("clip"))
    augmenter = Augmenter.from_pretrained("jitter", family="pocket", store=False)
    views = ViewFeatures(clip, MemoryStore(), augmenter=augmenter, generated=2, crops=1)
    tuner = PromptTuner(clip.encoder, None, task.class_names)
    requests = [ViewRequest(image) for image, _ in task.images]
    sure = tuner.sureness(views.without_generated().features(requests))
    gate = float(sure.median()) + 1e-6
    counts = [len(its) for its in shown(tuner, views, requests, gate)]
    assert counts == [4 if one < gate else 2 for one in sure] and len(set(counts)) == 2
    result = evaluate_classification(task, views, TptSettings(gate=gate), progress=False)
    entries = len(views.store._entries)
    again = evaluate_classification(task, views, TptSettings(gate=gate), progress=False)
    assert np.array_equal(result["methods"]["tda"]["scores"], again["methods"]["tda"]["scores"])
    assert len(views.store._entries) == entries  # kept: three orders, each by its seed
