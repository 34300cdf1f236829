"""Distances between sets of images, and an oracle's answers about them (tables 4, 9 and 12)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.experiments import distance, features
from hb_tta.experiments.distance import fid, image_distances, kid
from hb_tta.experiments.features import ClipFeatures, Features, InceptionFeatures
from hb_tta.experiments.oracle import MllmOracle, ReaderOracle, oracle_fidelity
from hb_tta.families import get_family
from hb_tta.generators.jitter import JitterSpec
from hb_tta.metrics import bootstrap_interval
from hb_tta.pocket.tasks import pocket_mme

POCKET = get_family("pocket")
SAMPLES = list(pocket_mme("dev", category="color", limit=4))


# ── Features ─────────────────────────────────────────────────────────────────────────────────────


def test_features_are_the_clips_own_unnormalised(tmp_path: Path):
    clip = ClipFeatures.of_family(POCKET, "cpu")
    images = [sample.image for sample in SAMPLES]
    rows = clip.of(images, batch_size=3)
    assert rows.shape == (len(images), clip.num_features) and rows.dtype == np.float64
    assert not np.allclose(np.linalg.norm(rows, axis=1), 1)
    images[0].save(tmp_path / "0.png")
    np.testing.assert_allclose(clip.of([tmp_path / "0.png"])[0], rows[0], atol=1e-5)
    pixels = torch.rand(2, 3, clip.side, clip.side)
    assert clip(pixels).shape == (2, clip.num_features)  # as torchmetrics calls it


def test_torchmetrics_takes_the_module_itself():
    from torchmetrics.image.fid import FrechetInceptionDistance

    clip = ClipFeatures.of_family(POCKET, "cpu")
    metric = FrechetInceptionDistance(feature=clip)
    metric.update(torch.rand(4, 3, clip.side, clip.side), real=True)
    assert metric.real_features_sum.shape == (clip.num_features,)


def test_inception_is_read_without_a_pickle(tmp_path: Path, monkeypatch):
    with pytest.raises(UserError, match="the weights of FID's Inception are not at '.*none.pth'"):
        InceptionFeatures.load("cpu", tmp_path / "none.pth")
    evil = tmp_path / "evil.pth"
    torch.save({"weights": Path}, evil)
    with pytest.raises(UserError, match="evil.pth' is no file of weights"):
        InceptionFeatures.load("cpu", evil)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"needs torch-fidelity: pip install 'hb-tta\[reproduce\]'"):
        InceptionFeatures.load("cpu", evil)


# ── Distances ────────────────────────────────────────────────────────────────────────────────────


def two_sets(n: int = 60, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)), rng.normal(size=(n, 4)) * 1.5 + shift


def by_hand(real: np.ndarray, made: np.ndarray) -> float:
    """Heusel et al., equation 6."""
    cov = [np.cov(rows, rowvar=False) for rows in (real, made)]
    root = linalg.sqrtm(cov[0] @ cov[1])
    apart = real.mean(0) - made.mean(0)
    return float(apart @ apart + np.trace(cov[0] + cov[1] - 2 * np.real(root)))


def test_fid_is_the_papers_equation_with_an_interval_around_it():
    real, made = two_sets()
    found = fid(real, made, warn=False)
    assert found.estimate == pytest.approx(by_hand(real, made), rel=1e-6)
    assert found.low < found.estimate < found.high and found.n == 60
    assert fid(real, real, warn=False).estimate == pytest.approx(0, abs=1e-6)
    assert found == fid(real, made, warn=False)


def test_kid_is_the_unbiased_kernel_distance():
    real, made = two_sets()
    found = kid(real, made, warn=False)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n = len(real)
    within = sum(
        (kernel(x, x).sum() - np.trace(kernel(x, x))) / (n * (n - 1)) for x in (real, made)
    )
    assert found.estimate == pytest.approx(within - 2 * kernel(real, made).mean(), rel=1e-6)
    assert found.low < found.estimate < found.high


def test_the_interval_holds_the_distance_of_most_samples():
    """Of two normal distributions the distance is known; KID's estimate has no bias."""
    rng = np.random.default_rng(1)
    whole = kid(*two_sets(4000), warn=False).estimate
    held = 0
    for _ in range(12):
        rows = rng.normal(size=(80, 4)), rng.normal(size=(80, 4)) * 1.5 + 0.5
        found = kid(*rows, warn=False)
        held += found.low <= whole <= found.high
    assert held >= 9


def test_few_images_are_warned_of_and_wrong_ones_refused(monkeypatch):
    real, made = two_sets()
    with pytest.warns(HbTtaWarning, match="FID of 60 images is too large .* it takes 1000"):
        fid(real, made)
    with pytest.raises(UserError, match="3 images have no distance as a set"):
        fid(real[:3], made[:3])
    with pytest.raises(ValueError, match="give as many of each"):
        fid(real, made[:-1])
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UserError, match=r"need torchmetrics: pip install 'hb-tta\[reproduce\]'"):
        fid(real, made, warn=False)


def test_of_images_nearer_sets_have_smaller_distances():
    class Mean(Features):
        def __init__(self) -> None:
            super().__init__(lambda pixels: pixels.mean((2, 3)), 8, 3, "cpu")

    references = [sample.image for sample in pocket_mme("dev", category="color", limit=8)]
    near = [JitterSpec().change(image, 0) for image in references]
    far = [image.point(lambda value: value // 2) for image in references]
    with pytest.warns(HbTtaWarning):
        close, apart = (image_distances(Mean(), references, views) for views in (near, far))
    assert close.fid.estimate < apart.fid.estimate
    assert close.kid.estimate < apart.kid.estimate and apart.n == len(references)
    assert distance.FEWEST == 1000 and features.INCEPTION_SIDE == 299


# ── The oracle ───────────────────────────────────────────────────────────────────────────────────


class Told:
    """An oracle that answers from a list."""

    def __init__(self, *answers: list[bool | None], sampled: bool = False) -> None:
        self.sampled, self._answers, self.seeds = sampled, iter(answers), []

    def answers(self, images: Any, questions: Any, seed: int | None = None) -> list[bool | None]:
        self.seeds.append(seed)
        return next(self._answers)


def test_fidelity_is_of_yes_questions_no_questions_and_all():
    oracle = Told([True, False, True, None], [True, True, True, None])
    found = oracle_fidelity(
        oracle, "abcd", "abcd", "abcd", [True, True, False, False], groups=[0, 0, 1, 1]
    )
    assert found.yes and found.no
    assert (found.yes.estimate, found.no.estimate, found.overall.estimate) == (0.5, 0.5, 0.5)
    assert found.overall == bootstrap_interval([1, 0, 1, 0], groups=[0, 0, 1, 1])
    assert found.runs == 1 and found.overall.n == 2


def test_a_sampled_oracle_is_asked_several_times():
    right = [True, False]
    oracle = Told(right, right, right, [True, True], [False, False], right, sampled=True)
    found = oracle_fidelity(oracle, "ab", "ab", "ab", [True, True], runs=3)
    assert found.runs == 3 and found.no is None
    assert found.overall.estimate == pytest.approx((1 + 1 + 0.5 + 0.5 + 0 + 1) / 6)
    seeds = oracle.seeds
    assert seeds[:2] == [None, None] and len(set(seeds[2:])) == 4
    with pytest.raises(UserError, match="runs=0"):
        oracle_fidelity(oracle, "ab", "ab", "ab", [True, True], runs=0)


def test_the_reader_answers_its_worlds_questions():
    oracle = ReaderOracle(POCKET.weights("reader"))
    images = [sample.image for sample in SAMPLES]
    questions = [sample.question for sample in SAMPLES]
    truths = [sample.answer == "Yes" for sample in SAMPLES]
    assert set(truths) == {True, False}
    said = oracle.answers(images, questions)
    assert sum(a == b for a, b in zip(said, truths, strict=True)) >= len(truths) - 1
    same = oracle_fidelity(oracle, images, images, questions, truths, runs=5)
    assert same.runs == 1 and same.overall.estimate == 1.0


def test_any_chat_model_is_an_oracle():
    oracle = MllmOracle(POCKET.weights("mllm"), device="cpu")
    images = [sample.image for sample in SAMPLES[:2]]
    questions = [sample.question for sample in SAMPLES[:2]]
    first, again = (oracle.answers(images, questions) for _ in range(2))
    assert first == again and set(first) <= {True, False}
    sampled = oracle.answers(images, questions, seed=1)
    assert sampled == oracle.answers(images, questions, seed=1)
