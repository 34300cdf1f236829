"""What engines and services give beside texts: log-probabilities of prompts, in vLLM's forms.

A backend is known by the module of lmms-eval that its class is in. The answer that is scored is a
message of the assistant's that is begun and not ended (``continue_final_message``), so that its
tokens follow the question as generated ones would.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hb_tta.errors import UserError
from hb_tta.tta.rescore import Scorer

Pairs = Sequence[tuple[Any, str | None]]
Scores = list[list[float] | Exception]
_ENGINES = ("vllm", "vllm_generate", "sglang")  # which batch in this process
_SERVICES = ("openai", "async_openai", "litellm", "gemini", "claude", "gpt4v", "batch_gpt4",
             "generation_api", "qwen_vl_api", "reka", "srt_api", "llava_sglang")  # fmt: skip


def is_hosted(backend: Any) -> bool:
    """Whether a backend is known to answer elsewhere than in transformers."""
    return _kind(backend, (*_ENGINES, *_SERVICES)) is not None


def batches_itself(backend: Any) -> bool:
    """Whether it splits requests by ``batch_size`` before an engine that would batch them."""
    return _kind(backend, _ENGINES) is not None and hasattr(backend, "batch_size_per_gpu")


def scorer_of(backend: Any) -> Scorer | None:
    """How a backend scores answers; None where it does not."""
    kind = None if backend.is_simple else _kind(backend, tuple(_SCORERS))
    return None if kind is None else partial(_SCORERS[kind], backend)


def _kind(backend: Any, names: tuple[str, ...]) -> str | None:
    """Which of these modules of lmms-eval the backend's class is of."""
    for cls in type(backend).__mro__:
        package, _, name = cls.__module__.rpartition(".")
        if package.startswith("lmms_eval.models") and name in names:
            return name
    return None


# ── vLLM in this process ─────────────────────────────────────────────────────────────────────────


def _vllm(backend: Any, pairs: Pairs) -> Scores:
    if getattr(backend, "_tp_world_size", 1) > 1:
        raise UserError(
            "combine=rescore does not work where several processes share one engine: use "
            "combine=vote"
        )
    upstream = sys.modules["lmms_eval.models.chat.vllm"]
    params = upstream.SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    found: Scores = [[] for _ in pairs]
    for begun in (True, False):
        places = [place for place, (_, text) in enumerate(pairs) if (text is not None) == begun]
        messages = [
            [*backend.make_one_request(pairs[place][0])[0], *_begun(pairs[place][1])]
            for place in places
        ]
        if not messages:
            continue
        outputs = backend.client.chat(
            messages=messages,
            sampling_params=[params] * len(messages),
            chat_template=backend.chat_template,
            add_generation_prompt=not begun,
            continue_final_message=begun,
        )
        for place, output in zip(places, outputs, strict=True):
            tokens = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
            found[place] = [its[token].logprob for token, its in list(tokens)[1:]]
    return found


def _begun(text: str | None) -> list[dict[str, Any]]:
    return [] if text is None else [{"role": "assistant", "content": text}]


# ── A service that speaks OpenAI's protocol ──────────────────────────────────────────────────────


def _openai(backend: Any, pairs: Pairs) -> Scores:
    def one(pair: tuple[Any, str | None]) -> list[float] | Exception:
        try:
            return _read(backend.client.chat.completions.create(**_payload(backend, *pair)))
        except Exception as error:
            return error

    with ThreadPoolExecutor(max(1, backend.num_concurrent)) as pool:
        return list(pool.map(one, pairs))


def _async_openai(backend: Any, pairs: Pairs) -> Scores:
    async def all_of_them() -> Scores:
        in_flight = asyncio.Semaphore(max(1, backend.num_cpus))

        async def one(pair: tuple[Any, str | None]) -> list[float] | Exception:
            async with in_flight:
                try:
                    payload = _payload(backend, *pair)
                    return _read(await backend.client.chat.completions.create(**payload))
                except Exception as error:
                    return error

        return list(await asyncio.gather(*map(one, pairs)))

    return asyncio.run(all_of_them())


def _payload(backend: Any, request: Any, text: str | None) -> dict[str, Any]:
    from lmms_eval.protocol import ChatMessages

    _, doc_to_messages, _, doc_id, task, split = request.args
    messages = ChatMessages(messages=doc_to_messages(backend.task_dict[task][split][doc_id]))
    told = messages.to_openai_messages()
    if getattr(backend, "system_prompt", None):
        told = backend._apply_system_prompt(told, backend.system_prompt)
    begun = text is not None
    return {
        "model": backend.model_version,
        "messages": [*told, *_begun(text)],
        "max_tokens": 1,
        "temperature": 0,
        "extra_body": {
            "prompt_logprobs": 0,
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
        },
    }


def _read(response: Any) -> list[float]:
    """The field that vLLM's server adds: a token's id → how likely it was, at each place."""
    found = getattr(response, "prompt_logprobs", None)
    if not isinstance(found, list):
        raise UserError(
            "the service gives no log-probabilities of prompts (prompt_logprobs), which "
            "combine=rescore needs: use combine=vote or concat"
        )
    return [float(next(iter(its.values()))["logprob"]) for its in found[1:]]


_SCORERS: dict[str, Callable[[Any, Pairs], Scores]] = {
    "vllm": _vllm,
    "openai": _openai,
    "async_openai": _async_openai,
}
