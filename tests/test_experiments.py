"""Experiments: what a plan keeps, and tables of their results. Their models run in `make soak`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hb_tta.experiments import ablation, pocket_mme
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.metrics import bootstrap_interval, paired_test
from hb_tta.pocket.tasks import CATEGORIES
from hb_tta.report import Record, Run
from hb_tta.report.cells import from_json, written


def test_a_plan_is_carried_out_in_order_with_all_results_so_far():
    done = []
    plan = [PlannedRun(name, lambda name=name: done.append(name) or name.upper()) for name in "ab"]
    seen = [dict(results) for results in carry_out(plan)]
    assert done == ["a", "b"]
    assert seen == [{"a": "A"}, {"a": "A", "b": "B"}]


def test_a_result_is_made_once_for_each_setting(tmp_path):
    made = []

    def make() -> dict:
        made.append(1)
        return {"figure": len(made)}

    path = tmp_path / "a.json"
    assert kept(path, {"images": 2}, make) == kept(path, {"images": 2}, make) == {"figure": 1}
    assert kept(path, {"images": 3}, make) == {"figure": 2}


# ── Reward tuning ────────────────────────────────────────────────────────────────────────────────


def figures(share: float, spread: float, images: int = 40) -> dict:
    rng = np.random.default_rng(round(1000 * share))
    fidelity = {c: (rng.random(2 * images) < share).astype(float).tolist() for c in CATEGORIES}
    spreads = {"clip": [spread, 2 * spread], "scene": [0.0, float("nan")]}
    return {"fidelity": fidelity, "diversity": spreads}


def test_tables_of_the_ablation(tmp_path):
    found = {"none": figures(0.8, 1.0), "both": figures(0.9, 0.5)}
    text = write_tables(tmp_path / "table.dev.md", ablation.tables(found))
    fidelity, diversity = (
        from_json(t) for t in json.loads((tmp_path / "table.dev.json").read_text())
    )
    assert (tmp_path / "table.dev.md").read_text() == text
    before, after = (
        np.concatenate([found[arm]["fidelity"][c] for c in CATEGORIES]) for arm in ("none", "both")
    )
    groups = np.arange(len(before)) // 2
    average, closed = fidelity.rows[1][-2:]
    expected = bootstrap_interval(after, groups=groups)
    assert (average.estimate, average.low, average.high) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    test = paired_test(after, before, groups=groups)
    assert closed.estimate == pytest.approx(test.difference / (1 - before.mean()))
    assert closed.test.p_value == test.p_value
    assert fidelity.rows[0][-1] == "–"
    assert "40 images a category" in fidelity.title
    assert [written(v) for v in diversity.rows[1]] == ["both", "50.0 [50.0, 50.0]", "–"]


# ── pocket_mme ───────────────────────────────────────────────────────────────────────────────────


def test_comparisons_of_the_arms_of_pocket_mme():
    names = {name for pair in pocket_mme.COMPARISONS for name in pair}

    def run(name: str, right: bool) -> Run:
        records = [
            Record(f"{c}{n}", f"{c}/{n // 2}", c, float(right or n == 0))
            for c in CATEGORIES
            for n in range(8)
        ]
        return Run(name, records)

    runs = {name: run(name, name == "ceiling") for name in names}
    one_part = ["ordinary"] * 8 * len(CATEGORIES)
    tests = pocket_mme.comparisons(runs, one_part)
    assert len(tests) == len(pocket_mme.COMPARISONS) * (1 + len(CATEGORIES))
    # The first question of each category is right in every run: one image of four is worn.
    parts = ["worn", "worn", *["held-out"] * 6] * len(CATEGORIES)
    by_part = {
        about["of"]: test.difference
        for about, test in pocket_mme.comparisons(runs, parts)
        if (about["first"], about["second"]) == ("ceiling", "hummingbird")
    }
    assert list(by_part) == ["all", *CATEGORIES, "held-out", "worn"]
    assert (by_part["worn"], by_part["held-out"]) == (0.5, 1.0)
    table = pocket_mme.comparison_table(tests)
    rows = {(row[0], row[1]): written(row[2]) for row in table.rows}
    assert rows["hummingbird − i2t2i", "all"] == "0.0 [0.0, 0.0], p=1.000"
    assert rows["ceiling − hummingbird", "all"].startswith("+87.5 [")
