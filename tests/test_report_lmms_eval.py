"""The report of what lmms-eval itself writes, with the plugin and without: tiny random models."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from lmms_eval_runs import QUESTIONS, evaluate_into, small_tasks

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.integrations.lmms_eval.results import read_runs
from hb_tta.report import page, score
from hb_tta.store import Store

TASK = "pocket_mme_dev"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A plain and an augmented run, as files; and what lmms-eval says of them."""
    work = tmp_path_factory.mktemp("work")
    tasks = small_tasks(work / "pocket_mme", images=2)
    mllm = tiny_models.save_llava(work / "mllm")
    own = {}
    for name, flags in {"plain": {}, "randaugment": {"augment": "randaugment"}}.items():
        flags |= {"augment_args": f"family=pocket,n=2,store={work / 'store'}"}
        results = evaluate_into(
            work / name,
            tasks,
            date="20260101_000000",
            model="llava_hf",
            model_args=f"pretrained={mllm},device_map=cpu",
            **flags,
        )
        own[name] = results["results"][TASK]
    return work, own


def read(work: Path):
    return read_runs([str(work / "plain"), str(work / "randaugment")], store=str(work / "store"))


def test_the_figures_are_lmms_evals_own(evaluated):
    work, own = evaluated
    task, runs = read(work)
    assert task == TASK
    for one in score(runs):
        theirs = own[one.run.name]
        found = one.scores["all"]
        assert found.questions == 2 * QUESTIONS
        assert 100 * found.acc.estimate == pytest.approx(theirs["acc,none"])
        assert found.acc_plus is not None
        assert 100 * found.acc_plus.estimate == pytest.approx(theirs["acc_plus,none"])


def test_every_image_is_found(evaluated):
    work, _ = evaluated
    task, runs = read(work)
    made = page.render(task, score(runs), store=Store(work / "store"))
    assert (made.questions, made.missing) == (2 * QUESTIONS, {})
    assert made.html.count('<img class="view"') == 2 * QUESTIONS * 3


def test_the_command_that_makes_views_again_is_the_runs(evaluated):
    work, _ = evaluated
    command = read(work)[1][1].command
    assert command is not None
    assert f"--model llava_hf --tasks {TASK} --model_args pretrained={work / 'mllm'}" in command
    assert "--augment randaugment --augment_args" in command
    assert "family=pocket" in command and "n=2" in command and "combine=mean" in command


def test_each_view_keeps_the_first_token_of_its_own_answer(evaluated):
    work, _ = evaluated
    for record in read(work)[1][1].records:
        assert record.combined is not None
        for seen in [*record.seen, record.combined]:
            assert isinstance(seen.first, str)
            assert seen.share is not None and 0 < seen.share <= 1
