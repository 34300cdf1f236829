"""View filters, answers without tuning, crops, cached features, and whole tasks."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hb_tta import Augmenter
from hb_tta.cli import main
from hb_tta.datasets import load_tasks
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.store import MemoryStore, Store
from hb_tta.store.features import image_identities
from hb_tta.tpt import evaluate, select_views, table
from hb_tta.tpt.evaluate import TptSettings, evaluate_classification, evaluate_few_shot
from hb_tta.tpt.filters import view_entropy
from hb_tta.tpt.models import load_clip
from hb_tta.tpt.views import ViewFeatures, ViewRequest, crop_views
from hb_tta.tta.combine import Combiner, combine_classes
from hb_tta.tta.mta import _bandwidth
from hb_tta.tta.rule import Embedded


@pytest.fixture(scope="module")
def clip():
    return load_clip(get_family("pocket").weights("clip"))


# ── Filters ──────────────────────────────────────────────────────────────────────────────────────


def some_views(batch=3, views=20, classes=7, dimensions=8):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, views, classes, generator=generator)
    features = F.normalize(torch.randn(batch, views, dimensions, generator=generator), dim=-1)
    return logits, features


def test_tpt_takes_the_least_entropy_and_does_not_force_the_real_image_in():
    logits, features = some_views()
    chosen = select_views(logits, features, selection=0.25)
    assert chosen.shape == (3, 5)
    for row in range(3):
        order = view_entropy(logits[row]).argsort()[:5]
        assert chosen[row].tolist() == order.tolist()
    assert not (chosen == 0).any(1).all()
    assert select_views(logits[:, :4], features[:, :4]).shape == (3, 1)  # a tenth of 4 is one


def test_quotas_are_of_their_own():
    logits, features = some_views()
    chosen = select_views(logits, features, selection=0.2, generated=12, generated_selection=0.5)
    assert chosen.shape == (3, 1 + 6)
    assert (chosen[:, :1] < 8).all()
    assert (chosen[:, 1:] >= 8).all()


@pytest.mark.parametrize(("name", "on"), [("difftpt-paper", 1), ("difftpt-code", 0)])
def test_difftpt_drops_what_is_least_like_the_real_image(name, on):
    values = some_views()
    chosen = select_views(*values, name=name, selection=1.0, generated=10)
    likeness = F.cosine_similarity(values[on], values[on][:, :1], dim=-1)
    first = 10 if name == "difftpt-paper" else 0
    kept = int(0.8 * (20 - first))
    assert chosen.shape == (3, first + kept)
    for row in range(3):
        best = likeness[row, first:].argsort(descending=True)[:kept] + first
        assert set(chosen[row].tolist()) == {*range(first), *best.tolist()}
    assert select_views(*values, name=name, generated=10).shape[1] == int(0.3 * (first + kept))


def test_a_filter_looks_at_each_image_alone():
    logits, features = some_views()
    for name in ("tpt", "difftpt-paper", "difftpt-code"):
        settings = {"name": name, "generated": 5, "generated_selection": 0.4}
        together = select_views(logits, features, **settings)
        for row in range(3):
            alone = select_views(logits[row : row + 1], features[row : row + 1], **settings)
            assert alone[0].tolist() == together[row].tolist()


def test_wrong_filters_are_told():
    values = some_views()
    with pytest.raises(UserError, match="leave no real one"):
        select_views(*values, generated=20)
    with pytest.raises(UserError, match="selection of 1.5"):
        select_views(*values, selection=1.5)


# ── Answers without tuning ───────────────────────────────────────────────────────────────────────


class Seen(NamedTuple):
    """What rules of classes are given: ``combine_classes``'s arguments."""

    logits: torch.Tensor
    chosen: torch.Tensor
    embedded: Embedded

    def combined(self):
        return combine_classes(*self)


def seen(selection=0.25):
    logits, features = some_views()
    text = F.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    scale = torch.tensor(30.0)
    logits = scale * features @ text.T
    chosen = select_views(logits, features, selection=selection)
    return Seen(logits, chosen, Embedded(features, text, scale))


def test_answers_are_probabilities_and_equal_for_equal_views():
    views = seen()
    features = views.embedded.features_RVD
    logits = views.logits[:, :1]
    same = views.embedded._replace(features_RVD=features[:, :1].expand(-1, 20, -1))
    alike = Seen(logits.expand(-1, 20, -1), views.chosen, same).combined()
    for name, chances in views.combined().items():
        torch.testing.assert_close(chances.sum(-1), torch.ones(3))
        assert alike[name].argmax(-1).tolist() == logits[:, 0].argmax(-1).tolist(), name
    single = views.embedded._replace(features_RVD=features[:, :1])
    one = Seen(logits, torch.zeros(3, 1).long(), single).combined()
    for chances in one.values():
        assert chances.argmax(-1).tolist() == logits[:, 0].argmax(-1).tolist()


def test_zero_counts_votes_and_a_tie_goes_to_the_real_images_side():
    logits = torch.tensor(
        [[[9.0, 0, 0], [0, 3.0, 0], [0, 3.0, 0]], [[4.0, 0, 0], [0, 5.0, 0], [0, 0, 0]]]
    )
    embedded = Embedded(torch.zeros(2, 3, 2), torch.zeros(3, 2), torch.tensor(1.0))
    votes = Seen(logits, torch.tensor([[0, 1, 2], [0, 1, 2]]), embedded)
    assert votes.combined()["zero"].argmax(-1).tolist() == [1, 0]
    tie = votes._replace(chosen=torch.tensor([[0, 1], [0, 1]]))
    assert tie.combined()["zero"].argmax(-1).tolist() == [0, 0]


def test_classes_and_words_are_combined_by_one_rule():
    """ZERO and the mean of a CLIP's views are an MLLM's, of the same logits and trusted views."""
    views = seen(selection=0.5)
    together = views.combined()
    for row, logits_VK in enumerate(views.logits):
        mean, zero = Combiner("mean")(logits_VK), Combiner("zero", share=0.5)(logits_VK)
        torch.testing.assert_close(together["average"][row], mean.softmax(-1))
        torch.testing.assert_close(together["zero"][row], zero.softmax(-1))


def test_mta_is_the_alternation_of_its_paper():
    """Against a plain loop over one image, written from the paper's equations 5 and 7."""
    views = seen()
    found = views.combined()["mta"]
    for row in range(3):
        f, p = views.embedded.features_RVD[row], views.logits[row].softmax(-1)
        distances = torch.tensor([[float((a - b).norm()) for b in f] for a in f])
        near = distances.sort(-1).values[:, 1 : 1 + int(0.3 * 19)]
        h2 = 0.5 * (near**2).mean(-1)
        y, mode = torch.full((20,), 1 / 20), f[0]
        for _ in range(5):
            kernel = torch.exp(-((f - mode) ** 2).sum(-1) / (2 * h2))
            for _ in range(5):
                y = ((kernel + 4 * (p @ p.T) @ y) / 0.2).softmax(-1)
            for _ in range(5):
                w = y * torch.exp(-((f - mode) ** 2).sum(-1) / (2 * h2))
                mode = (w[:, None] * f).sum(0) / w.sum()
                mode = mode / mode.norm()
        expected = (30 * mode @ views.embedded.text_KD.T).softmax(-1)
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", ["equal", "outlier"])
def test_mta_stays_with_views_that_are_equal(start: str):
    """Of 5 views 3 are one picture; the classes are the three pictures. Of 200 images."""
    found, scale = [], torch.tensor(30.0)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        around = torch.randn(8, generator=generator)
        text = F.normalize(around + 0.7 * torch.randn(3, 8, generator=generator), dim=-1)
        features = text[[0, 0, 0, 1, 2] if start == "equal" else [2, 1, 0, 0, 0]][None]
        logits = scale * features @ text.T
        views = Seen(logits, torch.arange(5)[None], Embedded(features, text, scale))
        found.append(int(views.combined()["mta"].argmax()))
    assert found.count(0) >= (200 if start == "equal" else 170)  # else views of a mode far off win


def test_mta_leaves_the_bandwidth_of_views_that_only_resemble_each_other():
    generator = torch.Generator().manual_seed(2)
    far, near = (torch.randn(1, count, 8, generator=generator) for count in (2, 3))
    features = F.normalize(torch.cat([far, far[:, :1] + 1e-2 * near], 1), dim=-1)
    nearest = torch.cdist(features, features).sort(-1).values[..., 1]
    torch.testing.assert_close(_bandwidth(features), nearest * 0.5**0.5)
    assert _bandwidth(features).min() < 0.02
    equal = _bandwidth(features[:, [0, 0, 0, 1]])
    torch.testing.assert_close(equal[0, :3], equal[0, 3:].expand(3) / 4)


# ── Views and their features ─────────────────────────────────────────────────────────────────────


def test_crops_are_deterministic_and_leave_the_global_generator_alone():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    crops = crop_views(image, 32, 5, seed=7)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [crop.size for crop in crops] == [(32, 32)] * 5
    again = crop_views(image, 32, 2, seed=9)
    assert again[0].tobytes() == crops[2].tobytes()
    assert len({crop.tobytes() for crop in crops}) == 5


def test_features_are_encoded_once_and_read_no_image_again(clip, tmp_path, monkeypatch):
    paths = []
    for place, (image, _) in enumerate(load_tasks("pocket_objects", limit=3)[0].images):
        paths.append(tmp_path / f"{place}.png")
        image.save(paths[-1])
    store = Store(tmp_path / "store")
    views = ViewFeatures(clip, store, crops=2)
    requests = [ViewRequest(path) for path in paths]
    features = views.features(requests)
    assert features.shape == (3, 3, 128)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3, 3))
    plain = clip.encoder.encode_images(clip.preprocess(Image.open(paths[1]))[None])
    torch.testing.assert_close(features[1, :1], plain, atol=1e-5, rtol=0)

    def never(*args):
        raise AssertionError("an image was read again")

    monkeypatch.setattr("hb_tta.tpt.views.load_image", never)
    assert torch.equal(ViewFeatures(clip, store, crops=2).features(requests), features)
    with pytest.raises(AssertionError):
        ViewFeatures(clip, store, crops=3).features(requests)


def test_a_missing_or_corrupt_image_is_a_sentence(clip, tmp_path):
    views = ViewFeatures(clip, MemoryStore())
    with pytest.raises(UserError, match="none.png"):
        views.features([ViewRequest(tmp_path / "none.png")])
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="bad.png"):
        views.features([ViewRequest(tmp_path / "bad.png")])
    assert image_identities([tmp_path / "bad.png"])[0].startswith("file:")


def test_generated_views_follow_the_real_one(clip):
    augmenter = Augmenter.from_pretrained("randaugment", family="pocket", store=False)
    views = ViewFeatures(clip, MemoryStore(), augmenter=augmenter, generated=3, crops=1)
    image = load_tasks("pocket_objects", limit=1)[0].images[0].image
    features = views.features([ViewRequest(image)])
    assert features.shape == (1, 5, 128)
    generated = augmenter(image, n=3)
    pixels = torch.stack([clip.preprocess(view) for view in generated])
    alone = clip.encoder.encode_images(pixels)
    torch.testing.assert_close(features[0, 2:], alone, atol=1e-5, rtol=0)


# ── Whole tasks ──────────────────────────────────────────────────────────────────────────────────


def test_labels_are_used_for_scoring_alone(clip):
    task = load_tasks("pocket_objects_r", limit=40)[0]
    views = ViewFeatures(clip, MemoryStore(), crops=3)
    settings = TptSettings(selection=0.5)
    result = evaluate_classification(task, views, settings, progress=False)
    assert list(result["methods"]) == ["zero-shot", "tpt", "average", "zero", "mta", "tda"]
    wrong = [image._replace(label=(image.label + 1) % 20) for image in task.images]
    other = type(task)(task.name, task.class_names, wrong, task.total)
    entries = len(views.store._entries)
    again = evaluate_classification(other, views, settings, progress=False)
    assert len(views.store._entries) == entries  # the same answers: no key knows a label
    for name, method in result["methods"].items():
        both = np.array(method["scores"]) + np.array(again["methods"][name]["scores"])
        assert both.max() <= 1
    streamed = result["methods"]["tda"]
    assert len(streamed["orders"]) == 3
    assert np.mean(streamed["orders"]) == pytest.approx(streamed["accuracy"]["estimate"])
    assert result["subset"] and (result["samples"], result["of"]) == (40, 500)
    tuned = result["methods"]["tpt"]
    assert tuned["accuracy"]["low"] <= tuned["accuracy"]["estimate"] <= tuned["accuracy"]["high"]
    assert tuned["accuracy"]["estimate"] > 0.3
    assert 0 <= tuned["ece"] <= 1


def test_a_stopped_run_resumes_where_it_was(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "IMAGES_PER_CHUNK", 4)
    task = load_tasks("pocket_objects", limit=12)[0]
    views = ViewFeatures(clip, Store(tmp_path / "store"), crops=1)
    calls = []
    answers = evaluate.classified

    def stop_at_the_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answers(*args)

    monkeypatch.setattr(evaluate, "classified", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate_classification(task, views, TptSettings(), progress=False)
    result = evaluate_classification(task, views, TptSettings(), progress=False)
    assert len(calls) == 4  # only the third chunk was answered again
    fresh = ViewFeatures(clip, MemoryStore(), crops=1)
    monkeypatch.setattr(evaluate, "classified", answers)
    assert evaluate_classification(task, fresh, TptSettings(), progress=False) == result


def test_few_shot_tasks_with_views_of_either_kind(clip):
    augmenter = Augmenter.from_pretrained("randaugment", family="pocket", store=False)
    task = load_tasks("pocket_hoi", limit=3)[0]
    views = ViewFeatures(clip, MemoryStore(), augmenter=augmenter, generated=2)
    found = {}
    for supports in (True, False):
        for queries in (True, False):
            settings = TptSettings(steps=4, support_views=supports, query_views=queries)
            result = evaluate_few_shot(task, views, settings, progress=False)
            assert list(result["methods"]) == ["tpt", "prototypes"]
            assert len(result["methods"]["tpt"]["scores"]) == 6
            assert result["methods"]["tpt"]["accuracy"]["n"] == 3  # resampled by task
            found[supports, queries] = result["methods"]["tpt"]["ece"]
    assert len(set(found.values())) == 4
    bare = ViewFeatures(clip, MemoryStore())
    plain = evaluate_few_shot(task, bare, TptSettings(steps=4), progress=False)
    assert plain["methods"]["tpt"]["ece"] == pytest.approx(found[False, False], abs=1e-4)


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    out = tmp_path / "out.json"
    line = ["tpt", "--task", "pocket_objects_r", "--limit", "8", "--augment", "none", "randaugment"]
    line += ["--family", "pocket", "-n", "2", "--crops", "2", "--quiet"]
    line += ["--out", str(out), "--html", str(tmp_path / "out.html")]
    line += ["--store", str(tmp_path / "store")]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "| tpt + randaugment |" in printed
    assert "each: 8 of 500 samples (a subset)" in printed
    results = json.loads(out.read_text())["results"]
    assert [result["augment"] for result in results] == ["none", "randaugment"]
    page = (tmp_path / "out.html").read_text()
    assert "<th scope=row>tpt + randaugment</th>" in page
    assert "http:" not in page and "https:" not in page
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page
    assert main(line) == 0
    assert capsys.readouterr().out == printed


def test_names_are_escaped_and_an_average_waits_for_all_tasks():
    def result(task, share):
        interval = {"estimate": share, "low": share, "high": share, "n": 4}
        gain = {"difference": -0.5, "p_value": 0.01}
        method = {"accuracy": interval, "ece": 0.1, "gain over zero-shot": gain}
        method["scores"] = [1] * int(4 * share) + [0] * (4 - int(4 * share))
        counts = {"samples": 4, "of": 4, "subset": False}
        return {"augment": "none", "task": task, "methods": {"tpt": method}, **counts}

    page = table.html([result("<script>", 0.25), result("b", 0.75)])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert '<small class="down sure">−50.0 <br>p=0.010</small>' in page
    text = table.markdown([result("a", 0.25), result("b", 0.75)])
    assert "| tpt + none | 25.0 [25.0, 25.0] ECE 10.0 | 75.0 [75.0, 75.0] ECE 10.0 | 50.0 [" in text
    other = result("a", 0.5) | {"augment": "randaugment"}
    halfway = table.markdown([result("a", 0.25), result("b", 0.75), other])
    assert halfway.splitlines()[3].endswith("ECE 10.0 |  |  |  |")


def test_the_average_weighs_tasks_alike_and_its_gain_is_over_the_same_samples():
    def result(task, augment, scores, samples):
        share = sum(scores) / len(scores)
        interval = {"estimate": share, "low": share, "high": share, "n": samples}
        method = {"accuracy": interval, "ece": 0.0, "scores": scores}
        counts = {"samples": samples, "of": samples, "subset": False}
        return {"augment": augment, "task": task, "methods": {"tpt": method}, **counts}

    results = [
        result("few", "none", [0, 0], 1),
        result("many", "none", [1] * 8, 4),
        result("few", "i2t2i", [1, 1], 1),
        result("many", "i2t2i", [1] * 6 + [0] * 2, 4),
    ]
    head, _, base, other, *_ = table.markdown(results).splitlines()
    assert head.endswith("| average | gain over tpt + none |")
    assert "| 50.0 [" in base and base.endswith("|  |")
    assert "| 87.5 [" in other and "| +37.5 [" in other


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--task", "pocket_objects", "--clip", "/nowhere/clip"], "/nowhere/clip"),
        (["--task", "pocket_objects", "--clip", "ViT-B-16:nobody"], "no model 'ViT-B-16'"),
        (["--task", "mnist"], "task 'mnist' is not known"),
        (["--task", "pocket_objects", "--augment", "magic"], "magic"),
        (["--task", "imagenet", "--data", "/nowhere"], "there is no folder"),
    ],
)
def test_mistakes_are_told_in_a_sentence(line, told, capsys):
    assert main(["tpt", "--limit", "2", "--quiet", "--family", "pocket", *line]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
