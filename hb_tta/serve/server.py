"""From settings to a server that listens, until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hb_tta.errors import UserError
from hb_tta.serve.access import Access
from hb_tta.serve.asking import Backend
from hb_tta.serve.counts import Counts
from hb_tta.serve.limits import MB, Limits
from hb_tta.serve.offer import Offer
from hb_tta.serve.remote import Remote
from hb_tta.serve.views import Views
from hb_tta.serve.worker import Worker
from hb_tta.store import Store, TieredStore

BACKLOG = 2048


@dataclass(frozen=True)
class Serving:
    """What is served, and to whom.

    Attributes:
        backend: who answers.
        offer: which views, and how answers are combined.
        access: who may ask.
        limits: of requests.
        hosts: from which images may be fetched.
        store: where views are kept; None: nowhere.
    """

    backend: Backend
    offer: Offer
    access: Access
    limits: Limits = field(default_factory=Limits)
    hosts: Sequence[str] = ()
    store: Store | TieredStore | None = None

    def app(self) -> Any:
        """The application, for any server of ASGI; connections are limited by ``run``."""
        from hb_tta.serve.answering import Answering
        from hb_tta.serve.app import Desk, build

        limits, counts = self.limits, Counts()
        settings = self.offer.settings
        views = None if settings is None else Views(settings, self.store, limits)
        answering = Answering(self.backend, views, counts)
        remote = Remote(self.hosts, limits.fetching_seconds, limits.image_mb * MB)
        worker = Worker(answering, limits.waiting, limits.batch)

        def close() -> None:
            answering.close()
            if views is not None:
                views.trim(now=True)

        names, offer, access = self.backend.names, self.offer, self.access
        return build(Desk(names, offer, worker, limits, access, remote, counts, close))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0: a free one.

    Raises:
        UserError: the address is not to be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port} is not to be had: {reason}") from None


def address_of(listening: socket.socket) -> str:
    """Of a browser: http://127.0.0.1:8000"""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(serving: Serving, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; then what was taken is answered, and nothing new is.

    Args:
        ready: called when it is about to begin.
    """
    _raise_open_files(serving.limits.connections)
    # uvicorn raises the signal once more behind its end, which has been obeyed then.
    before = {number: signal.signal(number, _nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ready()
        server_of(serving).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_of(serving: Serving) -> Any:
    """uvicorn's server, which any thread may run on sockets that listen."""
    import uvicorn

    from hb_tta.serve.protocol import guarded

    config = uvicorn.Config(
        serving.app(),
        http=guarded(serving.limits),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=serving.limits.seconds,
    )
    return uvicorn.Server(config)


def _nothing(*_: object) -> None:
    pass


def _raise_open_files(connections: int) -> None:
    """A connection is an open file, and many a shell allows 1,024."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + 512
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
