"""A client's request in OpenAI's form, read and checked: what is not understood is refused.

https://platform.openai.com/docs/api-reference/chat/create . A field that would change the answer is
never passed over in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hb_tta.errors import choose_from, shown
from hb_tta.serve.conversation import USER, Conversation, Turn
from hb_tta.serve.limits import Limits
from hb_tta.serve.refusal import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

TOKENS = 128
"""Of an answer where nobody says how many, as in ``hb_tta.answer``."""

_ROLES = {"system": "system", "developer": "system", "user": USER, "assistant": "assistant"}
_READ = (
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("stop", "stream", "stream_options", "hb_tta"),
)
# What changes nothing here, or says what is so already.
_IDLE = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none",),
}
_ANSWERING = ("augment", "pictures", "progress")


@dataclass(frozen=True)
class Decoding:
    """How an answer is decoded; None: as the model's own settings say.

    Attributes:
        tokens: at most.
        temperature: 0 for the likeliest word each time.
        top_p: share of the likeliest words that are drawn from.
        seed: of what is drawn.
        stop: texts that end the answer, and are not in it.
    """

    tokens: int = TOKENS
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What a client asks for.

    Attributes:
        conversation: the question, and what was before it.
        decoding: of the answer.
        stream: whether it comes in pieces.
        usage: whether the last piece counts tokens.
        augment: whether views are shown; False: the plain answer.
        pictures: whether the response has the candidates themselves.
        progress: whether the stream tells of what is done before the first word.
        overrides: of ``hb_tta.serve.offer``.
    """

    conversation: Conversation
    decoding: Decoding
    stream: bool = False
    usage: bool = False
    augment: bool = True
    pictures: bool = False
    progress: bool = False
    overrides: Mapping[str, Any] | None = None


def read_wish(
    body: Any, names: tuple[str, ...], limits: Limits, picture: Callable[[str], Image]
) -> Wish:
    """What a request's JSON asks for.

    Args:
        names: that the model has.
        picture: an image at an address.

    Raises:
        Refused: it is no such request, or asks for too much.
    """
    if not isinstance(body, dict):
        raise Refused(400, 'the request is no JSON object: send {"messages": […]}')
    _check_fields(body)
    _check_model(body.get("model"), names)
    asked = _object(body, "hb_tta")
    options = _object(body, "stream_options")
    return Wish(
        _conversation(body.get("messages"), limits, picture),
        _decoding(body, limits),
        stream=_flag(body, "stream", False),
        usage=_flag(options, "include_usage", False),
        augment=_flag(asked, "augment", True),
        pictures=_flag(asked, "pictures", False),
        progress=_flag(asked, "progress", False),
        overrides={name: value for name, value in asked.items() if name not in _ANSWERING},
    )


def _check_fields(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in _READ or name in _IDLE or value is None:
            continue
        if name not in _NEUTRAL:
            raise Refused(400, f"the field {shown(name)} is not known{choose_from(name, _READ)}")
        if not any(value == one and type(value) is type(one) for one in _NEUTRAL[name]):
            if not (value == 0 and 0 in _NEUTRAL[name]):
                raise Refused(400, f"{name}={shown(value)} is not to be had here: leave it out")


def _check_model(name: Any, names: tuple[str, ...]) -> None:
    if name is not None and name not in names:
        raise Refused(404, f"there is no model {shown(name)}: this server has {names[0]!r}")


def _decoding(body: Mapping[str, Any], limits: Limits) -> Decoding:
    tokens = [_whole(body, name, 1, None) for name in ("max_completion_tokens", "max_tokens")]
    usual = min(TOKENS, limits.tokens)
    most = next((value for value in tokens if value is not None), usual)
    if most > limits.tokens:
        raise Refused(400, f"max_tokens={most} is too many: use up to {limits.tokens}")
    return Decoding(
        most,
        _number(body, "temperature", 0, 2),
        _number(body, "top_p", 1e-6, 1),
        _whole(body, "seed", 0, 2**63 - 1),
        _stops(body.get("stop")),
    )


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or len(texts) > 4:
        raise Refused(400, f"stop={shown(value)} is no text and no list of up to 4")
    if not all(isinstance(text, str) and 0 < len(text) <= 200 for text in texts):
        raise Refused(400, "stop has what is no text of 1 to 200 characters: leave it out")
    return tuple(texts)


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────


def _conversation(messages: Any, limits: Limits, picture: Callable[[str], Image]) -> Conversation:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages is no list with a message in it: send the question there")
    addresses: list[str] = []
    turns = tuple(_turn(place, message, addresses) for place, message in enumerate(messages))
    characters = sum(len(p) for turn in turns for p in turn.parts if isinstance(p, str))
    if characters > limits.characters:
        raise Refused(413, f"{characters} characters are too many: send up to {limits.characters}")
    if len(addresses) > limits.images:
        raise Refused(413, f"{len(addresses)} images are too many: send up to {limits.images}")
    if turns[-1].role != USER or not any(isinstance(part, str) for part in turns[-1].parts):
        raise Refused(400, "the last message is not the user's, or has no text: ask something")
    return Conversation(turns, tuple(picture(address) for address in addresses))


def _turn(place: int, message: Any, addresses: list[str]) -> Turn:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(
            400, f"messages[{place}] has no role: use system, user or assistant, and content"
        )
    content = message.get("content")
    if isinstance(content, str):
        return Turn(_ROLES[role], (content,))
    if not isinstance(content, list):
        raise Refused(400, f"messages[{place}].content is no text and no list of parts")
    parts = tuple(_part(f"messages[{place}].content", part, addresses) for part in content)
    return Turn(_ROLES[role], parts)


def _part(where: str, part: Any, addresses: list[str]) -> str | int:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    image = part.get("image_url") if kind == "image_url" else None
    address = image.get("url") if isinstance(image, dict) else image
    if not isinstance(address, str):
        raise Refused(400, f"{where} has a part that is neither text nor image_url: leave it out")
    addresses.append(address)
    return len(addresses) - 1


# ── Values ───────────────────────────────────────────────────────────────────────────────────────


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refused(400, f"{name}={shown(value)} is no JSON object")
    return value or {}


def _flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{name}={shown(value)} is neither true nor false")
    return default if value is None else value


def _number(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most:
        raise Refused(400, f"{name}={shown(value)} is no number from {least:g} to {most:g}")
    return float(value)


def _whole(body: Mapping[str, Any], name: str, least: int, most: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least or (most is not None and value > most):
        raise Refused(400, f"{name}={shown(value)} is no whole number of at least {least}")
    return value
