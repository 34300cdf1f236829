"""Images at addresses that clients name: at hosts that are allowed, never in a private network.

A name is looked up once, every address that it has must be a public one, and the connection goes
to that very address, so that a second look-up cannot lead elsewhere. A redirect is a new address
and goes the same way. No proxy, no cookies, nothing of the environment is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from hb_tta.errors import UserError
from hb_tta.serve.limits import MB
from hb_tta.serve.refusal import Refused

REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_TRANSLATED = ipaddress.ip_network("64:ff9b::/32")  # both NAT64 prefixes: they lead into IPv4

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, also one that is hidden in another."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None or address.teredo is not None or address in _TRANSLATED:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class Target(NamedTuple):
    """Where a request goes."""

    scheme: str
    host: str
    port: int
    path: str


class Remote:
    """Fetches images.

    Args:
        allowed: hosts by name, "images.example.org" or "images.example.org:8443"; without a port
            the scheme's own alone.
        seconds: for everything, redirects with it.
        most: bytes of a file.
        public: which addresses may be asked.

    Raises:
        UserError: what is allowed is no host's name.
    """

    def __init__(
        self,
        allowed: Collection[str],
        seconds: float,
        most: int,
        *,
        public: Callable[[Address], bool] = is_public,
    ) -> None:
        self._allowed = {_allowed(name) for name in allowed}
        self._seconds, self._most, self._public = seconds, most, public

    def fetch(self, address: str) -> bytes:
        """The bytes of a file.

        Raises:
            Refused: the address is not allowed, or nothing, or too much, comes from there.
        """
        until = time.monotonic() + self._seconds
        for _ in range(REDIRECTS + 1):
            found = self._ask(self._target(address), until)
            if isinstance(found, bytes):
                return found
            address = urljoin(address, found)
        raise Refused(400, f"the image's address leads on more than {REDIRECTS} times: send it")

    def _target(self, address: str) -> Target:
        """Where an address leads, if it may."""
        try:
            parts: SplitResult = urlsplit(address)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise Refused(400, "an image's address is none: send a data: address") from None
        if parts.scheme not in _PORTS or not host or parts.username or parts.password:
            raise Refused(400, "an image's address is no plain http or https: send a data: address")
        port = _PORTS[parts.scheme] if port is None else port
        if (host, port) not in self._allowed and (
            (host, None) not in self._allowed or port != _PORTS[parts.scheme]
        ):
            raise Refused(
                403,
                f"images of {host}:{port} are not fetched: send the image in a data: address, or "
                "start the server with --allow-host",
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or any(char <= " " or char == "\x7f" for char in path):
            raise Refused(400, "an image's address has characters to be escaped: escape them")
        return Target(parts.scheme, host, port, path)

    def _looked_up(self, target: Target) -> str:
        """The address of a host, all of whose addresses may be asked."""
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Refused(400, f"there is no host {target.host!r}: send the image itself") from None
        texts = [str(place[4][0]).partition("%")[0] for place in found]
        if not texts or not all(self._public(ipaddress.ip_address(text)) for text in texts):
            raise Refused(
                403, f"{target.host} is no host of the open internet: send the image itself"
            )
        return texts[0]

    def _ask(self, target: Target, until: float) -> bytes | str:
        """A file, or where it lies instead."""
        left = until - time.monotonic()
        late = Refused(504, f"the image at {target.host} did not come in {self._seconds:.0f} s")
        if left <= 0:
            raise late
        connection = _Pinned(target, self._looked_up(target), left)
        # A host that sends a byte now and then never runs into a timeout of its own.
        end = threading.Timer(left, connection.cut)
        end.daemon = True
        end.start()
        try:
            connection.request("GET", target.path, headers={"Accept": "image/*"})
            return self._read(connection.getresponse(), target)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= until or isinstance(error, TimeoutError):
                raise late from None
            raise Refused(
                400, f"the image at {target.host} cannot be fetched ({type(error).__name__})"
            ) from None
        finally:
            end.cancel()
            connection.close()

    def _read(self, response: http.client.HTTPResponse, target: Target) -> bytes | str:
        if response.status in _MOVED:
            return response.headers.get("Location", "")
        if response.status != 200:
            raise Refused(400, f"{target.host} answers {response.status} in place of an image")
        data = response.read(self._most + 1)
        if len(data) > self._most:
            raise Refused(
                413, f"the image at {target.host} has more than {self._most // MB} MB: shrink it"
            )
        return data


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was looked up before, for a host of some name."""

    def __init__(self, target: Target, address: str, seconds: float) -> None:
        super().__init__(target.host, target.port, timeout=seconds)
        self._address, self._secure = address, target.scheme == "https"

    def connect(self) -> None:
        """See ``http.client``."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """End it from another thread."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _allowed(name: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{name}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path or parts.username or "*" in host:
        raise UserError(f"--allow-host {name!r} names no host: write images.example.org")
    return host.rstrip("."), port
