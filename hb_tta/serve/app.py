"""The routes, and the way of a request from its bytes to a job and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hb_tta.reading import parse_json
from hb_tta.serve.access import Access
from hb_tta.serve.chat import Wish, read_wish
from hb_tta.serve.counts import Counts
from hb_tta.serve.job import Answered, Event, Job
from hb_tta.serve.limits import MB, Limits, Memory, Share
from hb_tta.serve.offer import Offer
from hb_tta.serve.page import page
from hb_tta.serve.pictures import read_picture
from hb_tta.serve.refusal import Refused
from hb_tta.serve.remote import Remote
from hb_tta.serve.reply import Reply
from hb_tta.serve.worker import Worker, refusal

Events: TypeAlias = AsyncGenerator[Event, None]

READERS = 16
"""Requests whose images are decoded, or fetched, at a time."""


class Desk:
    """Takes requests, and hands out what became of them.

    Args:
        names: of the model.
        offer: settings.
        worker: answers; it is started and stopped with the application.
        limits: of requests.
        access: who may ask.
        remote: fetches images.
        counts: of what was done.
        close: called when the worker has ended.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        offer: Offer,
        worker: Worker,
        limits: Limits,
        access: Access,
        remote: Remote,
        counts: Counts,
        close: Callable[[], None],
    ) -> None:
        self.names, self.worker, self.access, self.counts = names, worker, access, counts
        self._offer, self._limits, self._remote, self._close = offer, limits, remote, close
        self.memory = Memory(limits.memory_mb * MB)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="hb-tta reader")
        self._begun = int(time.time())

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """The application's life."""
        self.worker.start()
        yield
        await asyncio.to_thread(self.worker.stop, float(self._limits.seconds))
        await asyncio.to_thread(self._close)
        self._readers.shutdown(wait=False)

    def models(self) -> list[dict[str, Any]]:
        """In OpenAI's form."""
        owner = {"object": "model", "created": self._begun, "owned_by": "hb-tta"}
        return [{"id": self.names[0], **owner}]

    async def chat(self, request: Request) -> Response:
        """Answer a request, or refuse it."""
        arrived = time.monotonic()
        with ExitStack() as held:
            share = held.enter_context(self.memory.share())
            data = await self._body(request, share)
            wish = await self._aside(partial(self._read, data, share))
            job, events = self._begin(request, wish, arrived)
            reply = Reply(self.names[0])
            if not wish.stream:
                return JSONResponse(reply.whole(await _last(events)))
            first = await _first(events, wait=not wish.progress)
            held.callback(job.cancelled.set)
            pieces = reply.pieces(_behind(first, events), wish.usage)
            return StreamingResponse(
                _holding(pieces, held.pop_all()),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        raise AssertionError

    async def _body(self, request: Request, share: Share) -> bytes:
        """The whole body, within the limits of size and time."""
        most, chunks, size = self._limits.body_mb * MB, [], 0
        too_large = Refused(413, f"the request has more than {self._limits.body_mb} MB: send less")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            raise too_large
        try:
            async with asyncio.timeout(self._limits.asking_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    share.add(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            seconds = self._limits.asking_seconds
            raise Refused(408, f"the request did not come whole in {seconds} s: send it") from None
        return b"".join(chunks)

    def _read(self, data: bytes, share: Share) -> Wish:
        try:
            body = parse_json(data)
        except ValueError as error:
            raise Refused(400, f"the request is no JSON ({error}): send an object") from None
        picture = partial(read_picture, remote=self._remote, limits=self._limits, share=share)
        return read_wish(body, self.names, self._limits, picture)

    async def _aside(self, work: Callable[[], Wish]) -> Wish:
        """In another thread: decoding takes the processor, fetching takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _begin(self, request: Request, wish: Wish, arrived: float) -> tuple[Job, Events]:
        """Hand a question to the worker."""
        settings = self._offer.of(wish.overrides or {}) if wish.augment else None
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = Job(
            wish.conversation,
            wish.decoding,
            settings,
            _teller(events),
            float(self._limits.seconds),
            pictures=wish.pictures,
            progress=wish.progress,
            stream=wish.stream,
            begun=arrived,
        )
        self.worker.take(job)
        return job, self._events(request, job, events)

    async def _events(self, request: Request, job: Job, events: asyncio.Queue[Event]) -> Events:
        """What becomes of a job, until its end, the client's or its time's."""
        gone = asyncio.create_task(_gone(request))
        try:
            while True:
                told = asyncio.create_task(events.get())
                left = max(0.0, job.begun + job.seconds - time.monotonic())
                await asyncio.wait({told, gone}, timeout=left, return_when="FIRST_COMPLETED")
                if not told.done():
                    told.cancel()
                    if gone.done():
                        raise Refused(499, "the client has gone")
                    yield Refused(504, f"there was no answer in {job.seconds:.0f} s: ask for less")
                    return
                event = told.result()
                if isinstance(event, Answered):
                    self.counts.took(time.monotonic() - job.begun)
                yield event
                if isinstance(event, Answered | Refused):
                    return
        finally:
            job.cancelled.set()
            gone.cancel()


def build(desk: Desk) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="hb-tta", docs_url=None, redoc_url=None, openapi_url=None, lifespan=desk.running
    )
    _handle_errors(app)
    app.add_middleware(_Around, counts=desk.counts)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        desk.access.check(request.headers)
        return await desk.chat(request)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        desk.access.check(request.headers)
        return JSONResponse({"object": "list", "data": desk.models()})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        desk.access.check(request.headers)
        if name not in desk.names:
            raise Refused(404, f"there is no model {name!r}: this server has {desk.names[0]!r}")
        return JSONResponse(desk.models()[0])

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        desk.access.check(request.headers)
        now = {"questions_waiting": desk.worker.waiting, "held_bytes": desk.memory.held}
        return PlainTextResponse(desk.counts.text(**now))

    @app.get("/health")
    async def health() -> Response:
        alive = desk.worker.alive
        return JSONResponse({"status": "ok" if alive else "stopping"}, 200 if alive else 503)

    @app.get("/")
    async def start(request: Request) -> Response:
        desk.access.check_origin(request.headers)
        return HTMLResponse(page(desk.names[0], keyed=desk.access.key is not None))

    return app


class _Around:
    """Counts responses, and has browsers take them for what they are."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.request(message["status"])
                message["headers"].append((b"x-content-type-options", b"nosniff"))
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


def _handle_errors(app: FastAPI) -> None:
    """Every refusal is a status and a sentence in JSON."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.to_json(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> Response:
        path = request.url.path[:100]
        sentences = {
            404: f"there is nothing at {path}: ask /v1/chat/completions",
            405: f"{path} does not know the method {request.method[:20]}",
        }
        told = Refused(error.status_code, sentences.get(error.status_code, str(error.detail)))
        return JSONResponse(told.to_json(), told.status)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        told = refusal(error)
        return JSONResponse(told.to_json(), told.status, told.headers)


def _teller(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Puts events into a queue of this thread's loop, from any thread."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody listens
            loop.call_soon_threadsafe(events.put_nowait, event)

    return tell


async def _gone(request: Request) -> None:
    """Ends when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _last(events: Events) -> Answered:
    """The answer.

    Raises:
        Refused: there is none.
    """
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Answered):
                return event
            if isinstance(event, Refused):
                raise event
    raise AssertionError("a job ends with an answer or a refusal")


async def _first(events: Events, *, wait: bool) -> list[Event]:
    """The first event, so that a refusal can still be a status; none, if nobody is to wait."""
    if not wait:
        return []
    event = await anext(events)
    if isinstance(event, Refused):
        await events.aclose()
        raise event
    return [event]


async def _behind(first: list[Event], events: Events) -> AsyncIterator[Event]:
    async with aclosing(events):
        for event in first:
            yield event
        async for event in events:
            yield event


async def _holding(pieces: AsyncIterator[bytes], held: ExitStack) -> AsyncIterator[bytes]:
    """The pieces; what the request holds is given back behind them, also where nobody listens."""
    with held, suppress(Refused):
        async for piece in pieces:
            yield piece
