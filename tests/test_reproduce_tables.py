"""Tables and figures of ``hb-tta reproduce`` out of made-up results: their shapes and figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hb_tta.datasets.questions import CATEGORIES, SUFFIX, YesNoQuestion, load_questions
from hb_tta.errors import UserError
from hb_tta.experiments import asking, numbers
from hb_tta.experiments.methods import REAL, TUNED, UNTUNED, Arm
from hb_tta.experiments.paper import (
    fidelity,
    fine_tuned,
    lora,
    mme,
    mumu,
    mumu_findings,
    pictures,
    spread,
    table11,
    trained,
    tuning,
)
from hb_tta.experiments.reproduction import HOLDS, UNDECIDED, Options
from hb_tta.families import get_family
from hb_tta.report.cells import Cell, columns_of, written
from hb_tta.report.drawing import Point, boxes, curves, differences, scatter
from hb_tta.weights import Weights

QUESTIONS = [
    YesNoQuestion(
        f"{category}/{image} {answer}",
        f"{category}/{image}",
        category,
        f"Is it so? {SUFFIX}",
        answer,
        lambda: Image.new("RGB", (8, 8)),
    )
    for category in CATEGORIES
    for image in range(40)
    for answer in (True, False)
]


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(tmp_path / "out", get_family("pocket"), limit=40, split="dev", quiet=True)


@pytest.fixture(autouse=True)
def _no_worlds(monkeypatch):
    monkeypatch.setattr(mme, "questions_of", lambda options, names, limit: QUESTIONS)


def right(share: float, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{"right": bool(one)} for one in rng.random(len(QUESTIONS)) < share]


# ── The papers' numbers ──────────────────────────────────────────────────────────────────────────


def test_the_papers_numbers_have_their_columns_and_agree_with_its_averages():
    for table in (numbers.TABLE_1, numbers.TABLE_5, numbers.TABLE_6, numbers.TABLE_7):
        for rows in table.values():
            assert {len(row) for row in rows.values()} == {10}
            for row in rows.values():
                assert all(plus <= acc for acc, plus in zip(row[::2], row[1::2], strict=True))
    for table, count in ((numbers.TABLE_2, 4), (numbers.TABLE_11, 4), (numbers.TABLE_10, 5)):
        for label, row in table.items():
            # The paper's average of Image Translation in table 2 is its splits' 66.64.
            assert np.mean(row[:count]) == pytest.approx(row[count], abs=0.011), label
    for label, row in numbers.TABLE_3.items():
        assert np.mean(row[:5]) == pytest.approx(row[5], abs=0.011), label
        assert np.mean(row[1:5]) == pytest.approx(row[6], abs=0.011), label
    assert numbers.TABLE_4[TUNED] == [36.94, 26.67] and numbers.TABLE_9[UNTUNED] == [17.78]


# ── Table 1 ──────────────────────────────────────────────────────────────────────────────────────


def test_table_1_in_the_papers_shape(options):
    options = replace(options, methods=("i2t2i", "hummingbird"), mllms=("a/one", "a/two"))
    results = {
        f"{mllm}: {label}": right(share, seed)
        for seed, mllm in enumerate(("one", "two"))
        for label, share in ((REAL, 0.6), ("I2T2I SDXL", 0.6), (TUNED, 0.97))
    }
    shown = mme.TABLE_1.show(results, options)
    (table,) = shown.tables
    labels = [column.label for column in columns_of(table)]
    assert labels[2:6] == ["existence ACC", "existence ACC+", "count ACC", "count ACC+"]
    assert labels[-3:] == ["all ACC", "all ACC+", "could have shown"]
    assert [row[:2] for row in table.rows] == [
        (mllm, label) for mllm in ("one", "two") for label in (REAL, "I2T2I SDXL", TUNED)
    ]
    ours = table.rows[2]
    assert isinstance(ours[2], Cell) and ours[2].note == "paper 96.67"
    assert ours[2].test is not None and ours[2].test.against == REAL
    assert table.rows[5][2].note == "paper 98.33"  # the second MLLM stands for the paper's second
    assert written(ours[-1]) != "" and table.rows[0][-1] == ""
    helps, best = shown.findings[:2]
    assert helps.verdict == HOLDS and len(helps.tests) == 5
    assert best.verdict == HOLDS and [what for what, _ in best.tests] == ["against I2T2I SDXL"]


def test_a_row_that_was_left_out_is_not_there(options):
    options = replace(options, methods=("i2t2i", "hummingbird"))
    results = {"mllm: Real only": right(0.6), "mllm: Hummingbird": right(0.6)}
    shown = mme.TABLE_1.show(results, options)
    assert [row[1] for row in shown.tables[0].rows] == [REAL, TUNED]
    assert {one.verdict for one in shown.findings} == {UNDECIDED}
    assert mme.TABLE_1.show({}, options).tables == ()


def test_answerers_are_those_asked_for_else_the_familys(options, tmp_path):
    named = replace(options, mllms=("team/model-7b", str(tmp_path)))
    assert list(asking.answerers(named)) == ["model-7b", tmp_path.name]
    assert list(asking.answerers(options, 2)) == ["mllm", "mllm two"]
    assert list(asking.answerers(options)) == ["mllm"]
    one = options.family.with_roles(mllm_two=None)
    assert list(asking.answerers(replace(options, family=one), 2)) == ["mllm"]


def test_questions_are_asked_as_lmms_eval_does_and_described_without_instructions():
    (first, second) = load_questions("pocket_mme", ["count"], limit=1)
    assert (first.group, first.answer, second.answer) == (second.group, True, False)
    assert first.prompt.endswith("?\nAnswer the question using a single word or phrase.")
    assert first.guidance.endswith("?") and "answer" not in first.guidance
    with pytest.raises(UserError, match="choose from pocket_mme, mme"):
        load_questions("pocket_mmee")


# ── Trainings ────────────────────────────────────────────────────────────────────────────────────


def test_a_training_has_a_folder_of_its_own_settings(options, monkeypatch):
    one, other = lora.Training("both"), lora.Training("both", changes=("rewards.global=0.5",))
    assert one.folder(options) != other.folder(options)
    quick = replace(options, quick=True)
    assert one.folder(quick) != one.folder(options)
    assert one.settings(quick).max_steps == 20 and one.settings(options).max_steps == 90
    more = replace(options, training=("max_steps=7",))
    assert one.settings(more).max_steps == 7
    assert one.lora(options) is None
    made = []

    def train(settings, out, *, quiet):
        made.append(out)
        (out / "best").mkdir(parents=True)
        (out / ".cache").mkdir()
        return {"step": 3, "ended": None, "first": None, "last": None}

    import hb_tta.training.train

    monkeypatch.setattr(hb_tta.training.train, "train", train)
    assert one.train(options)["step"] == 3 and one.train(options)["step"] == 3
    assert made == [one.folder(options)] and one.lora(options) == one.folder(options) / "best"
    assert not (one.folder(options) / ".cache").exists()


def test_without_a_training_its_rows_are_missing_and_said_to_be(options):
    options = replace(options, family=options.family.with_roles(mllm_two=None))
    names = [run.name for run in trained.TABLE_5.plan(options)]
    assert names == ["mllm: mllm: Real only", "mllm: views of none", "mllm: mllm: none"]
    results = {"mllm: mllm: Real only": right(0.6), "mllm: mllm: none": right(0.6)}
    shown = trained.TABLE_5.show(results, options)
    assert [row[1] for row in shown.tables[0].rows] == [REAL, "none"]
    assert list(shown.missing) == [
        "not trained yet: both rewards, global alone, fine alone; give --train"
    ]
    training = [run.name for run in trained.TABLE_5.plan(replace(options, train=True))][:3]
    assert training == [f"training {n}" for n in ("both rewards", "global alone", "fine alone")]


def test_a_training_is_another_with_other_models(options, tmp_path):
    one, other = lora.Training("both"), tmp_path / "generator"
    other.mkdir()
    (other / "config.json").write_text("{}")
    changed = replace(options, family=options.family.with_roles(generator=str(other)))
    assert one.folder(changed) != one.folder(options)


def test_objects_are_never_learnt_where_the_test_images_lie(options, tmp_path):
    sdxl = replace(options, family=get_family("sdxl"), data={"imagenet": str(tmp_path)})
    assert lora.Training("x", "objects").settings(sdxl).data != str(tmp_path)
    named = replace(sdxl, data={**sdxl.data, "objects training": str(tmp_path)})
    assert lora.Training("x", "objects").settings(named).data == str(tmp_path)


def test_a_family_in_a_folder_is_trained_too(options, tmp_path):
    (tmp_path / "generator").mkdir()
    (tmp_path / "family.json").write_text('{"like": "pocket", "edition": "third"}')
    own = replace(options, family=get_family(tmp_path))
    assert lora.Training("x").settings(own).family == str(tmp_path)
    with pytest.raises(UserError, match="there is no family 'pokket', did you mean 'pocket'"):
        lora.Training("x", changes=("family=pokket",)).settings(options)


def test_settings_of_a_training_reach_those_that_have_them(options):
    asked = replace(options, training=("rewards.global=0.5", "connector_width=96"))
    lora.check_changes(asked)
    assert lora.Training("x").settings(asked).rewards["global"] == 0.5
    assert lora.Training("x", "mumu").settings(asked).connector_width == 96
    with pytest.raises(UserError, match="there is no setting 'nothing'"):
        lora.check_changes(replace(options, training=("nothing=1",)))


def test_a_claim_about_a_training_that_is_not_there_is_open(options):
    options = replace(options, family=options.family.with_roles(mllm_two=None))
    finished(lora.tuned("both rewards"), options)
    finished(lora.tuned("global alone", "mllm", "rewards.fine_grained=0"), options)
    results = {
        f"mllm: mllm: {n}": right(share)
        for n, share in ((REAL, 0.5), ("both", 0.9), ("global alone", 0.6), ("none", 0.5))
    }
    found = trained.TABLE_5.show(results, options).findings
    assert [one.verdict for one in found] == [HOLDS, HOLDS, UNDECIDED]
    assert found[2].reason == "fine-grained alone: not trained"


@pytest.mark.parametrize("table", [trained.TABLE_6, trained.TABLE_7])
def test_tables_6_and_7_have_a_block_for_each_who_answers(table, options):
    finished(lora.tuned("both rewards"), options)
    names = [run.name for run in table.plan(options)]
    first = "designed prompt" if table is trained.TABLE_6 else "BLIP-2 evaluator"
    asked = [f"mllm: {who}: {row}" for who in ("mllm", "mllm two") for row in (REAL, first)]
    assert set(asked) <= set(names)
    shown = table.show({name: right(0.6) for name in asked}, options)
    assert [row[0] for row in shown.tables[0].rows] == ["mllm", "mllm", "mllm two", "mllm two"]


def test_two_who_answer_are_two_blocks(options, tmp_path):
    options = replace(options, mllms=("team/one", "team/other"))
    names = [f"{d}: {who}: {REAL}" for d in ("mllm", "mllm_two") for who in ("one", "other")]
    shown = trained.TABLE_5.show({name: right(0.6) for name in names}, options)
    assert [row[0] for row in shown.tables[0].rows] == [
        f"{d}, answers by {who}" for d in ("mllm", "mllm_two") for who in ("one", "other")
    ]
    needed = trained.TABLE_5.needs(options).weights
    assert [needed[name].location for name in needed] == ["team/one", "team/other"]
    alike = replace(options, mllms=("a/mllm", "b/mllm", "c/other"))
    assert list(asking.answerers(alike)) == ["a/mllm", "b/mllm", "other"]


def finished(training: lora.Training, options: Options) -> str:
    """As if it had been trained; where its LoRA is."""
    folder = training.folder(options)
    (folder / "best").mkdir(parents=True)
    (folder / lora.DONE).write_text("{}")
    return str(folder / "best")


def test_hummingbird_before_and_after_takes_the_lora_that_there_is(options):
    both = [UNTUNED, TUNED]
    alone = fine_tuned.before_and_after(options)
    assert [arm.label for arm in alone] == [TUNED] and not fine_tuned.explained(options)
    assert "no LoRA" in fine_tuned.lacking(options)[0]
    # One that will be trained, that somebody names, or that the family has.
    for its in (
        replace(options, train=True),
        replace(options, settings={"lora": "mine"}),
        replace(options, family=get_family("sdxl")),
    ):
        assert [arm.label for arm in fine_tuned.before_and_after(its)] == both
        assert fine_tuned.lacking(its) == [] and fine_tuned.explained(its) == []
    found = finished(lora.tuned("both rewards"), options)
    before, after = fine_tuned.before_and_after(options)
    assert before.settings == (("lora", None),) and after.settings == (("lora", found),)
    assert "table 5's" in fine_tuned.explained(options)[0] and not fine_tuned.lacking(options)
    named = replace(options, settings={"lora": "mine"})
    assert fine_tuned.before_and_after(named)[1].settings == ()


@pytest.mark.parametrize(
    "table",
    [spread.TABLE_4, spread.TABLE_9, fidelity.TABLE_12, fidelity.FIGURE_1G, pictures.FIGURE_6,
     mumu.FIGURE_9],
)  # fmt: skip
def test_what_needs_the_lora_trains_it_before_it_uses_it(table, options):
    training = f"training {lora.tuned('both rewards').label}"
    asked = replace(options, train=True)
    assert next(iter(table.plan(asked))).name == training
    assert table.needs(asked).cost.trainings == 1
    if table is mumu.FIGURE_9:
        with pytest.raises(UserError, match="table5 --train"):
            table.needs(options)
        return
    assert training not in [run.name for run in table.plan(options)]
    assert table.needs(options).cost.trainings == 0


def test_table_4_has_a_row_an_arm_and_none_a_training(options):
    options = replace(options, methods=("randaugment", "hummingbird"), train=True)
    found = {"reference": np.zeros((6, 3)), "views": np.ones((6, 2, 3))}
    results = {"training both rewards": {"step": 1}, "RandAugment": found, UNTUNED: found,
               TUNED: found}  # fmt: skip
    rows = [row[0] for row in spread.TABLE_4.show(results, options).tables[0].rows]
    assert rows == ["RandAugment", UNTUNED, TUNED]


def test_table_4_of_one_view_has_no_distance_among_views(options):
    options = replace(options, methods=("randaugment", "i2t2i", "hummingbird"), views=1)
    rng = np.random.default_rng(0)
    results = {
        label: {"reference": np.zeros((6, 3)), "views": rng.random((6, 1, 3))}
        for label in ("RandAugment", "I2T2I SDXL", TUNED)
    }
    shown = spread.TABLE_4.show(results, options)
    assert len(shown.tables[0].rows) == 3 and len(shown.findings) == 1
    # Without I2T2I nobody can be second to it.
    (found,) = spread.TABLE_4.show(
        {n: results[n] for n in ("RandAugment", TUNED)},
        replace(options, methods=("randaugment", "hummingbird")),
    ).findings
    assert found.verdict == UNDECIDED and "I2T2I" in found.reason


@pytest.mark.parametrize("figure", [spread.FIGURE_15, pictures.FIGURE_7])
def test_a_figure_whose_only_method_was_left_out_says_so(figure, options):
    shown = figure.show({}, options)
    assert shown.missing == ["Hummingbird was left out"] and not shown.tables


def test_table_12_without_a_lora_has_one_row_and_says_so(options, monkeypatch):
    monkeypatch.setattr(fidelity, "questions_of", lambda options, names, limit: QUESTIONS)
    kept = [1.0] * len(QUESTIONS)
    shown = fidelity.TABLE_12.show({f"mllm: {TUNED}": kept}, options)
    assert [row[1] for row in shown.tables[0].rows] == [TUNED] and not shown.findings
    assert "table5 --train" in shown.missing[0]
    finished(lora.tuned("both rewards"), options)
    shown = fidelity.TABLE_12.show({f"mllm: {one}": kept for one in (UNTUNED, TUNED)}, options)
    assert [row[1] for row in shown.tables[0].rows] == [UNTUNED, TUNED]
    assert [one.verdict for one in shown.findings] == [UNDECIDED]


def test_two_describers_make_twice_the_rows(options):
    two = options.family.with_roles(mllm_two=options.family.weights("mllm"))
    options = replace(options, family=two, train=True)
    names = [run.name for run in trained.TABLE_5.plan(options) if "training" in run.name]
    assert len(names) == 6 and "training both rewards, mllm_two" in names


@pytest.mark.parametrize("prompt", ["own", "task", "generic"])
def test_what_the_describer_is_asked_in_a_training(prompt):
    from hb_tta.training.data import described_by, open_source

    source = open_source("pocket")
    (before,) = source.read(0, 1)
    (after,) = described_by(source, prompt).read(0, 1)
    assert described_by(source, prompt).size() == source.size()
    same = described_by(source, prompt).fingerprint() == source.fingerprint()
    assert same == (prompt == "own")
    assert (after.description is None) == (prompt != "own")
    assert after.context.task == ("generic" if prompt == "generic" else before.context.task)
    assert (after.context.ground_truth is None) == (prompt == "generic")


# ── Prompt tuning ────────────────────────────────────────────────────────────────────────────────


def result(task: str, rules: dict[str, float], samples: int = 40) -> dict:
    def entry(share: float) -> dict:
        scores = [int(n < share * samples) for n in range(samples)]
        accuracy = {"estimate": share, "low": share, "high": share, "n": samples}
        return {"accuracy": accuracy, "ece": 0.1, "scores": scores}

    return {"task": task, "samples": samples, "methods": {r: entry(s) for r, s in rules.items()}}


def test_table_3_has_a_block_a_rule_and_gains_over_the_real_image(options):
    options = replace(options, methods=("randaugment", "hummingbird"))
    tasks = [f"task {n}" for n in range(5)]
    rules = {"zero-shot": 0.5, "tpt": 0.5, "zero": 0.4, "tda": 0.6}
    results = {
        "selection": 0.5,
        REAL: [result(task, rules) for task in tasks],
        "RandAugment": [result(task, {**rules, "tpt": 0.55}) for task in tasks],
        TUNED: [result(task, {**rules, "tpt": 0.8}) for task in tasks],
    }
    shown = tuning.TABLE_3.show(results, options)
    (table,) = shown.tables
    assert [row[0] for row in table.rows] == [r for r in ("tpt", "zero", "tda") for _ in range(3)]
    assert "50 % are trusted, chosen on dev" in table.notes[0]
    ours = table.rows[2]
    assert ours[2].note.startswith("paper 62.60\nECE") and ours[7].note == "paper 50.19"
    assert ours[8].estimate == pytest.approx(0.3) and ours[8].test.p_value < 0.05
    assert table.rows[5][2].note == "ECE 10.0"  # the paper has no row of ZERO
    (best,) = shown.findings
    assert best.verdict == HOLDS
    assert [what for what, _ in best.tests] == [f"against {REAL}", "against RandAugment"]
    assert "relations" not in shown.missing[0] and "objects LoRA" in shown.missing[0]


def test_the_share_of_trusted_views_is_chosen_on_dev_alone(options, monkeypatch):
    seen = []

    def evaluated(self, arm, options, selection, parts=None):
        seen.append((options.split, parts, arm.label))
        return [result("task", {"tpt": {0.25: 0.5, 0.5: 0.7, 1.0: 0.6}[selection]})]

    monkeypatch.setattr(tuning.Tuning, "evaluated", evaluated)
    sealed = replace(options, split="sealed", methods=("randaugment",))
    runs = {run.name: run for run in tuning.TABLE_3.plan(sealed)}
    assert runs["selection"].do() == 0.5
    assert seen == [("dev", 1, "RandAugment")] * 3
    relations = {run.name: run for run in tuning.TABLE_2.plan(sealed)}
    assert relations["selection"].do() is None  # supports are tuned on as they are


def test_a_share_is_chosen_without_the_methods_that_are_left_out(options, monkeypatch):
    seen = []

    def evaluated(self, arm, options, selection, parts=None):
        seen.append(arm.label)
        return [result("task", {"tpt": 0.5})]

    monkeypatch.setattr(tuning.Tuning, "evaluated", evaluated)
    monkeypatch.setattr(tuning, "skipped_methods", lambda options: {"i2t2i"})
    asked = replace(options, methods=("randaugment", "i2t2i"))
    {run.name: run for run in tuning.TABLE_3.plan(asked)}["selection"].do()
    assert set(seen) == {"RandAugment"}


@pytest.mark.parametrize("table", [tuning.TABLE_2, tuning.TABLE_3, table11.EXPERIMENT])
def test_forecasts_of_the_rows_are_that_of_the_table(table, options):
    for asked in (options, replace(options, train=True)):
        whole = table.needs(asked).cost
        rows = sum(run.seconds for run in table.plan(asked))
        assert whole.trainings == int(asked.train)
        assert rows == pytest.approx(whole.forecast(asked), rel=0.2)


def test_a_training_of_mumu_is_forecast_by_its_own_time(options):
    asked = replace(options, train=True)
    assert mumu.FIGURE_12.needs(options).cost.mumu_trainings == 0
    cost = mumu.FIGURE_12.needs(asked).cost
    assert (cost.trainings, cost.mumu_trainings) == (0, 2)
    alone = replace(cost, mumu_trainings=0)
    more = cost.forecast(asked) - alone.forecast(asked)
    assert more == 2 * asked.seconds("mumu_trainings") > 2 * asked.seconds("trainings")
    short = mumu.FIGURE_12.needs(replace(asked, quick=True)).cost
    assert short.mumu_trainings == 0 and 0 < short.forecast(asked) < more / 10


def test_a_lora_that_is_named_goes_before_a_benchmarks_own(options):
    training = lora.Training("objects LoRA", "objects")
    found = finished(training, options)
    rows = {arm.label: arm for arm in lora.by_own_lora(training, options)}
    assert rows[TUNED].settings == (("lora", found),) and rows["I2T2I SDXL"].settings == ()
    named = replace(options, settings={"lora": "mine"}, train=True)
    assert {a.label: a for a in lora.by_own_lora(training, named)}[TUNED].settings == ()
    assert lora.own_trainings(training, named) == []
    assert lora.own_trainings(training, replace(options, methods=("i2t2i",))) == []


# ── Table 11 ─────────────────────────────────────────────────────────────────────────────────────


def test_every_row_of_table_11_sees_the_same_tasks_for_as_many_iterations(options, monkeypatch):
    monkeypatch.setattr(table11, "ITERATIONS", 2)
    monkeypatch.setattr(table11, "BATCH", 1)
    labels = [[0, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 1]]
    pictures = torch.randint(0, 256, (2, 6, 1, 3, 32, 32), dtype=torch.uint8)

    def shown(views: int) -> list[list[torch.Tensor]]:
        return [[image.repeat(1 + views, 1, 1, 1) for image in its] for its in pictures]

    one, same = (table11.train(shown(n), labels, options, seed=0) for n in (0, 3))
    # Equal pictures, whatever their number: so equal networks.
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    other = table11.train(shown(0), labels, options, seed=1)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    said = table11._rights(one, torch.cat(list(pictures[0])), labels[0])
    assert len(said) == 2 and set(said) <= {0.0, 1.0}


def test_table_11_in_the_papers_shape(options):
    options = replace(options, methods=("hummingbird",))
    splits = ["a", "b", "c", "d"]
    results = {
        REAL: {name: [0.0, 1.0] * 10 for name in splits},
        TUNED: {name: [1.0, 1.0] * 10 for name in splits},
    }
    shown = table11.show(results, options)
    ours = shown.tables[0].rows[1]
    papers = ("53.71", "53.55", "53.69", "53.41", "53.59")
    assert [cell.note for cell in ours[1:6]] == [f"paper {value}" for value in papers]
    assert ours[5].estimate == 1.0 and ours[5].test.difference == 0.5
    assert shown.findings[0].verdict == HOLDS


# ── Pictures and drawings ────────────────────────────────────────────────────────────────────────


def test_pictures_are_of_the_first_questions_answered_by_yes_and_no_in_turn(options, monkeypatch):
    monkeypatch.setattr(pictures, "questions_of", lambda options, names, limit: QUESTIONS)
    four = pictures.Pictures("figure4", "", lambda _: [])
    asked = four.questions(replace(options, limit=10))
    assert [one.category for one in asked] == [*CATEGORIES, *CATEGORIES]
    assert [one.answer for one in asked] == [True] * 5 + [False] * 5
    assert len({one.group for one in asked}) == 10


def test_a_failure_is_shown_once_an_image():
    # Two questions an image, one after the other.
    assert pictures.an_image_once(QUESTIONS, [3, 0, 2, 1, 6]) == [3, 0, 6]


def test_more_tokens_are_asked_about_up_to_the_trained_number():
    rng = np.random.default_rng(0)
    figures = {
        f"tokens {n}": {name: (rng.random(200) < share).astype(int).tolist()
                        for name in ("bound", "filling")}
        for n, share in ((1, 0.1), (4, 0.5), (16, 0.9), (64, 0.4))
    }  # fmt: skip
    (found,) = mumu_findings.tokens_help(figures, 16)
    assert [name for name, _ in found.tests] == [
        f"{name}: tokens 16 − tokens {n}" for name in ("bound", "filling") for n in (1, 4)
    ]
    assert found.verdict == HOLDS


def test_drawings_are_whole_and_say_what_they_show():
    import xml.etree.ElementTree as xml

    points = [Point("a <b>", (1, 0.9, 1.1), (50, 40, 60)), Point("c", (2, 2, 2), (90, 80, 95))]
    every = [
        scatter(points, "distance", "fidelity, %"),
        scatter(points[:1], "one", "point"),
        boxes({"10": [1.0, 1.2, 5.0], "20": [1.0]}, "seeds", "L2"),
        curves({"both": [(0, 0.1), (20, 0.3)]}, "step", "reward"),
        curves({"both": [(0, 0.1), (1, 0.3)]}, "tokens", "right", ["1", "64"]),
        differences(
            {"m": [("up", (3, 1, 5)), ("open", (1, -2, 4))], "": [("down", (-9, -9, -1))]}, "points"
        ),
    ]
    for svg in every:
        root = xml.fromstring(svg)
        numbers_ = [float(word) for one in root.iter("polyline")
                    for word in one.attrib["points"].replace(",", " ").split()]  # fmt: skip
        assert numbers_ and min(numbers_) >= 0 and max(numbers_) <= 640
        assert root.attrib["aria-label"]
    assert "a &lt;b&gt;" in every[0]
    assert ">64</text>" in every[4] and ">0.5</text>" not in every[4]  # names, and no numbers
    colours = [one.attrib["fill"] for one in xml.fromstring(every[-1]).iter("circle")]
    assert len(set(colours)) == 3  # above, open, below


def test_an_arm_asks_for_the_papers_plain_mean_of_its_own_weights(options):
    views = Arm(UNTUNED, "hummingbird", (("lora", None),)).views(options, 3)
    assert views is not None
    assert (views.n, views.preset, views.gate, views.judge) == (3, "paper", None, "none")
    assert views.augmenter().generator_spec.lora is None
    assert Arm(REAL).views(options, 3) is None
    assert isinstance(options.family.weights("mllm"), Weights)
