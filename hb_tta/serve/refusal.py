"""What a client is told in place of an answer: a status of HTTP and a sentence."""

from __future__ import annotations

from typing import Any

from hb_tta.errors import told, visible

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP: below 500 the client can mend it.
        sentence: names the thing, the value and the way out, as a ``UserError`` does.
        wait: seconds after which another try may succeed; None: nobody knows.
    """

    def __init__(self, status: int, sentence: str, wait: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.wait = status, wait
        self.sentence = told(visible(sentence))

    @property
    def headers(self) -> dict[str, str]:
        """Of the response."""
        asked = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return asked if self.wait is None else {**asked, "Retry-After": str(self.wait)}

    def to_json(self) -> dict[str, Any]:
        """The body of the response, in the form that OpenAI's clients read."""
        other = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _KINDS.get(self.status, other)
        return {"error": {"message": self.sentence, "type": kind, "code": self.status}}
