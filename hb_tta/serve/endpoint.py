"""A model behind another OpenAI-compatible endpoint: it gives texts, which vote.

All rows of all questions of a batch are in flight at once, so that an engine can batch them.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx

from hb_tta.errors import UserError, shown, visible
from hb_tta.serve.asking import Question, Said
from hb_tta.serve.chat import Decoding
from hb_tta.serve.conversation import Row
from hb_tta.serve.job import LENGTH, STOP
from hb_tta.serve.refusal import Refused
from hb_tta.settings.augmented import CONCAT, VOTE
from hb_tta.tta.vote import vote

if TYPE_CHECKING:
    from PIL.Image import Image

IN_FLIGHT = 128
"""Requests at a time."""


class Endpoint:
    """A model elsewhere.

    Args:
        url: up to and with ``/v1``.
        name: of the model there; None: the only one that it has.
        key: that it asks for; None: none.
        seconds: for an answer.

    Raises:
        UserError: it does not answer, or has several models and none is named.
    """

    names: tuple[str, ...]
    combines: tuple[str, ...] = (VOTE, CONCAT)
    elsewhere: bool = True

    def __init__(self, url: str, name: str | None, key: str | None, seconds: float) -> None:
        self._url, self._seconds = url.rstrip("/"), seconds
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._model = name or self._only_model()
        self.names = (self._model,)

    def ask(self, questions: Sequence[Question]) -> list[Said | Exception]:
        """See ``Backend``."""
        return asyncio.run(self._all(questions))

    async def _all(self, questions: Sequence[Question]) -> list[Said | Exception]:
        limits = httpx.Limits(max_connections=IN_FLIGHT)
        async with httpx.AsyncClient(
            headers=self._headers, timeout=self._seconds, limits=limits
        ) as client:
            asked = (self._voted(client, question) for question in questions)
            found = await asyncio.gather(*asked, return_exceptions=True)
        unforeseen = [e for e in found if isinstance(e, BaseException)]
        for error in unforeseen:
            if not isinstance(error, Exception):
                raise error
        return found  # type: ignore[return-value]

    async def _voted(self, client: httpx.AsyncClient, question: Question) -> Said:
        said = await asyncio.gather(*(self._one(client, question, row) for row in question.rows))
        texts = [one.text for one in said]
        chosen = said[vote(texts, question.combining.real_weight)]
        if question.words is not None:
            question.words(chosen.text)
        return chosen._replace(answers=[{"text": text} for text in texts])

    async def _one(self, client: httpx.AsyncClient, question: Question, row: Row) -> Said:
        address = f"{self._url}/chat/completions"
        try:
            answered = await client.post(address, json=self._body(question, row))
        except httpx.TimeoutException:
            raise Refused(504, f"the model did not answer within {self._seconds:.0f} s") from None
        except httpx.HTTPError as error:
            raise Refused(502, f"the model cannot be asked ({type(error).__name__})") from None
        if answered.status_code != 200:
            status = answered.status_code if answered.status_code in (400, 413, 429) else 502
            raise Refused(status, f"the model answers {answered.status_code}: {_why(answered)}")
        try:
            choice, usage = answered.json()["choices"][0], answered.json().get("usage") or {}
            text = choice["message"]["content"] or ""
            ended = LENGTH if choice.get("finish_reason") == LENGTH else STOP
            counts = [int(usage.get(n) or 0) for n in ("prompt_tokens", "completion_tokens")]
            return Said(str(text), [], None, None, ended, *counts)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise Refused(502, "the model's answer is none in OpenAI's form") from None

    def _body(self, question: Question, row: Row) -> dict[str, Any]:
        messages = question.conversation.chat(row, data_address)
        return {"model": self._model, "messages": messages, **_fields(question.decoding)}

    def _only_model(self) -> str:
        way_out = "name one with --name"
        try:
            found = httpx.get(f"{self._url}/models", headers=self._headers, timeout=10)
            names = [one["id"] for one in found.raise_for_status().json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            told = f"{type(error).__name__}: {visible(error)}"
            raise UserError(f"--model {self._url} does not tell its models ({told})") from None
        if len(names) != 1:
            told = ", ".join(map(shown, names[:10])) or "none"
            raise UserError(f"--model {self._url} has not one model but {told}: {way_out}")
        return str(names[0])


def data_address(image: Image) -> str:
    """An image, every pixel of it, as a ``data:`` address."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _fields(decoding: Decoding) -> dict[str, Any]:
    told = {
        "max_tokens": decoding.tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
        "stop": list(decoding.stop) or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _why(answered: httpx.Response) -> str:
    try:
        return str(answered.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answered.reason_phrase
