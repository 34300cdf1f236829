"""Whether the hub can be reached, found out in seconds.

The hub's libraries wait for a network that is not there, and try again: a minute for a data set,
two for a model of open_clip's. Whatever asks the hub does so inside ``at_once``.
"""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 3.0  # that the hub has for a first answer
_KEPT_SECONDS = 60.0  # that a failure is believed; a success for the whole process

_asked: dict[str, float] = {}  # endpoint → when it did not answer; inf where it did


@contextmanager
def at_once() -> Iterator[None]:
    """Where the hub cannot be reached its libraries take what is on this machine, and ask nobody.

    What they lack then, they say at once, each in an error of its own.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or hub_answers():
        yield
        return
    waited = socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = True
    socket.setdefaulttimeout(SECONDS)  # of weights that lie elsewhere than on the hub
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False
        socket.setdefaulttimeout(waited)


def hub_answers() -> bool:
    """Whether the hub says anything at all, through whatever proxies the environment names."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    then = _asked.get(endpoint)
    if then is None or time.monotonic() - then > _KEPT_SECONDS:
        _asked[endpoint] = float("inf") if _answers(endpoint) else time.monotonic()
    return _asked[endpoint] == float("inf")


def _answers(url: str) -> bool:
    """In a thread that is left behind when it takes too long: looking a name up has no limit."""
    answered: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS):
                answered.append(True)
        except urllib.error.HTTPError:  # an answer, if no friendly one
            answered.append(True)
        except urllib.error.URLError as error:
            # No trust in a certificate is between the hub's client and the person: it answers.
            answered.append("CERTIFICATE" in str(error.reason).upper())
        except (OSError, ValueError):
            answered.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 0.5)
    return bool(answered and answered[0])
