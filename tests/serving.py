"""What the tests of ``hb-tta serve`` share: a server on a free port, and questions."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from PIL.Image import Image

from hb_tta.families import get_family
from hb_tta.pocket.tasks import Sample, pocket_mme
from hb_tta.serve.access import Access
from hb_tta.serve.asking import Backend
from hb_tta.serve.limits import Limits
from hb_tta.serve.local import Local
from hb_tta.serve.offer import Offer
from hb_tta.serve.server import Serving, address_of, listen, server_of
from hb_tta.store import Store

HOST = "127.0.0.1"


def pocket() -> Local:
    """The bundled model."""
    return Local(get_family("pocket").weights("mllm").location, "pocket", device="cpu")


@contextmanager
def served(
    backend: Backend,
    method: str = "jitter",
    asked: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    limits: Mapping[str, int] | None = None,
    hosts: Sequence[str] = (),
    store: Store | None = None,
) -> Iterator[str]:
    """The address of a server that lives as long as this is entered."""
    bounds = Limits(**(limits or {}))
    offer = Offer(method, asked or {}, bounds, backend.combines, "cpu")
    serving = Serving(backend, offer, Access(HOST, key), bounds, hosts, store)
    with listen(HOST, 0) as listening:
        server = server_of(serving)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server does not stop"


def samples(count: int) -> list[Sample]:
    """The first questions of the dev split."""
    found = pocket_mme("dev")
    return [next(found) for _ in range(count)]


def address(image: Image) -> str:
    """An image as a ``data:`` address."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def messages(image: Image | str, question: str) -> list[dict[str, Any]]:
    """One message of a client's."""
    url = image if isinstance(image, str) else address(image)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def ask(place: str, sample: Sample, **fields: Any) -> httpx.Response:
    """A question, greedily answered unless the fields say otherwise."""
    body = {"messages": messages(sample.image, sample.question), "temperature": 0, **fields}
    return httpx.post(f"{place}/v1/chat/completions", json=body, timeout=120)
