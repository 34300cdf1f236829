"""Who may ask: a key where the server can be reached from elsewhere, and no other site's pages."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hb_tta.errors import UserError
from hb_tta.serve.refusal import Refused

SHORTEST = 16
"""Characters of a key."""


def is_local(host: str) -> bool:
    """Whether a server at that address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Access:
    """Lets requests in, or does not.

    Attributes:
        host: the address that the server listens at.
        key: that clients must have; None: none. It is in no text that this object gives.

    Raises:
        UserError: the server can be reached from elsewhere and has no key, or a short one.
    """

    host: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is None and not is_local(self.host):
            raise UserError(
                f"--host {self.host} lets others in and there is no key: put one into a file and "
                "name it with --key-file, or leave --host out"
            )
        if self.key is not None and (len(self.key) < SHORTEST or not self.key.isascii()):
            raise UserError(f"a key has at least {SHORTEST} characters of ASCII: make a longer one")

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises Refused unless a request with these headers may be answered."""
        self.check_origin(headers)
        if self.key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _same(given.strip(), self.key):
            raise Refused(401, "the key is missing or wrong: send Authorization: Bearer KEY")

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raises Refused where another site's page asks, by its own name or by one of ours.

        Without a key a browser on this machine would lend everybody's pages its hand: a page may
        send what it likes to any address, and a name of its own may lead to this machine.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, "a page of another site may not ask this server")
        if self.key is None and not is_local(_name(host)):
            raise Refused(403, f"the server is not called {host!r}: use http://{self.host}")


def _name(host: str) -> str:
    """A Host header's name without the port; "" for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same(given: str, key: str) -> bool:
    """In a time that tells nothing of where they differ, nor of how long the key is."""
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, key)]
    return hmac.compare_digest(*digests)
