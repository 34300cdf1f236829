"""The families' own MLLMs, and so any that transformers loads, as a model of VLMEvalKit's."""

from __future__ import annotations

from functools import partial
from typing import Any

from vlmeval.vlm.base import BaseModel

from hb_tta.describe import load_mllm
from hb_tta.families import get_family, list_families
from hb_tta.tta.answer import spoken

MAX_NEW_TOKENS = 512


class FamilyMllm(BaseModel):
    """A model that transformers loads for image-text-to-text.

    Args:
        source: see ``hb_tta.describe.load_mllm``.
        **settings: of transformers' ``generate``.
    """

    INTERLEAVE = True
    allowed_types = ["text", "image"]

    def __init__(self, source: Any, **settings: Any) -> None:
        super().__init__()
        self.model, self.processor = load_mllm(source)
        self._settings = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, **settings}

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """See ``BaseModel``."""
        from hb_tta.images import load_image

        content = [
            {"type": "image", "image": load_image(part["value"])}
            if part["type"] == "image"
            else {"type": "text", "text": part["value"]}
            for part in message
        ]
        messages = [{"role": "user", "content": content}]
        return spoken(self.model, self.processor, messages, self._settings).text


def register(models: dict[str, Any]) -> None:
    """Put the families' MLLMs among VLMEvalKit's models; its own names stay its own."""
    for name in list_families():
        models.setdefault(name, partial(_load, name))


def _load(name: str, **settings: Any) -> FamilyMllm:
    return FamilyMllm(get_family(name).weights("mllm"), **settings)
