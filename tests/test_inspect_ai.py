"""inspect_ai asks ``hb-tta serve`` as any OpenAI endpoint: the answers are ``hb_tta.answer``'s."""

from __future__ import annotations

from itertools import islice

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: see `make harnesses`")

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText
from inspect_ai.scorer import match
from inspect_ai.solver import generate
from serving import address, pocket, served
from vlmevalkit_runs import views_of

from hb_tta import answer
from hb_tta.pocket.tasks import pocket_mme

SETTINGS = {"n": 2, "preset": "paper"}
COUNT = 8


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("HB_API_KEY", "none")
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def samples():
    return list(islice(pocket_mme("dev"), COUNT))


def task_of(samples) -> Task:
    """A yes/no task of pictures."""
    asked = [
        Sample(
            id=number,
            input=[
                ChatMessageUser(
                    content=[ContentImage(image=address(one.image)), ContentText(text=one.question)]
                )
            ],
            target=one.answer,
        )
        for number, one in enumerate(samples)
    ]
    return Task(dataset=MemoryDataset(asked), solver=generate(), scorer=match())


def evaluate(place: str, samples, monkeypatch, **settings):
    """The one log of a run."""
    monkeypatch.setenv("HB_BASE_URL", f"{place}/v1")
    (log,) = inspect_ai.eval(
        task_of(samples), model="openai-api/hb/pocket", temperature=0, max_retries=0, **settings
    )
    assert log.status == "success", log.error
    return sorted(log.samples, key=lambda one: one.id), log


@pytest.mark.parametrize("at_once", [1, 8])
def test_the_answers_are_the_same(samples, monkeypatch, at_once):
    """One after the other, and all in flight together."""
    model = pocket()
    with served(model, "jitter", SETTINGS) as place:
        found, log = evaluate(place, samples, monkeypatch, max_connections=at_once)
    views = views_of(samples, "jitter", "family=pocket,n=2,preset=paper")
    expected = [
        answer(model.model, model.processor, one.image, one.question, its, do_sample=False).text
        for one, its in zip(samples, views, strict=True)
    ]
    assert [one.output.completion for one in found] == expected
    right = [text == one.answer for text, one in zip(expected, samples, strict=True)]
    (score,) = log.results.scores
    assert score.metrics["accuracy"].value == pytest.approx(sum(right) / COUNT)


def test_what_the_server_refuses_reaches_the_person(samples, monkeypatch):
    with served(pocket(), "jitter", SETTINGS, limits={"characters": 5}) as place:
        monkeypatch.setenv("HB_BASE_URL", f"{place}/v1")
        (log,) = inspect_ai.eval(
            task_of(samples[:1]), model="openai-api/hb/pocket", temperature=0, max_retries=0
        )
    assert log.status == "error" and "characters" in str(log.error.message) + str(
        log.error.traceback
    )
