"""Engines for tests: vLLM's interface over a Hugging Face model, OpenAI's over HTTP."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


@dataclass
class SamplingParams:
    """Those of vLLM's that are used."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    prompt_logprobs: int | None = None


class Engine:
    """``vllm.LLM`` as lmms-eval calls it.

    Attributes:
        asked: how many prompts each call had.
    """

    asked: list[int]

    def __init__(self, model: str, **_: Any) -> None:
        self._model = AutoModelForImageTextToText.from_pretrained(model, dtype="auto").eval()
        self._processor = AutoProcessor.from_pretrained(model)
        self.asked = []

    def chat(
        self,
        messages: list[Any],
        sampling_params: list[SamplingParams],
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[Any]:
        assert add_generation_prompt is not continue_final_message
        self.asked.append(len(messages))
        both = zip(messages, sampling_params, strict=True)
        return [self._one(turns, params, continue_final_message) for turns, params in both]

    def _one(self, turns: list[Any], params: SamplingParams, is_begun: bool) -> Any:
        begun = turns[-1]["content"] if is_begun else ""
        inputs = self._inputs(turns[:-1] if is_begun else turns, begun)
        ids = inputs["input_ids"][0]
        with torch.inference_mode():
            if params.prompt_logprobs is None:
                new = self._model.generate(
                    **inputs, max_new_tokens=params.max_tokens, do_sample=False
                )[0, len(ids) :]
                text = self._processor.decode(new, skip_special_tokens=True)
                return SimpleNamespace(outputs=[SimpleNamespace(text=text)])
            logprobs_TK = self._model(**inputs).logits[0].float().log_softmax(-1)
        told = [
            {int(token): SimpleNamespace(logprob=float(logprobs_TK[place, token]))}
            for place, token in enumerate(ids[1:])
        ]
        return SimpleNamespace(prompt_token_ids=ids.tolist(), prompt_logprobs=[None, *told])

    def _inputs(self, turns: list[Any], begun: str) -> Any:
        pictures = [picture_of(part) for turn in turns for part in turn["content"]]
        pictures = [one for one in pictures if one is not None]
        said = [
            {"role": turn["role"], "content": [
                part if part["type"] == "text" else {"type": "image"} for part in turn["content"]
            ]}
            for turn in turns
        ]  # fmt: skip
        text = self._processor.apply_chat_template(said, add_generation_prompt=True) + begun
        inputs = self._processor(images=pictures, text=text, return_tensors="pt")
        return inputs.to(self._model.device, self._model.dtype)


def picture_of(part: dict[str, Any]) -> Image.Image | None:
    """The picture of a part of an OpenAI message."""
    if part["type"] != "image_url":
        return None
    data = part["image_url"]["url"].partition("base64,")[2]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


Answer = Callable[[dict[str, Any]], dict[str, Any] | None]
"""A request's JSON → the fields of the answer; None: status 500."""


@dataclass
class Service:
    """Where it listens, and how many requests were in flight at a time, at most."""

    url: str
    most: int = 0
    now: int = 0
    count: int = 0


@contextmanager
def serving(answer: Answer, seconds: float = 0.05) -> Iterator[Service]:
    """OpenAI's chat completions on the loopback."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                service.now += 1
                service.count += 1
                service.most = max(service.most, service.now)
            time.sleep(seconds)
            found = answer(asked)
            with lock:
                service.now -= 1
            body = json.dumps(_completion(found) if found is not None else {"error": "no"}).encode()
            self.send_response(200 if found is not None else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    service = Service(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _completion(found: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": found.pop("text", "")}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    about = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    return {**about, "choices": [choice], "usage": usage, **found}
