"""Harnesses whose backends and data sets look at more than one would think."""

from __future__ import annotations

import copy
import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from hb_tta.datasets.bongard_hoi import BongardExamples, bongard_hoi
from hb_tta.errors import UserError
from hb_tta.tpt.evaluate import query_requests, support_request

# ── lmms-eval's documents ────────────────────────────────────────────────────────────────────────


class Split(list):
    """A split that counts how often a document is decoded."""

    column_names = ("image",)

    def __init__(self, *documents: Any) -> None:
        super().__init__(documents)
        self.decoded: list[Any] = []

    def __getitem__(self, place: Any) -> Any:
        self.decoded.append(place)
        return super().__getitem__(place)


def question_of(task_dict: dict[str, Any], doc_id: int) -> Any:
    requests = pytest.importorskip("hb_tta.integrations.lmms_eval.requests")
    arguments: Any = ("What?", {}, lambda document: [document["image"]], doc_id, "t", "test")
    request = SimpleNamespace(args=arguments, request_type="generate_until")
    return requests.Question.read(request, True, task_dict)


def with_documents(task_dict: dict[str, Any], *questions: Any) -> dict[str, Any]:
    requests = pytest.importorskip("hb_tta.integrations.lmms_eval.requests")
    return requests.with_documents(task_dict, questions)


@pytest.fixture
def task_dict() -> dict[str, Any]:
    pictures = [{"image": Image.new("RGB", (4, 4), (number, 0, 0))} for number in range(5)]
    return {"t": {"test": Split(*pictures), "train": ["a"]}, "other": {"test": ["b"]}}


@pytest.mark.parametrize("doc_id", [0, 3, 4])
def test_a_backend_that_takes_the_number_of_documents_gets_its_own(task_dict, doc_id):
    """mistral3_vl: ``dataset[min(doc_id, len(dataset) - 1)]``."""
    whole = task_dict["t"]["test"]
    question = question_of(task_dict, doc_id)
    whole.decoded.clear()
    seen = with_documents(task_dict, question)["t"]["test"]
    assert seen[min(doc_id, len(seen) - 1)] is question.document and len(seen) == 5
    assert whole.decoded == []  # it was read once


def test_whatever_else_is_looked_at_is_the_splits_own(task_dict):
    question = question_of(task_dict, 1)
    seen = with_documents(task_dict, question)
    split = seen["t"]["test"]
    assert split[2] is list.__getitem__(task_dict["t"]["test"], 2) and split[-1]["image"]
    assert [one["image"].getpixel((0, 0))[0] for one in split] == [0, 1, 2, 3, 4]
    assert split.column_names == ("image",) and len(split[1:3]) == 2
    assert seen["t"]["train"] == ["a"] and seen["other"] == {"test": ["b"]}
    with pytest.raises(IndexError):
        split[5]
    with pytest.raises(AttributeError):
        split.nothing  # noqa: B018
    assert task_dict["t"]["test"].__class__ is Split  # the backend's own is as it was


def test_a_batchs_documents_are_all_read(task_dict):
    questions = [question_of(task_dict, doc_id) for doc_id in (4, 0, 4)]
    whole = task_dict["t"]["test"]
    whole.decoded.clear()
    seen = with_documents(task_dict, *questions)["t"]["test"]
    assert [seen[doc_id] is one.document for doc_id, one in zip((4, 0), questions, strict=False)]
    assert seen[4] is questions[2].document and whole.decoded == []
    assert seen[2]["image"].getpixel((0, 0)) == (2, 0, 0) and whole.decoded == [2]
    with pytest.raises(TypeError):
        seen[[1, 2]]  # as the split itself says


def test_it_can_be_copied_for_a_loaders_workers(task_dict):
    seen = with_documents(task_dict, question_of(task_dict, 1))["t"]["test"]
    for other in (copy.deepcopy(seen), copy.copy(seen), pickle.loads(pickle.dumps(seen))):
        assert len(other) == 5 and other[1]["image"].getpixel((0, 0)) == (1, 0, 0)


# ── CLIP_benchmark's data sets of several labels ─────────────────────────────────────────────────


class Loader(list):
    dataset = SimpleNamespace(classes=["red circle", "blue square"])


@pytest.mark.parametrize("target", [torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.long)])
def test_several_labels_an_image_are_refused_before_any_work(target, tmp_path):
    pytest.importorskip("clip_benchmark")
    from clip_benchmark.metrics import zeroshot_classification

    from hb_tta.integrations import clip_benchmark as adapter

    options, _ = adapter.read_options(["eval", "--crops", "0", "--store", str(tmp_path)])
    adapter.register(options)
    from clip_benchmark.models import TYPE2FUNC

    model, remember, tokenizer = TYPE2FUNC["hb_tta"]("pocket", "", None, "cpu")
    pictures = torch.stack([remember(Image.new("RGB", (8, 8))) for _ in range(2)])
    with pytest.raises(UserError, match="several labels an image: .*run clip_benchmark itself"):
        zeroshot_classification.evaluate(
            model, Loader([(pictures, target)]), tokenizer, Loader.dataset.classes, ["{c}"], "cpu"
        )
    assert len(model._images) == 2  # none was looked at


# ── Bongard-HOI as it lies about ─────────────────────────────────────────────────────────────────


def item(name: str, **changes: Any) -> dict[str, Any]:
    row = {"im_path": name, "sub_class": "person", "act_class": "sit_at", "obj_class": "table"}
    return row | changes


def tasks_file(folder, positive: dict[str, Any]) -> Any:
    task = [[item(f"n{n}.jpg") for n in range(2)], [positive, item("q.jpg")], "sit_at table"]
    path = folder / "bongard_hoi_train.json"
    path.write_text(json.dumps([task]))
    return path


@pytest.mark.parametrize(
    ("named", "lies"),
    [
        ("pic/image/train/a.jpg", "pic/image/val/a.jpg"),
        ("./hake/images_20190730/val/a.jpg", "hake/images_20190730/train/a.jpg"),
        ("train/train/a.jpg", "train/val/a.jpg"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "hake/images/"])
def test_an_image_in_the_other_half_is_found(named, lies, prefix, tmp_path):
    place = tmp_path / prefix / lies
    place.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(place)
    path = tasks_file(tmp_path, item(named))
    assert bongard_hoi(path, tmp_path).tasks[0].supports[0].image == place
    [first, *_] = BongardExamples(tmp_path).rows(0, 1)
    assert BongardExamples(tmp_path).example(first[1]).context.image == place


def test_where_both_lie_the_annotation_is_right(tmp_path):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / half / "a.png")
    task = bongard_hoi(tasks_file(tmp_path, item("train/a.png")), tmp_path).tasks[0]
    assert task.supports[0].image == tmp_path / "train" / "a.png"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"act_class": None}, "person | table"),
        ({"obj_class": None}, "person | sit at"),
        ({"sub_class": None}, "person | sit at | table"),
        ({"act_class": None, "obj_class": None}, "person"),
    ],
)
def test_null_in_an_annotation_is_nothing_and_no_word(changes, told, tmp_path):
    path = tasks_file(tmp_path, item("a.jpg", **changes))
    task = bongard_hoi(path, tmp_path).tasks[0]
    assert support_request(task.supports[0]).guidance == told
    assert "None" not in query_requests(task)[0].guidance
    examples = BongardExamples(tmp_path)
    context = examples.example(next(row for _, row in examples.rows(0, 1))).context
    assert context.ground_truth != "None" and "None" not in context.guidance


@pytest.mark.parametrize(
    "changes", [{"act_class": 7}, {"obj_class": ["table"]}, {"im_path": None}, {"im_path": {}}]
)
def test_an_annotation_of_another_kind_is_told(changes, tmp_path):
    path = tasks_file(tmp_path, item("a.jpg", **changes))
    with pytest.raises(UserError, match="cannot be read as tasks"):
        bongard_hoi(path, tmp_path)
    with pytest.raises(UserError, match="cannot be read as Bongard-HOI's annotations"):
        BongardExamples(tmp_path)
