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
    answer_fidelity,
    bootstrap_interval,
    diversity,
    diversity_by_seeds,
    diversity_from_reference,
    expected_calibration_error,
    paired_test,
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


def test_diversity_from_the_reference_by_hand() -> None:
    references = [[0.0, 0.0], [1.0, 1.0]]
    views = [[[3.0, 4.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]
    assert diversity_from_reference(references, views).tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match="lengths do not match"):
        diversity_from_reference(references[:1], views)


def test_diversity_by_seeds_is_of_the_first_ones() -> None:
    views = np.random.default_rng(0).normal(size=(5, 30, 8))
    found = diversity_by_seeds(views, [10, 20, 30])
    assert list(found) == [10, 20, 30]
    assert found[20] == pytest.approx(diversity(views[:, :20]))
    with pytest.raises(ValueError, match="40 seeds are asked for, and there are 30"):
        diversity_by_seeds(views, [10, 40])


def test_fidelity_of_answers_by_hand() -> None:
    reference = [True, False, None, True]
    runs: list[list[bool | None]] = [[True, False], [False, False], [None, None], [None, True]]
    assert answer_fidelity(reference, runs).tolist() == [0.5, 1.0, 0.0, 0.5]
    with pytest.raises(ValueError, match="4 references, 1 generated"):
        answer_fidelity(reference, runs[:1])


def test_diversity_of_gaussian_features() -> None:
    """Two standard normal vectors of D dimensions are about √(2D) apart."""
    features = np.random.default_rng(0).normal(size=(40, 20, 512))
    assert diversity(features).mean() == pytest.approx(np.sqrt(2 * 512), rel=0.01)


def test_diversity_is_by_image() -> None:
    features = np.random.default_rng(0).normal(size=(5, 4, 8))
    far_apart = features + 100 * np.arange(5)[:, None, None]
    assert diversity(far_apart) == pytest.approx(diversity(features))
    assert diversity(features[:, ::-1]) == pytest.approx(diversity(features))


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────

ONE_ARRAY: list[Callable[[Any], Any]] = [
    bootstrap_interval,
    lambda values: paired_test(values, values),
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
        lambda: expected_calibration_error([0.5, 0.5], [1]),
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
        (lambda: expected_calibration_error([0.5], [0.5]), "1 .right. or 0"),
        (lambda: expected_calibration_error([1.5], [1]), "between 0 and 1"),
        (lambda: expected_calibration_error([0.5], [1], bins=0), "bins=0"),
        (lambda: diversity(np.zeros((3, 1, 4))), "two views"),
        (lambda: diversity(np.zeros((3, 4))), "dimensions"),
    ],
)
def test_values_out_of_range(act: Callable[[], Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        act()
