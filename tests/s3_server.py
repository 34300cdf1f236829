"""An S3 server on this host (moto's, over HTTP), with faults between it and its clients."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass
class Faults:
    """Stands before the server.

    Attributes:
        share: of requests that fail, by kinds in turn.
        kinds: "error" (503), "cut" (the answer ends in the middle), "half" (an upload arrives
            half and is refused), "hang" (no answer for ``seconds``).
        only: fails a request if this says so of its method and path.
        seconds: that "hang" takes.
        asked, failed: how many requests there were.
    """

    app: Callable[..., Iterable[bytes]]
    share: float = 0.0
    kinds: tuple[str, ...] = ("error", "cut", "half", "hang")
    only: Callable[[str, str], bool] = lambda method, path: True
    seconds: float = 0.2
    asked: int = 0
    failed: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.asked += 1
            fails = self._chance.random() < self.share
            if fails := fails and self.only(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
                self.failed += 1
            kind = self.kinds[self.failed % len(self.kinds)] if fails else ""
        if kind == "hang":
            time.sleep(self.seconds)
        if kind == "half":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
        if kind in ("error", "half", "hang"):
            start("503 Slow Down", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        answer = self.app(environ, start)
        return _cut(answer) if kind == "cut" else answer


def _cut(answer: Iterable[bytes]) -> Iterator[bytes]:
    """Half of it; the length that was announced tells the client."""
    whole = b"".join(answer)
    yield whole[: len(whole) // 2]


@contextmanager
def s3_server() -> Iterator[tuple[str, Faults]]:
    """Its address, and what stands before it. Buckets of earlier servers are gone."""
    from moto.backends import get_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    get_backend("s3").reset()
    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        thread.join()
