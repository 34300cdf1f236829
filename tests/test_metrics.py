"""Metrics against closed forms, against simulation, and against what must not matter."""

import itertools
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hb_tta.metrics import (
    accuracy,
    accuracy_plus,
    bootstrap_interval,
    diversity,
    expected_calibration_error,
    frechet_distance,
    oracle_fidelity,
    paired_test,
    reference_distance,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


# ── Bootstrap ────────────────────────────────────────────────────────────────────────────────────


def test_interval_is_the_textbook_one_for_many_units() -> None:
    """For a mean the bootstrap's spread tends to the standard error."""
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03 * half)
    assert interval.n == 2000


def test_interval_of_two_values_is_their_four_draws() -> None:
    """0 and 1 are drawn as 00, 01, 10, 11: the mean is 0, ½, ½, 1."""
    interval = bootstrap_interval([0, 1], confidence=0.4)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)
    interval = bootstrap_interval([0, 1], confidence=0.6)
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["alone", "in pairs"])
def test_intervals_cover_the_truth_as_often_as_they_say(spread: float) -> None:
    """Questions of one image share a part of their score; images are what is resampled."""
    rng = np.random.default_rng(0)
    covered, runs, images = 0, 600, 60
    for run in range(runs):
        shared = np.repeat(rng.normal(0.0, spread, images), 2)
        values = shared + rng.normal(size=2 * images)
        groups = np.repeat(np.arange(images), 2) if spread else None
        interval = bootstrap_interval(values, groups=groups, resamples=400, seed=run)
        covered += interval.low <= 0.0 <= interval.high
    assert 0.92 <= covered / runs <= 0.97  # 0.95 less what 60 units cost, ± 2.5 of its deviations


def test_ignoring_the_images_makes_intervals_too_narrow() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=200), 5)
    alone = bootstrap_interval(values)
    grouped = bootstrap_interval(values, groups=np.repeat(np.arange(200), 5))
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(5), rel=0.05)
    assert (alone.n, grouped.n) == (1000, 200)


def test_groups_of_one_are_no_groups() -> None:
    values = np.random.default_rng(0).normal(size=50)
    ranked = np.argsort(np.argsort(values))  # in the order that units are drawn in
    assert bootstrap_interval(values, groups=ranked) == bootstrap_interval(values)


def test_a_statistic_of_ones_own_agrees_with_the_quick_mean() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=300), rng.integers(80, size=300)
    quick = bootstrap_interval(values, groups=groups)
    slow = bootstrap_interval(values, groups=groups, statistic=lambda drawn: float(drawn.mean()))
    assert slow.estimate == pytest.approx(quick.estimate)
    width = quick.high - quick.low
    assert slow.low == pytest.approx(quick.low, abs=0.05 * width)
    assert slow.high == pytest.approx(quick.high, abs=0.05 * width)


def test_a_statistic_sees_whole_groups() -> None:
    values, groups = np.array([1.0, 2, 3, 10, 20, 30]), np.array(list("aaabbb"))
    seen: set[tuple[float, ...]] = set()

    def collect(drawn: np.ndarray) -> float:
        seen.add(tuple(sorted(drawn)))
        return 0.0

    bootstrap_interval(values, groups=groups, statistic=collect, resamples=50)
    assert seen == {(1, 1, 2, 2, 3, 3), (1, 2, 3, 10, 20, 30), (10, 10, 20, 20, 30, 30)}


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 5)), min_size=1), st.randoms())
def test_order_does_not_matter(rows: list[tuple[float, float, int]], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)

    def results(rows: list[tuple[float, float, int]]) -> list[Any]:
        a, b, groups = map(list, zip(*rows, strict=True))
        quick: dict[str, Any] = {"resamples": 50}
        return [
            bootstrap_interval(a, **quick),
            bootstrap_interval(a, groups=groups, **quick),
            bootstrap_interval(a, groups=groups, statistic=np.median, **quick),
            paired_test(a, b, **quick),
            paired_test(a, b, groups=groups, **quick),
        ]

    assert results(shuffled) == results(rows)


def test_the_seed_is_what_is_random() -> None:
    values = np.random.default_rng(0).normal(size=100)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=30), st.floats(0.5, 0.99))
def test_an_interval_lies_within_the_data(values: list[float], confidence: float) -> None:
    interval = bootstrap_interval(values, confidence=confidence, resamples=100)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval.n == len(values)


def test_one_unit_says_how_little_it_knows() -> None:
    interval = bootstrap_interval([1, 0, 1], groups=["image"] * 3)
    assert interval.n == 1 and interval.low == interval.high == pytest.approx(2 / 3)


def test_thousands_of_images_take_a_second_and_little_memory() -> None:
    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(2, 5000))
    groups = rng.integers(5000, size=5000)
    seconds = []
    for _ in range(3):  # the quickest of three: other work on the machine is not ours
        begun = time.process_time()
        bootstrap_interval(values, groups=groups)
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 1.0
    tracemalloc.start()
    paired_test(values, other, groups=groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


# ── Paired test ──────────────────────────────────────────────────────────────────────────────────


def enumerated(differences: list[float]) -> float:
    """The p-value by trying every sign."""
    observed = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    moved = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(move >= observed - 1e-9 for move in moved) / len(moved)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_few_images_are_enumerated(differences: list[int]) -> None:
    test = paired_test(differences, [0] * len(differences))
    assert test.p_value == pytest.approx(enumerated([float(d) for d in differences]))
    assert test.difference == pytest.approx(np.mean(differences))


def test_the_smallest_p_value_is_that_of_all_signs_alike() -> None:
    assert paired_test([1] * 10, [0] * 10).p_value == 2 / 2**10
    assert paired_test([1] * 100, [0] * 100).p_value == 1 / 10_001
    assert paired_test([1] * 100, [0] * 100, resamples=99).p_value == 1 / 100


def test_sampled_p_value_tends_to_the_enumerated_one() -> None:
    differences = np.random.default_rng(3).normal(0.4, 1.0, size=12)
    exact = paired_test(differences, np.zeros(12)).p_value
    sampled = paired_test(differences, np.zeros(12), resamples=4000).p_value
    assert exact == pytest.approx(enumerated(list(differences)))
    assert exact != sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_images_that_do_not_differ_do_not_count_for_the_p_value() -> None:
    alone = paired_test([1, 1, 1, 0], [0, 0, 0, 1])
    diluted = paired_test([1, 1, 1, 0] + [1] * 500, [0, 0, 0, 1] + [1] * 500)
    assert alone.p_value == diluted.p_value == enumerated([1, 1, 1, -1])
    assert diluted.difference == pytest.approx(2 / 504)


def test_no_difference_at_all() -> None:
    test = paired_test([1, 0, 1], [1, 0, 1])
    assert (test.difference, test.low, test.high, test.p_value, test.n) == (0, 0, 0, 1, 3)


@pytest.mark.parametrize("images", [9, 40], ids=["enumerated", "sampled"])
def test_p_values_are_uniform_where_methods_are_the_same(images: int) -> None:
    """Kolmogorov and Smirnov's bound at one in a thousand; questions in pairs of an image."""
    rng = np.random.default_rng(0)
    groups, runs = np.repeat(np.arange(images), 2), 500
    p_values = []
    for run in range(runs):
        image = np.repeat(rng.normal(size=images), 2)
        a, b = image + rng.normal(size=(2, 2 * images))
        p_values.append(paired_test(a, b, groups=groups, resamples=999, seed=run).p_value)
    uniform = (np.arange(runs) + 0.5) / runs
    assert np.abs(np.sort(p_values) - uniform).max() < 1.95 / np.sqrt(runs) + 1 / 2**images


def test_a_real_difference_is_found_and_signed() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=200)
    test = paired_test(image + 0.3 + 0.5 * rng.normal(size=200), image)
    assert test.p_value < 0.001 and 0 < test.low < 0.3 < test.high
    turned = paired_test(image, image + 0.3)
    assert turned.difference == pytest.approx(-0.3) and turned.high < 0


def test_swapping_the_methods_turns_the_sign_alone() -> None:
    a, b = np.random.default_rng(1).integers(2, size=(2, 8))
    there, back = paired_test(a, b), paired_test(b, a)
    assert there.difference == -back.difference
    assert there.p_value == back.p_value


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1)


def test_accuracies_by_hand() -> None:
    scores = [1, 1, 1, 0, 0, 0, 1, 1]
    ids = ["a", "b", "a", "b", "c", "c", "d", "d"]
    assert accuracy(scores) == 5 / 8
    assert accuracy_plus(scores, ids) == 2 / 4


@settings(deadline=None)
@given(pairs, st.randoms())
def test_accuracy_plus_is_at_most_accuracy(rows: list[tuple[bool, bool]], random: Any) -> None:
    questions = [(score, place) for place, pair in enumerate(rows) for score in pair]
    random.shuffle(questions)
    scores, ids = map(list, zip(*questions, strict=True))
    both = accuracy_plus(scores, ids)
    assert both == np.mean([one and other for one, other in rows])
    # Each image right on both adds 1 to both; one right of two adds ½ to accuracy alone.
    assert max(0.0, 2 * accuracy(scores) - 1) - 1e-12 <= both <= accuracy(scores) + 1e-12


@pytest.mark.parametrize(("ids", "times"), [(["a", "a", "b"], 1), (["a"] * 3, 3)])
def test_accuracy_plus_wants_pairs(ids: list[str], times: int) -> None:
    with pytest.raises(ValueError, match=f"stands {times} times"):
        accuracy_plus([1, 1, 1], ids)


def test_oracle_fidelity_by_hand() -> None:
    fidelity = oracle_fidelity(
        ["Yes", "no", "yes ", "no", "no"],
        ["yes", "no", "no", "yes", "unsure"],
        ["yes", "no", "yes", "no", "no"],
    )
    assert fidelity.yes.estimate == 1 / 2
    assert fidelity.no.estimate == pytest.approx(1 / 3)
    assert fidelity.overall.estimate == 2 / 5
    assert [fidelity.yes.n, fidelity.no.n, fidelity.overall.n] == [2, 3, 5]


def test_oracle_fidelity_is_about_agreement_not_about_truth() -> None:
    wrong = oracle_fidelity(["no", "yes"] * 9, ["no", "yes"] * 9, ["yes", "no"] * 9)
    assert wrong.overall.estimate == wrong.overall.low == 1.0
    images = np.repeat(np.arange(9), 2)
    grouped = oracle_fidelity(["no"] * 18, ["no"] * 18, ["yes", "no"] * 9, groups=images)
    assert [grouped.yes.n, grouped.no.n, grouped.overall.n] == [9, 9, 9]


@pytest.mark.parametrize("labels", [["yes", "yes"], ["yes", "maybe"], ["a", "b"]])
def test_oracle_fidelity_wants_yes_and_no(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="'yes' and 'no'"):
        oracle_fidelity(["yes", "no"], ["yes", "no"], labels)


def test_calibration_by_hand() -> None:
    # Bins of width ½: {0.25, 0.5} with one right of two, {0.75, 1.0} with both right.
    error = expected_calibration_error([0.25, 0.5, 0.75, 1.0], [0, 1, 1, 1], bins=2)
    assert error == pytest.approx(0.5 * abs(0.5 - 0.375) + 0.5 * abs(1.0 - 0.875))
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0
    assert expected_calibration_error([1.0, 1.0], [0, 0]) == 1


def test_calibration_tends_to_zero_for_calibrated_answers() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=200_000)
    correct = rng.uniform(size=200_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.01
    sure = np.minimum(confidence + 0.2, 1)
    assert expected_calibration_error(sure, correct) == pytest.approx(0.18, abs=0.01)


# ── Images ───────────────────────────────────────────────────────────────────────────────────────


def test_diversity_by_hand() -> None:
    triangle = [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]  # sides 3, 4 and 5
    same = [[1.0, 1.0]] * 3
    assert diversity([triangle, same]).tolist() == [4.0, 0.0]
    assert reference_distance([[0.0, 0.0], [1.0, 0.0]], [triangle, same]).tolist() == [7 / 3, 1.0]


def test_diversity_of_gaussian_features() -> None:
    """Two standard normal vectors of D dimensions are about √(2D) apart."""
    features = np.random.default_rng(0).normal(size=(40, 20, 512))
    assert diversity(features).mean() == pytest.approx(np.sqrt(2 * 512), rel=0.01)
    zeros = np.zeros((40, 512))
    assert reference_distance(zeros, features).mean() == pytest.approx(np.sqrt(512), rel=0.01)


def test_diversity_is_by_image() -> None:
    features = np.random.default_rng(0).normal(size=(5, 4, 8))
    far_apart = features + 100 * np.arange(5)[:, None, None]
    assert diversity(far_apart) == pytest.approx(diversity(features))
    assert diversity(features[:, ::-1]) == pytest.approx(diversity(features))


def gaussian(mean: np.ndarray, root: np.ndarray, count: int) -> np.ndarray:
    """Features whose mean and covariance (rootᵀ root) are exact, not just expected."""
    noise = np.random.default_rng(0).normal(size=(count, len(root)))
    noise -= noise.mean(axis=0)
    left, _, right = np.linalg.svd(noise, full_matrices=False)
    return mean + np.sqrt(count - 1) * (left @ right) @ root


def test_frechet_distance_of_one_dimension() -> None:
    """(μ − ν)² + (σ − τ)²."""
    a = gaussian(np.array([1.0]), np.array([[2.0]]), 50)
    b = gaussian(np.array([4.0]), np.array([[3.5]]), 80)
    assert frechet_distance(a, b) == pytest.approx(9 + 1.5**2)


def test_frechet_distance_of_covariances_that_commute() -> None:
    """‖μ − ν‖² + Σ (√λ − √κ)² for eigenvalues λ, κ on the same axes."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    one, other = rng.uniform(0, 3, size=(2, 6))
    mean = rng.normal(size=6)
    a = gaussian(mean, np.diag(one) @ axes.T, 200)
    b = gaussian(np.zeros(6), np.diag(other) @ axes.T, 300)
    expected = mean @ mean + ((one - other) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    """In two dimensions the trace of the root is √(tr CaCb + 2 √det CaCb)."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 2)), rng.normal(size=(50, 2))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    product = cov_a @ cov_b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("images", [2, 5, 400])
def test_frechet_distance_of_few_images_and_of_flat_features(images: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(images, 64))
    features[:, 32:] = 0
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 2) == pytest.approx(4 * 64)
    assert frechet_distance(features, 3 * features) == pytest.approx(
        4 * (features.mean(0) @ features.mean(0) + np.trace(np.cov(features.T)))
    )
    # Of rank one against rank one the roots are vectors: √(uᵀu) √(vᵀv) |cos| is their product.
    line = np.array([[-1.0], [1.0]]) / np.sqrt(2)
    u, v = rng.normal(size=(2, 64))
    expected = u @ u + v @ v - 2 * abs(u @ v)
    assert frechet_distance(line * u, line * v) == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))
def test_frechet_distance_is_symmetric_turns_and_is_never_negative(
    seed: int, images_a: int, images_b: int, dimensions: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(images_a, dimensions)), rng.normal(size=(images_b, dimensions))
    turn = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    distance = frechet_distance(a, b)
    assert distance >= 0
    for same in ((b, a), (a @ turn, b @ turn), (a + 5, b + 5), (a[::-1], b)):
        assert frechet_distance(*same) == pytest.approx(distance, abs=1e-9)


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────

ONE_ARRAY: list[Callable[[Any], Any]] = [
    bootstrap_interval,
    accuracy,
    lambda values: paired_test(values, values),
    lambda values: accuracy_plus(values, range(len(values))),
    lambda values: expected_calibration_error(values, values),
    lambda values: expected_calibration_error([0.5], values),
]


@pytest.mark.parametrize("metric", ONE_ARRAY)
@pytest.mark.parametrize("values", [[], [np.nan], [np.inf], [[1.0]], 3.0])
def test_empty_and_not_numbers(metric: Callable[[Any], Any], values: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        metric(values)


@pytest.mark.parametrize(
    "act",
    [
        lambda: bootstrap_interval([1, 2], groups=[1]),
        lambda: paired_test([1, 2], [1]),
        lambda: paired_test([1, 2], [1, 2], groups=[1]),
        lambda: accuracy_plus([1, 1], ["a"]),
        lambda: oracle_fidelity(["yes"], ["yes", "no"], ["yes", "no"]),
        lambda: oracle_fidelity(["yes", "no"], ["yes", "no"], ["yes", "no"], groups=[1]),
        lambda: expected_calibration_error([0.5, 0.5], [1]),
        lambda: reference_distance(np.zeros((2, 3)), np.zeros((3, 4, 3))),
        lambda: reference_distance(np.zeros((2, 3)), np.zeros((2, 4, 5))),
        lambda: frechet_distance(np.zeros((4, 3)), np.zeros((4, 2))),
    ],
)
def test_lengths_that_do_not_match(act: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="match|compare"):
        act()


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda: bootstrap_interval([1.0], confidence=1.0), "confidence=1.0"),
        (lambda: bootstrap_interval([1.0], resamples=0), "resamples=0"),
        (lambda: accuracy([0.5]), "1 .right. or 0"),
        (lambda: accuracy_plus([2, 0], ["a", "a"]), "1 .right. or 0"),
        (lambda: expected_calibration_error([1.5], [1]), "between 0 and 1"),
        (lambda: expected_calibration_error([0.5], [1], bins=0), "bins=0"),
        (lambda: diversity(np.zeros((3, 1, 4))), "two views"),
        (lambda: diversity(np.zeros((3, 4))), "dimensions"),
        (lambda: frechet_distance(np.zeros((1, 4)), np.zeros((5, 4))), "two images"),
    ],
)
def test_values_out_of_range(act: Callable[[], Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        act()
