"""``hb-tta serve`` and clients of every kind: a status and a sentence, and the server lives."""

from __future__ import annotations

import http.server
import ipaddress
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from PIL import Image
from serving import HOST, address, ask, messages, pocket, samples, served

from hb_tta.errors import UserError
from hb_tta.serve.access import Access
from hb_tta.serve.limits import Limits
from hb_tta.serve.refusal import Refused
from hb_tta.serve.remote import Remote, is_public

KEY = "a-key-of-some-length-0123456789"
BOUNDS = {
    "images": 2, "megapixels": 1, "image_mb": 1, "body_mb": 3, "tokens": 64, "characters": 2000,
    "asking_seconds": 2, "seconds": 60, "views": 3, "connections": 900,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return pocket()


@pytest.fixture(scope="module")
def place(model) -> Iterator[str]:
    with served(model, "jitter", {"n": 1, "preset": "paper"}, limits=BOUNDS) as place:
        yield place


def post(place: str, content: bytes | None = None, **body) -> httpx.Response:
    data = json.dumps(body).encode() if content is None else content
    return httpx.post(f"{place}/v1/chat/completions", content=data, timeout=60)


def refused(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    sentence = response.json()["error"]["message"]
    assert words in sentence and len(sentence) < 1000, sentence


def lives(place: str, **headers: str) -> None:
    assert httpx.get(f"{place}/health", timeout=30).json() == {"status": "ok"}


# ── Who asks ─────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_key_is_told_and_is_in_no_text(model, capfd):
    with served(model, "none", key=KEY) as place:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            for path in ("/v1/models", "/metrics", "/v1/models/pocket"):
                response = httpx.get(place + path, headers=given)
                refused(response, 401, "the key is missing or wrong")
                assert response.headers["WWW-Authenticate"] == "Bearer"
            refused(httpx.post(f"{place}/v1/chat/completions", headers=given), 401, "the key")
        right = {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{place}/v1/models", headers=right).status_code == 200
        assert KEY not in httpx.get(f"{place}/metrics", headers=right).text
        assert KEY not in httpx.get(place).text and "password" in httpx.get(place).text
        lives(place)
    assert KEY not in "".join(capfd.readouterr()) and KEY not in repr(Access(HOST, KEY))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org"])
def test_others_are_let_in_with_a_key_alone(host):
    with pytest.raises(UserError, match="there is no key"):
        Access(host)
    assert Access(host, KEY).check({"authorization": f"bearer {KEY}", "host": host}) is None


@pytest.mark.parametrize("key", ["short", "ü" * 20, ""])
def test_a_key_is_long_enough(key):
    with pytest.raises(UserError, match="at least 16 characters"):
        Access(HOST, key)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},  # a name of theirs that leads to this machine
        {"host": ""},
        {"host": "127.0.0.1.evil.example:8000"},
        {"host": "[::1"},
        {"host": "127.0.0.1:8000", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"},
    ],
    ids=str,
)
def test_other_sites_pages_may_not_ask(headers):
    with pytest.raises(Refused) as caught:
        Access(HOST).check(headers)
    assert caught.value.status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "LOCALHOST:1"])
def test_ones_own_page_may(host):
    Access(HOST).check({"host": host, "origin": f"http://{host}"})


# ── What is asked ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"messages": NaN', b"9" * 6000, b"\0"],
    ids=["empty", "cut", "no text", "deep", "half", "digits", "null"],
)
def test_malformed_json(place, data):
    refused(post(place, data), 400, "the request is no JSON")


USER = {"role": "user", "content": "Is it red?"}


@pytest.mark.parametrize(
    "body, status, words",
    [
        ([], 400, "no JSON object"),
        ({}, 400, "messages is no list"),
        ({"messages": []}, 400, "messages is no list"),
        ({"messages": "hello"}, 400, "messages is no list"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "has no role"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "content is no text"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "has no role"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, 400, "is not the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "neither text"),
        ({"messages": [{"role": "user", "content": "x" * 2001}]}, 413, "2001 characters"),
        ({"messages": [USER], "model": "gpt-9"}, 404, "there is no model 'gpt-9'"),
        ({"messages": [USER], "n": 2}, 400, "n=2 is not to be had"),
        ({"messages": [USER], "tools": [{}]}, 400, "tools="),
        ({"messages": [USER], "logprobs": True}, 400, "logprobs=True"),
        ({"messages": [USER], "temprature": 0}, 400, "did you mean 'temperature'?"),
        ({"messages": [USER], "temperature": 3}, 400, "temperature=3"),
        ({"messages": [USER], "temperature": True}, 400, "temperature=True"),
        ({"messages": [USER], "max_tokens": 65}, 400, "use up to 64"),
        ({"messages": [USER], "max_tokens": 0}, 400, "max_tokens=0"),
        ({"messages": [USER], "max_tokens": 10**400}, 400, "too many"),
        ({"messages": [USER], "seed": -1}, 400, "seed=-1"),
        ({"messages": [USER], "stop": ["a"] * 5}, 400, "stop="),
        ({"messages": [USER], "stop": [""]}, 400, "stop has"),
        ({"messages": [USER], "stream": "yes"}, 400, "neither true nor false"),
        ({"messages": [USER], "hb_tta": 4}, 400, "hb_tta=4 is no JSON object"),
        ({"messages": [USER], "hb_tta": {"n": 4}}, 400, "use up to 3"),
        ({"messages": [USER], "hb_tta": {"n": "x"}}, 400, "n='x'"),
        ({"messages": [USER], "hb_tta": {"n": 1, "views": 1}}, 400, "stands twice"),
        ({"messages": [USER], "hb_tta": {"combine": "magic"}}, 400, "combine=magic"),
        *(
            ({"messages": [USER], "hb_tta": {name: "/etc"}}, 400, "is not a client's to say")
            for name in ("store", "family", "describer", "judge", "base", "device", "lora")
        ),
    ],
    ids=lambda one: str(one)[-60:],
)
def test_a_request_that_is_none(place, body, status, words):
    refused(post(place, json.dumps(body).encode()), status, words)


@pytest.mark.parametrize(
    "url, status, words",
    [
        ("data:image/png;base64,%%%", 400, "no base64"),
        ("data:image/png;base64,aGVsbG8=", 400, "is not an image"),
        ("data:image/png;base64,", 400, "is empty"),
        ("data:text/plain,hello", 400, "does not begin"),
        ("data:image/png;base64," + "A" * 1_400_000, 413, "more than 1 MB"),
        ("http://127.0.0.1:22/x.png", 403, "are not fetched"),
        ("https://images.example.org/x.png", 403, "are not fetched"),
        ("file:///etc/passwd", 400, "no plain http"),
        ("/etc/passwd", 400, "no plain http"),
        ("http://user:word@127.0.0.1/", 400, "no plain http"),
        ("http://[::1", 400, "address is none"),
        ("http://127.0.0.1:99999/", 400, "address is none"),
        ("", 400, "no plain http"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_an_image_that_is_none(place, url, status, words):
    refused(post(place, messages=messages(url, "Is it red?")), status, words)


def test_an_image_that_is_too_large(place):
    image = Image.new("RGB", (1001, 1000))
    refused(post(place, messages=messages(image, "?")), 413, "more than 1,000,000 pixels")
    three = messages(Image.new("RGB", (8, 8)), "?")
    three[0]["content"] *= 3
    refused(post(place, messages=three), 413, "3 images are too many")
    image = Image.new("RGB", (8, 8)).resize((5000, 5000))
    assert len(address(image)) < 200_000  # a bomb: 75 MB of pixels
    refused(post(place, messages=messages(image, "?")), 413, "pixels")
    lives(place)


def test_a_request_that_is_too_large(place):
    refused(post(place, bytes(3_000_001)), 413, "more than 3 MB")
    chunks = (bytes(100_000) for _ in range(40))
    response = httpx.post(f"{place}/v1/chat/completions", content=chunks, timeout=60)
    refused(response, 413, "more than 3 MB")


def test_other_paths_and_methods(place):
    refused(httpx.get(f"{place}/v1/embeddings"), 404, "there is nothing at /v1/embeddings")
    refused(httpx.get(f"{place}/v1/chat/completions"), 405, "does not know the method GET")
    refused(httpx.get(f"{place}/docs"), 404, "there is nothing")
    refused(httpx.get(f"{place}/v1/models/../../etc"), 404, "there is no")


# ── How it is asked ──────────────────────────────────────────────────────────────────────────────


def raw(place: str) -> socket.socket:
    host, _, port = place.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "data", [b"", HEAD, HEAD + b"Content-Length: 50\r\n\r\n{"], ids=["nothing", "head", "body"]
)
def test_a_client_that_does_not_come_to_the_point(place, data):
    with raw(place) as client:
        client.sendall(data)
        begun = time.monotonic()
        assert client.recv(1000).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begun < 25
    lives(place)


def test_what_is_no_http(place):
    with raw(place) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    lives(place)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away(place, stream):
    (sample,) = samples(1)
    body = {"messages": messages(sample.image, sample.question), "stream": stream}
    data = json.dumps({**body, "hb_tta": {"n": 3, "progress": stream}}).encode()
    for _ in range(4):
        with raw(place) as client:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    assert ask(place, sample).status_code == 200
    for _ in range(100):  # what they held is given back
        if "hb_tta_held_bytes 0\n" in httpx.get(f"{place}/metrics").text:
            return
        time.sleep(0.1)
    raise AssertionError(httpx.get(f"{place}/metrics").text)


def test_a_thousand_connections(place):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as held:
        clients = [held.enter_context(raw(place)) for _ in range(1000)]
        answers = [client.recv(1000) for client in clients[950:]]
        assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers)
        assert b"connections are open already: try later" in answers[0]
        refused_now = httpx.get(f"{place}/health", timeout=30)
        assert refused_now.status_code in (200, 503)
    for _ in range(100):
        if httpx.get(f"{place}/health", timeout=30).status_code == 200:
            break
        time.sleep(0.1)
    assert ask(place, samples(1)[0]).status_code == 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ── Models that are slow, or fail ────────────────────────────────────────────────────────────────


class Slow:
    """The bundled model on a bad day."""

    elsewhere = False

    def __init__(self, model, seconds: float = 0.0, fails: int = 0) -> None:
        self.names, self.combines, self._model = model.names, model.combines, model
        self._seconds, self._fails = seconds, fails

    def ask(self, questions):
        time.sleep(self._seconds)
        if self._fails:
            self._fails -= 1
            raise RuntimeError("secret of the house")
        return self._model.ask(questions)


def test_an_answer_that_takes_too_long(model):
    with served(Slow(model, 1.5), "none", limits={"seconds": 1}) as place:
        refused(ask(place, samples(1)[0]), 504, "no answer in 1 s")
        lives(place)


def test_too_many_that_wait(model):
    bounds = {"waiting": 1, "batch": 1}
    with served(Slow(model, 0.5), "none", limits=bounds) as place, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda sample: ask(place, sample), samples(8)))
        codes = {response.status_code for response in found}
        assert codes == {200, 503}
        late = next(response for response in found if response.status_code == 503)
        refused(late, 503, "questions wait already") or late.headers["Retry-After"]


def test_memory_has_an_end(model):
    with served(model, "none", limits={"memory_mb": 1}) as place:
        image = Image.new("RGB", (700, 700))
        refused(post(place, messages=messages(image, "?")), 503, "has no room for this one")
        assert ask(place, samples(1)[0]).status_code == 200


def test_a_bug_is_told_to_the_log_alone(model, capfd):
    with served(Slow(model, fails=1), "none") as place:
        response = ask(place, samples(1)[0])
        refused(response, 500, "the server failed at this question")
        assert "secret" not in response.text and "secret of the house" in capfd.readouterr().err
        assert ask(place, samples(1)[0]).status_code == 200


# ── Remote images ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254",
        "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1", "240.0.0.1", "::1",
        "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:53aa::1",
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys(text):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_open_internet(text):
    assert is_public(ipaddress.ip_address(text))


class Files(http.server.BaseHTTPRequestHandler):
    """A host on this machine that has an image, and ways to it."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/drip":
            for _ in range(100):
                self.wfile.write(b"H")
                time.sleep(0.2)
        else:
            self.send_response(404 if self.path == "/none" else 200)
            self.end_headers()
            self.wfile.write(bytes(2_000_000 if self.path == "/large" else 10))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def host() -> Iterator[tuple[int, list]]:
    with http.server.ThreadingHTTPServer((HOST, 0), Files) as server:
        server.asked = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1], server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()


def failing(remote: Remote, url: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        remote.fetch(url)
    return caught.value.status, caught.value.sentence


def test_private_hosts_are_not_asked_even_where_they_are_allowed():
    with host() as (port, asked):
        remote = Remote([f"localhost:{port}", f"127.0.0.1:{port}"], 5, 10**6)
        for name in ("localhost", "LOCALHOST", "127.0.0.1", "localhost."):
            status, sentence = failing(remote, f"http://{name}:{port}/a.png")
            assert status == 403 and "no host of the open internet" in sentence
        assert failing(remote, f"http://2130706433:{port}/")[0] == 403  # not by that name
        assert failing(remote, f"http://127.0.0.1:{port + 1}/")[0] == 403
        assert asked == []


def test_images_are_fetched_and_redirects_are_looked_at():
    with host() as (port, asked):
        allowed = [f"pictures.test:{port}", f"127.0.0.1:{port}"]
        remote = Remote(allowed, 5, 10**6, public=lambda address: str(address) == HOST)
        place = f"http://127.0.0.1:{port}"
        assert remote.fetch(f"{place}/a.png?b=1") == bytes(10)
        assert remote.fetch(f"{place}/to//a.png") == bytes(10)
        assert asked[0] == ("/a.png?b=1", f"127.0.0.1:{port}")
        before = len(asked)
        for elsewhere in (f"http://localhost:{port}/", "http://10.0.0.1/", "file:///etc/passwd",
                          f"http://127.0.0.1:{port + 1}/"):  # fmt: skip
            assert failing(remote, f"{place}/to/{elsewhere}")[0] in (400, 403)
        assert len(asked) == before + 4  # the first step of each alone
        loop = f"{place}" + "/to/" * 9
        assert failing(remote, loop)[1].startswith("the image's address leads on more than 3")
        assert failing(remote, f"{place}/none")[1].startswith("127.0.0.1 answers 404")
        assert failing(remote, f"{place}/large")[0] == 413
        begun = time.monotonic()
        slow = Remote(allowed, 1, 10**6, public=lambda _: True)
        assert failing(slow, f"{place}/drip")[0] == 504 and time.monotonic() - begun < 10


def test_a_name_is_looked_up_once_and_that_address_is_asked(monkeypatch):
    with host() as (port, asked):
        answers = [[(2, 1, 6, "", (HOST, port))], [(2, 1, 6, "", ("10.0.0.1", port))]]
        real, looked = socket.getaddrinfo, []

        def look_up(name, *rest, **others):
            if name != "pictures.test":
                return real(name, *rest, **others)
            looked.append(name)
            return answers[len(looked) - 1]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        remote = Remote([f"pictures.test:{port}"], 5, 10**6, public=lambda a: str(a) == HOST)
        assert remote.fetch(f"http://pictures.test:{port}/a") == bytes(10)
        assert looked == ["pictures.test"] and asked == [("/a", f"pictures.test:{port}")]
        assert failing(remote, f"http://pictures.test:{port}/a")[0] == 403  # a private one now
        answers.append([*answers[0], *answers[1]])  # a public one, and a private one behind it
        assert failing(remote, f"http://pictures.test:{port}/a")[0] == 403
        assert len(asked) == 1


@pytest.mark.parametrize("name", ["", "*", "*.example.org", "http://a", "a/b", "a:x", "u@a"])
def test_hosts_are_allowed_by_name(name):
    with pytest.raises(UserError, match="names no host"):
        Remote([name], 1, 1)


@pytest.mark.parametrize("text", ["images=0", "images=x", "pictures=1", "images=1,images=2", "a"])
def test_limits_that_are_none(text):
    with pytest.raises(UserError):
        Limits.parse(text)
