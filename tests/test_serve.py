"""``hb-tta serve``: the answers are those of ``hb_tta.answer``, whoever asks with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from serving import ask, messages, pocket, samples, served

from hb_tta import answer
from hb_tta.describe import reworded
from hb_tta.errors import UserError
from hb_tta.serve.endpoint import Endpoint
from hb_tta.serve.limits import Limits
from hb_tta.serve.offer import Offer
from hb_tta.serve.views import Views
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.store import Store

VIEWS = {"n": 2, "preset": "paper"}


@pytest.fixture(scope="module")
def model():
    return pocket()


@pytest.fixture(scope="module")
def place(model) -> Iterator[str]:
    with served(model, "jitter", VIEWS) as place:
        yield place


def direct(model, sample, method="jitter", views=VIEWS, combine="mean", k=0, **settings):
    """What ``hb_tta.answer`` says with the same views."""
    asked = AugmentSettings.parse(method, views)
    made = asked.views.augmenter()(sample.image, sample.question, asked.n, asked.views.seed)
    words = reworded(sample.question, k) if k else ()
    return answer(
        model.model, model.processor, sample.image, sample.question, made,
        combine=combine, rewordings=words, do_sample=False, **settings,
    )  # fmt: skip


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


# ── The answer ───────────────────────────────────────────────────────────────────────────────────


def test_the_answer_is_that_of_answer(model, place):
    for sample in samples(3):
        response, expected = ask(place, sample), direct(model, sample)
        assert content(response) == expected.text
        told = response.json()["hb_tta"]
        seen = [(one["yes"], one["no"]) for one in told["answers"]]
        assert seen == [pytest.approx(tuple(one), abs=1e-4) for one in expected.seen]
        combined = (told["combined"]["yes"], told["combined"]["no"])
        assert combined == pytest.approx(tuple(expected.combined), abs=1e-4)


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"combine": "selection"}, {"combine": "selection"}),
        ({"paraphrases": 2}, {"k": 2}),
        ({"seed": 7}, {"views": {**VIEWS, "seed": 7}}),
        ({"n": 3}, {"views": {**VIEWS, "n": 3}}),
        ({"gate": 0}, {"views": {**VIEWS, "n": 1}}),
    ],
    ids=lambda one: str(one),
)
def test_what_a_client_says_is_done(model, place, said, expected):
    (sample,) = samples(1)
    response = ask(place, sample, hb_tta=said)
    told = response.json()["hb_tta"]
    if said == {"gate": 0}:
        assert told["gate"]["passed"] is False and told["views"] == []
        assert content(response) == model_alone(model, sample)
        return
    expected = direct(model, sample, **expected)
    assert content(response) == expected.text
    assert told["combined"]["yes"] == pytest.approx(expected.combined.yes, abs=1e-4)
    assert len(told["answers"]) == len(expected.seen)


def model_alone(model, sample) -> str:
    return answer(model.model, model.processor, sample.image, sample.question, do_sample=False).text


def test_what_was_made_is_told(place):
    (sample,) = samples(1)
    told = ask(place, sample, hb_tta={"pictures": True}).json()["hb_tta"]
    assert [one["seed"] for one in told["views"]] == [one["seed"] for one in told["answers"][1:]]
    assert {one["kept"] for one in told["views"]} == {True} and told["description"] is None
    assert all(one["png"].startswith("data:image/png;base64,") for one in told["views"])
    assert told["answers"][0]["seed"] is None and told["settings"]["n"] == 2


def test_without_views_it_is_the_model_alone(model, place):
    (sample,) = samples(1)
    response = ask(place, sample, hb_tta={"augment": False})
    assert content(response) == model_alone(model, sample)
    assert response.json()["hb_tta"]["views"] == []


def test_a_gate_lets_the_sure_ones_alone(model):
    first, second, *_ = samples(8)
    with served(model, "jitter", {**VIEWS, "gate": 0.0}) as place:
        told = ask(place, first, hb_tta={"progress": True}).json()["hb_tta"]
        assert told["gate"]["passed"] is False and told["views"] == []
        told = ask(place, second, hb_tta={"gate": 1.0}).json()["hb_tta"]
        assert told["gate"]["passed"] is True and len(told["views"]) == 2


def test_a_conversation_of_several_images(model, place):
    one, two = samples(3)[::2]
    asked = [
        {"role": "system", "content": "Be brief."},
        *messages(one.image, one.question),
        {"role": "assistant", "content": one.answer},
        *messages(two.image, two.question),
    ]
    body = {"messages": asked, "temperature": 0, "max_tokens": 4}
    response = httpx.post(f"{place}/v1/chat/completions", json=body, timeout=60)
    told = response.json()["hb_tta"]
    assert content(response) and {view["image"] for view in told["views"]} == {0, 1}
    assert len(told["views"]) == 4 and len(told["answers"]) == 3
    assert [len(one["seed"]) for one in told["answers"][1:]] == [2, 2]


def test_words_alone_have_no_views(place):
    body = {"messages": [{"role": "user", "content": "Is it red?"}], "temperature": 0}
    response = httpx.post(f"{place}/v1/chat/completions", json=body, timeout=60)
    assert content(response) and response.json()["hb_tta"]["views"] == []


def test_drawing_with_a_seed_is_the_same_again(place):
    (sample,) = samples(1)
    settings = {"temperature": 1.9, "seed": 4, "max_tokens": 8}
    texts = {content(ask(place, sample, **settings)) for _ in range(2)}
    assert len(texts) == 1


def test_a_stop_ends_the_answer_and_is_not_in_it(model, place):
    (sample,) = samples(1)
    whole = content(ask(place, sample))
    response = ask(place, sample, stop=[whole[1:]])
    assert content(response) == whole[:1]
    assert response.json()["choices"][0]["finish_reason"] == "stop"


def test_an_answer_that_is_cut_says_so(place):
    (sample,) = samples(1)
    response = ask(place, sample, max_tokens=1)
    choice, usage = response.json()["choices"][0], response.json()["usage"]
    assert choice["finish_reason"] == "length" and usage["completion_tokens"] == 1
    assert ask(place, sample, max_tokens=20).json()["choices"][0]["finish_reason"] == "stop"


# ── OpenAI's own client ──────────────────────────────────────────────────────────────────────────


def test_openais_client(place):
    (sample,) = samples(1)
    client = openai.OpenAI(base_url=f"{place}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["pocket"]
    assert client.models.retrieve("pocket").owned_by == "hb-tta"
    settings = {
        "model": "pocket", "messages": messages(sample.image, sample.question), "temperature": 0
    }  # fmt: skip
    whole = client.chat.completions.create(**settings, extra_body={"hb_tta": {"n": 1}})
    assert len(whole.hb_tta["views"]) == 1
    pieces = list(
        client.chat.completions.create(
            **settings, stream=True, stream_options={"include_usage": True},
            extra_body={"hb_tta": {"n": 1, "progress": True, "gate": 1}},
        )
    )  # fmt: skip
    texts = [one.choices[0].delta.content or "" for one in pieces if one.choices]
    assert "".join(texts) == whole.choices[0].message.content
    stages = [
        one.hb_tta["stage"]
        for one in pieces
        if "stage" in (one.model_extra or {}).get("hb_tta", {})
    ]
    assert stages == ["plain", "views"] and pieces[-1].usage.completion_tokens > 0
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'"):
        client.chat.completions.create(**{**settings, "model": "gpt-9"})


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────


def test_sixteen_at_once_get_their_own_answers(model, place):
    asked = samples(16)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda sample: ask(place, sample), asked))
    for sample, response in zip(asked, together, strict=True):
        expected = direct(model, sample)
        assert content(response) == expected.text
        combined = response.json()["hb_tta"]["combined"]
        assert combined["yes"] == pytest.approx(expected.combined.yes, abs=1e-4)
    batches = metrics(place)
    assert batches["hb_tta_batched_questions_total"] > batches["hb_tta_batches_total"]


def metrics(place: str) -> dict[str, float]:
    lines = httpx.get(f"{place}/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_question_that_fails_takes_no_neighbour_with_it(model):
    """A batch with one that no combiner can be asked for: the words are in two parts."""
    (sample,) = samples(1)
    two = messages(sample.image, "Is it red?")
    two[0]["content"].append({"type": "text", "text": "Or blue?"})
    with served(model, "jitter", {**VIEWS, "paraphrases": 1}) as place:
        with ThreadPoolExecutor(4) as pool:
            post = lambda body: httpx.post(  # noqa: E731
                f"{place}/v1/chat/completions",
                json={"messages": body, "temperature": 0},
                timeout=60,
            )
            bodies = [messages(sample.image, sample.question), two] * 2
            found = list(pool.map(post, bodies))
    assert [one.status_code for one in found] == [200, 400, 200, 400]
    assert "2 text parts cannot be put in other words" in found[1].json()["error"]["message"]


def post(place: str, body: list) -> httpx.Response:
    asked = {"messages": body, "temperature": 0}
    return httpx.post(f"{place}/v1/chat/completions", json=asked, timeout=60)


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_kept_unless_a_store_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "usual"))
    (sample,) = samples(1)
    with served(model, "jitter", VIEWS) as place:
        assert content(ask(place, sample))
    assert not (tmp_path / "usual").exists()
    store = Store(tmp_path / "own")
    with served(model, "jitter", VIEWS, store=store, limits={"store_mb": 1}) as place:
        assert content(ask(place, sample))
        assert store.info().namespaces["views"].files == 2


def test_a_store_keeps_to_its_size(tmp_path):
    settings = AugmentSettings.parse("jitter", VIEWS)
    store = Store(tmp_path)
    views = Views(settings, store, Limits(store_mb=1))
    for number in range(20):
        store.put("views", f"{number:064x}", bytes(100_000), {})
    views.trim(now=True)
    kept = store.info().namespaces["views"]
    assert 0 < kept.bytes <= 1_000_000 and kept.files < 20
    store.put("views", "f" * 64, bytes(900_000), {})
    views.trim()  # so soon it does not look again
    assert store.info().namespaces["views"].bytes > 1_000_000


# ── In front of another endpoint ─────────────────────────────────────────────────────────────────


def test_an_endpoint_behind_it_votes(model):
    asked = samples(4)
    with served(model, "none") as behind:
        backend = Endpoint(f"{behind}/v1", None, None, 60)
        assert backend.names == ("pocket",)
        with served(backend, "jitter", VIEWS) as place:
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda sample: ask(place, sample), asked))
            for sample, response in zip(asked, found, strict=True):
                texts = [one["text"] for one in response.json()["hb_tta"]["answers"]]
                assert len(texts) == 3 and texts[0] == model_alone(model, sample)
                assert content(response) in texts
            refused = ask(place, asked[0], hb_tta={"combine": "mean"})
            assert refused.status_code == 400 and "use combine=vote or concat" in refused.text
            seen = ask(place, asked[0], hb_tta={"combine": "concat"}).json()
            alone = ask(place, asked[0], hb_tta={"augment": False}).json()
            (told,) = seen["hb_tta"]["answers"]  # one prompt, with three pictures in it
            assert told["text"] and len(seen["hb_tta"]["views"]) == 2
            assert seen["usage"]["prompt_tokens"] > 2 * alone["usage"]["prompt_tokens"]
        with pytest.raises(UserError, match="combine=mean is not to be had of this model"):
            Offer("jitter", {"combine": "mean"}, Limits(), backend.combines)
    with served(backend, "none") as place:  # nobody is behind it any more
        response = ask(place, asked[0])
        assert response.status_code == 502 and "cannot be asked" in response.text


# ── The command ──────────────────────────────────────────────────────────────────────────────────


def start(*options: str, **environment: str) -> tuple[subprocess.Popen, str]:
    """A server as a person starts it, and its address."""
    from hb_tta.families import get_family

    model = get_family("pocket").weights("mllm").location
    command = [sys.executable, "-m", "hb_tta.cli", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("serving "):
            return process, line.split()[3].removesuffix("/v1,")
    raise AssertionError("it does not start")


def test_a_signal_stops_it_when_what_it_took_is_answered(tmp_path):
    options = ("--augment", "jitter", "--augment_args", "n=2", "--device", "cpu")
    process, place = start(*options)
    try:
        sample, response = samples(1)[0], None
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, place, sample)
            while response is None and not asked.done():
                if metrics_of(place).get("hb_tta_batches_total", 0) >= 1:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            assert content(asked.result()) in ("Yes", "No")
        assert process.wait(60) == 0
        assert process.stderr.read().strip() == "stopped: what was taken is answered"
    finally:
        process.kill()


def metrics_of(place: str) -> dict[str, float]:
    try:
        return metrics(place)
    except httpx.HTTPError:
        return {}
