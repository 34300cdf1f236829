"""The report of tasks of every kind of metric, evaluated by lmms-eval itself: its own figures.

The tasks are another package's: tests/metric_tasks, by lmms-eval's ``--include_path``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import chromium
import pytest
from lmms_eval_runs import evaluate_into
from test_report_page import choose, shown

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

import lmms_eval.models as upstream
from lmms_eval.api.metrics import clustered_stderr, paired_ttest, power_analysis
from lmms_eval.evaluator_utils import compute_baseline_comparison

from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.metrics import paired_test
from hb_tta.report import page, score, table
from hb_tta.report.t_test import clustered_error, paired_t_test
from hb_tta.store import Store

TASKS = Path(__file__).parent / "metric_tasks"
GENERATED = ("exact", "relaxed", "anls", "letters", "pairs", "rated")
METRICS = {
    "exact": ["exact_match (strict)", "exact_match (first-letter)"],
    "relaxed": ["relaxed_overall", "relaxed_human_split", "relaxed_augmented_split"],
    "anls": ["anls"],
    "letters": ["average", "left half", "right half"],
    "pairs": ["letters_acc"],
    "choice": ["acc", "acc_norm"],
    "rated": ["rating", "distance"],
    "scored": ["flag_score"],
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Runs of all tasks without and with the plugin, and what lmms-eval says of each."""
    work = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(upstream.AVAILABLE_SIMPLE_MODELS, "guesses", "lmms_eval_texts.Guesses")
        views = f"family=pocket,n=2,seeds=fixed,store={work / 'store'}"
        own = {}
        for part, names, more in (
            ("generated", GENERATED, ",combine=vote"),
            ("choice", ["choice"], ""),
            ("scored", ["scored"], ",combine=vote"),
        ):
            tasks = [f"flags_{name}" for name in names]
            for run, flags in {"plain": {}, "randaugment": {"augment": "randaugment"}}.items():
                if flags:
                    flags |= {"augment_args": views + more}
                if flags and part == "scored":
                    (baseline,) = (work / part / "plain").rglob("*_samples_*.jsonl")
                    flags |= {"baseline": str(baseline)}
                own[part, run] = evaluate_into(
                    work / part / run,
                    TASKS,
                    date="20260101_000000",
                    model="guesses",
                    model_args="pretrained=guesses",
                    task=tasks,
                    **flags,
                )["results"]
    return work, own


def part_of(name: str) -> str:
    return "generated" if name in GENERATED else name


def scored_of(evaluated, name: str):
    work, _ = evaluated
    folders = [str(work / part_of(name) / run) for run in ("plain", "randaugment")]
    task, runs = read_runs(folders, task=f"flags_{name}", store=str(work / "store"))
    assert [run.name for run in runs] == ["plain", "randaugment"]
    return task, score(runs)


def lines_of(evaluated, name: str, run: str) -> list[dict]:
    work, _ = evaluated
    (path,) = (work / part_of(name) / run).rglob(f"*_samples_flags_{name}.jsonl")
    return list(map(json.loads, path.read_text().splitlines()))


@pytest.mark.parametrize("name", METRICS)
def test_the_figures_are_lmms_evals_own_to_the_last_digit(evaluated, name):
    """Every metric of every task; its mean, and its standard errors where lmms-eval has them."""
    _, own = evaluated
    task, scored = scored_of(evaluated, name)
    told = table.to_json(task, scored)
    for one in told["runs"]:
        assert list(one["metrics"]) == METRICS[name]
        theirs = own[part_of(name), one["name"]][task]
        for metric, found in one["metrics"].items():
            base, _, filtered = metric.partition(" (")
            key = filtered.rstrip(")") or "none"
            figure = theirs[f"{base},{key}"]
            assert found["own"] == figure
            if name in ("letters", "pairs"):  # their own sums go another way
                scale = 100 if name == "pairs" else 1
                assert scale * found["score"] == pytest.approx(figure, rel=1e-15)
            else:
                assert found["score"] == figure
            clt = theirs[f"{base}_stderr_clt,{key}"]
            if clt != "N/A":
                assert found["standard_error"] == clt
            clustered = theirs[f"{base}_stderr_clustered,{key}"]
            assert (clustered != "N/A") == (name == "rated")
            if clustered != "N/A":
                assert found["clustered_standard_error"] == clustered
    assert told["cluster"] == ("flag" if name == "rated" else "image")


@pytest.mark.parametrize("name", METRICS)
def test_questions_of_an_image_are_a_unit(evaluated, name):
    _, scored = scored_of(evaluated, name)
    total = scored[1].total
    assert (total.questions, total.images, total.acc.n) == (24, 12, 12)
    records = scored[1].run.records
    values = [record.value(total.metric) for record in records]
    assert total.clustered == clustered_stderr(values, [record.group for record in records])
    assert len({record.group for record in records}) == 12
    before = [record.value(total.metric) for record in scored[0].run.records]
    found = paired_test(values, before, groups=[record.group for record in records])
    assert total.change is not None and total.change.acc == found


def test_the_comparison_is_that_of_lmms_evals_baseline(evaluated):
    """The same evaluation, run with lmms-eval's own --baseline."""
    _, own = evaluated
    theirs = own["scored", "randaugment"]["flags_scored"]
    task, scored = scored_of(evaluated, "scored")
    _, augmented = table.to_json(task, scored)["runs"]
    found = augmented["metrics"]["flag_score"]["against_plain"]["t_test"]
    assert found["difference"] != 0
    assert found["low"] * 100 == theirs["paired_ci_lower"]
    assert found["high"] * 100 == theirs["paired_ci_upper"]
    assert found["p_value"] == theirs["paired_pvalue"]
    assert scored[0].total.acc.estimate * 100 == theirs["paired_baseline_score"]


@pytest.mark.parametrize("name", METRICS)
def test_t_tests_are_lmms_evals(evaluated, name):
    _, (plain, augmented) = scored_of(evaluated, name)
    for part, its in augmented.scores.items():
        values = [
            [record.value(its.metric) for record in one.run.records
             if its.category in (record.category, "all") and record.value(its.metric) is not None]
            for one in (augmented, plain)
        ]  # fmt: skip
        theirs = compute_baseline_comparison(*values, "plain")
        assert its.change is not None and its.change.t_test is not None, part
        mine = its.change.t_test
        assert (mine.difference, mine.error) == (theirs["mean_diff"], theirs["se_diff"])
        assert (mine.low, mine.high) == (theirs["ci_lower"], theirs["ci_upper"])
        assert (mine.t, mine.p_value, mine.n) == (
            theirs["t_stat"], theirs["p_value"], theirs["n"]
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_errors_and_tests_of_any_numbers_are_lmms_evals(seed):
    import random

    chance = random.Random(seed)
    n = chance.randint(2, 60)
    a = [chance.choice([0, 1, 0.3, chance.random()]) for _ in range(n)]
    b = [chance.choice([0, 1, 0.6]) for _ in range(n)]
    groups = [0, 1] + [chance.randint(0, n // 2) for _ in range(n - 2)]
    assert clustered_error(a, groups) == clustered_stderr(a, groups)
    mine, theirs = paired_t_test(a, b), paired_ttest(a, b)
    assert mine is not None
    assert [mine.difference, mine.error, mine.low, mine.high, mine.t, mine.p_value, mine.n] == [
        theirs[name]
        for name in ("mean_diff", "se_diff", "ci_lower", "ci_upper", "t_stat", "p_value", "n")
    ]


def test_what_the_sample_could_have_shown_is_lmms_evals_power_analysis():
    """Its minimal detectable effect, which it rounds to four digits, of questions of their own."""
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.random(400), rng.random(400)
    theirs = power_analysis(
        effect_size=0.1,
        std_a=float(a.std(ddof=1)),
        std_b=float(b.std(ddof=1)),
        correlation=float(np.corrcoef(a, b)[0, 1]),
        current_n=400,
    )["min_detectable_effect"]
    assert paired_test(a, b).could_have_shown == pytest.approx(theirs, rel=0.03)
    assert paired_test(a, a).could_have_shown is None


def test_categories_and_metrics_of_some_questions(evaluated):
    _, (plain, _) = scored_of(evaluated, "letters")
    parts = ["average", "average, left", "average, right", "left half", "right half"]
    assert list(plain.scores) == parts
    assert [its.questions for its in plain.scores.values()] == [24, 12, 12, 12, 12]
    assert plain.scores["average, left"].acc == plain.scores["left half"].acc


def test_what_has_no_number_is_named(evaluated):
    task, scored = scored_of(evaluated, "pairs")
    assert scored[0].run.without == ["submission"]
    text = " ".join(table.text(task, scored).split())
    assert "No number a question, so not compared: submission." in text


def test_of_a_graded_metric_there_is_better_and_worse(evaluated):
    task, scored = scored_of(evaluated, "rated")
    rating, distance = scored[1].run.metrics
    assert (rating.kind, rating.lower_is_better) == ("fine", False)
    assert (distance.kind, distance.lower_is_better) == ("percent", True)
    change = scored[1].scores["distance"].change
    assert change is not None
    before = {r.question: r.value(distance) for r in scored[0].run.records}
    nearer = sum(r.value(distance) < before[r.question] for r in scored[1].run.records)
    assert change.fixed == nearer > 0
    text = " ".join(table.text(task, scored).split())
    assert f"{change.fixed} better, {change.broken} worse" in text
    assert "could have shown" in text


@pytest.mark.parametrize("name", METRICS)
def test_the_page(evaluated, name):
    """Every image is found; what is shown of an answer is what lmms-eval wrote."""
    work, _ = evaluated
    task, scored = scored_of(evaluated, name)
    made = page.render(task, scored, store=Store(work / "store"))
    images = 2 if name == "rated" else 1
    assert (made.questions, made.missing) == (24, {})
    assert made.html.count('<img class="view"') == 24 * 3 * images
    assert made.html.count("could have shown") >= len(METRICS[name])
    if name in ("letters", "pairs", "choice"):
        assert made.html.count("<li class=right>") == 24


def test_choices_by_likelihood(evaluated):
    """Their texts are known from the plugin's run; the least loss is chosen, by each view, too."""
    _, scored = scored_of(evaluated, "choice")
    for one, run in zip(scored, ("plain", "randaugment"), strict=True):
        for record, line in zip(one.run.records, lines_of(evaluated, "choice", run), strict=True):
            assert list(record.options) == ["red", "green", "blue"]
            assert record.target == record.options[int(line["target"])]
            assert (record.answer == record.target) == (line["acc"] == 1)
    seen = scored[1].run.records[0].seen
    assert [one.label for one in seen] == ["real", "seed 0", "seed 1"]
    assert {one.answer for one in seen} <= {"red", "green", "blue"}


def test_results_without_anything_beside_them(evaluated, tmp_path):
    """A samples file alone: its numbers, and each question a unit of its own."""
    lines = lines_of(evaluated, "anls", "plain")
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    task, runs = read_runs([str(tmp_path / "samples.jsonl")])
    (found,) = score(runs)
    assert task == "samples"
    assert found.total.acc.estimate == scored_of(evaluated, "anls")[1][0].total.acc.estimate
    assert (found.run.unit, found.total.images) == ("question", 24)
    assert "do not tell which questions share an image" in table.text(task, [found])


def test_a_figure_that_is_no_mean_is_told_apart(evaluated):
    """A task's own aggregation may be another than the mean: bleu, F1, a mean over categories."""
    work, _ = evaluated
    task, runs = read_runs([str(work / "generated" / "plain")], task="flags_letters")
    (found,) = score(runs)
    assert "own figure" not in table.text(task, [found])
    object.__setattr__(found.run, "own", {"average": 0.9})
    text = " ".join(table.text(task, [found]).split())
    assert "plain: the task's own figure is no mean over questions but average 90.0." in text


def test_json_has_no_infinity(evaluated):
    for name in METRICS:
        told = table.to_json(*scored_of(evaluated, name))
        json.dumps(told, allow_nan=False)
        assert math.isfinite(told["confidence"])


# ── In a browser ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if chromium.executable() is None:
        pytest.skip(chromium.MISSING)
    with chromium.open_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def opened(tab, evaluated, name: str, folder: Path, width: int = 1300):
    work, _ = evaluated
    task, scored = scored_of(evaluated, name)
    path = folder / f"{name}.html"
    path.write_text(page.render(task, scored, store=Store(work / "store")).html, "utf-8")
    tab.resize(width, 900)
    tab.open(path.as_uri())
    return scored


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("name", METRICS)
def test_the_page_fits_its_window(tab, evaluated, name, width, tmp_path):
    opened(tab, evaluated, name, tmp_path, width)
    tab.run("document.querySelectorAll('summary').forEach(one => one.click())")
    assert tab.run("document.documentElement.scrollWidth") <= width
    ends = "[...document.querySelectorAll('.parts th, .parts td, .options li')]"
    assert tab.run(f"Math.max(...{ends}.map(one => one.getBoundingClientRect().right))") <= width
    assert tab.complaints == []


def test_better_and_worse_can_be_chosen(tab, evaluated, tmp_path):
    scored = opened(tab, evaluated, "rated", tmp_path)
    change = scored[1].total.change
    for value, expected in (("better", change.fixed), ("worse", change.broken), ("", 24)):
        choose(tab, "change", value)
        assert len(shown(tab)) == expected > 0


def test_categories_can_be_chosen(tab, evaluated, tmp_path):
    opened(tab, evaluated, "letters", tmp_path)
    choose(tab, "category", "left")
    assert shown(tab) == list(range(0, 24, 2))


def test_options_say_who_chose_what(tab, evaluated, tmp_path):
    scored = opened(tab, evaluated, "letters", tmp_path)
    tab.run("document.querySelector('.question summary').click()")
    told = tab.run(
        "[...document.querySelector('.question').querySelectorAll('li')].map(one => one.innerText)"
    )
    first = scored[0].run.records[0]
    by_letter = {one[0]: one for one in told}
    assert list(by_letter) == ["A", "B", "C"]
    assert "plain" in by_letter[first.answer]
    assert [letter for letter, one in by_letter.items() if "✓" in one] == [first.target]
