"""Our tasks of lmms-eval: pocket_mme, which nothing has to be downloaded for, and MME's part."""

from __future__ import annotations

from pathlib import Path

import pytest
from lmms_eval_runs import small_tasks

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

import lmms_eval.tasks.mme
from lmms_eval.tasks import TaskManager, get_task_dict
from lmms_eval.utils import load_yaml_config

from hb_tta.integrations.lmms_eval.command_line import TASKS
from hb_tta.pocket.tasks import CATEGORIES, pocket_mme

UPSTREAM = load_yaml_config(str(Path(lmms_eval.tasks.mme.__path__[0]) / "mme.yaml"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = small_tasks(tmp_path_factory.mktemp("tasks") / "pocket_mme", images=2)
    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name="llava_hf")
    return get_task_dict(["pocket_mme", "pocket_mme_dev"], manager, "chat")


@pytest.mark.parametrize(("name", "split"), [("pocket_mme", "sealed"), ("pocket_mme_dev", "dev")])
def test_the_documents_are_the_benchmarks(tasks, name, split):
    documents = list(tasks[name].test_docs())
    expected = {
        (sample.question_id, sample.answer): sample
        for category in CATEGORIES
        for sample in pocket_mme(split, category=category, limit=2)
    }
    assert len(documents) == len(expected) == 4 * len(CATEGORIES)
    for document in documents:
        sample = expected[document["question_id"], document["answer"]]
        assert document["question"] == sample.question
        assert document["category"] == sample.category
        assert document["image"].convert("RGB").tobytes() == sample.image.tobytes()


def test_a_limit_is_shared_among_the_categories(tasks):
    categories = [document["category"] for document in tasks["pocket_mme"].test_docs()]
    assert categories[: 2 * len(CATEGORIES)] == [category for category in CATEGORIES for _ in "yn"]


def test_questions_are_asked_as_mme_asks(tasks):
    task = tasks["pocket_mme"]
    (turn,) = task.doc_to_messages(task.test_docs()[0])
    assert turn["content"][-1]["text"].endswith(
        "?\nAnswer the question using a single word or phrase."
    )
    assert turn["content"][0]["type"] == "image"


def test_scores():
    config = load_yaml_config(str(TASKS / "pocket_mme" / "pocket_mme.yaml"))
    document = {"question_id": "0", "category": "count", "answer": "Yes"}
    right = config["process_results"](document, ["Yes."])
    assert right["acc"] == {"question_id": "0", "category": "count", "score": 1.0}
    aggregate = {metric["metric"]: metric["aggregation"] for metric in config["metric_list"]}

    def scored(*scores):
        return [{"question_id": q, "category": c, "score": s} for q, c, s in scores]

    results = scored(
        ("0", "count", 1.0), ("0", "count", 1.0), ("1", "count", 1.0), ("1", "count", 0.0),
        ("0", "color", 0.0), ("0", "color", 1.0), ("9", "color", 1.0),  # half of 9 was left out
    )  # fmt: skip
    assert aggregate["acc"](results) == pytest.approx((75 + 50) / 2)
    assert aggregate["acc_plus"](results) == pytest.approx((50 + 0) / 2)
    assert aggregate["mme_perception_score"](results) == pytest.approx(75 + 50 + 50 + 0)
    assert aggregate["acc_plus"](results) <= aggregate["acc"](results)
    assert aggregate["acc"]([]) == 0.0


@pytest.mark.parametrize("name", ["mme_tta", "mme_tta_appendix"])
def test_mme_tta_is_upstreams_mme(name):
    config = load_yaml_config(str(TASKS / "mme_tta" / f"{name}.yaml"))
    ours = {"task", "process_docs", "metadata", "metric_list"}
    for key in UPSTREAM.keys() | config.keys() - ours:
        if key in ours:
            continue
        mine, theirs = config[key], UPSTREAM[key]
        if callable(theirs):
            assert mine.__name__ == theirs.__name__
        else:
            assert mine == theirs, key


def test_mme_tta_keeps_the_papers_categories():
    import datasets

    config = load_yaml_config(str(TASKS / "mme_tta" / "mme_tta.yaml"))
    names = ["OCR", "existence", "scene", "artwork", "existence", "landmark"]
    documents = datasets.Dataset.from_dict({"category": names, "question_id": list(range(6))})
    assert config["process_docs"](documents)["question_id"] == [1, 2, 4]
