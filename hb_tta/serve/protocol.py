"""Connections: how many there are at a time, and how long one may take to ask for something."""

from __future__ import annotations

import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hb_tta.serve.limits import Limits
from hb_tta.serve.refusal import Refused

_REASONS = {408: b"Request Timeout", 503: b"Service Unavailable"}


def guarded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with the limits, which itself has neither."""
    return type("Guarded", (_Guarded,), {"limits": limits})


class _Guarded(H11Protocol):
    limits: Limits

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._look: Any = None
        if len(self.connections) > self.limits.connections:
            most = self.limits.connections
            self._refuse(Refused(503, f"{most} connections are open already: try later", wait=5))
        else:
            self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._look = self.loop.call_later(self.limits.asking_seconds, self._look_now)

    def _look_now(self) -> None:
        """End a connection that began to ask, or never did, and did not come to the point."""
        asked = self.cycle is not None
        idle = asked and self.cycle.response_complete and self.conn.their_state is h11.IDLE
        if not asked or (idle and self.conn.trailing_data[0]):
            seconds = self.limits.asking_seconds
            self._refuse(Refused(408, f"nothing was asked in {seconds} s: ask, or close"))
        else:
            self._look_later()

    def _refuse(self, refused: Refused) -> None:
        body = json.dumps(refused.to_json()).encode()
        heads = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        heads |= {"Connection": "close", **refused.headers}
        lines = [f"{name}: {value}".encode() for name, value in heads.items()]
        status = b"HTTP/1.1 %d %s" % (refused.status, _REASONS[refused.status])
        self.transport.write(b"\r\n".join([status, *lines, b"", body]))
        self.transport.close()
