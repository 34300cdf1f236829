"""A VLM as a judge of views: its probability of yes to "does this image show …?".

The idea is VQAScore's (Lin et al., 2024). The probability is that of yes among yes and no, so that
a model which likes to begin otherwise is still asked what it leans to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hb_tta.errors import UserError
from hb_tta.tta.words import yes_no, yes_no_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.describe import Describer

PROMPT = "Does this image show {text}? Please answer yes or no."
PROMPT_VERSION = "1-" + hashlib.sha256(PROMPT.encode()).hexdigest()[:12]
"""Changes with every word of the prompt, and with it the scores' keys in the store."""


class VqaYes:
    """Asks a chat model about every image.

    Args:
        describer: the model and its processor; nobody's describing is disturbed.

    Raises:
        UserError: its tokenizer cannot tell the beginning of a yes from that of a no.
    """

    def __init__(self, describer: Describer) -> None:
        words = yes_no_tokens(describer.processor.tokenizer)
        if words is None:
            raise UserError(
                f"judge=vqa_yes: {describer.spec.mllm.location!r} begins yes and no with the same "
                "token, so its answer cannot be weighed: name another model, as in "
                "judge=vqa_yes:FOLDER"
            )
        self._describer, self._words = describer, words

    def score(
        self, images: Sequence[Image], references: Sequence[Image], texts: Sequence[str]
    ) -> list[float]:
        """See ``ViewJudge.score``: probabilities; the references are not looked at."""
        prompts = [PROMPT.format(text=_as_object(text)) for text in texts]
        # Of a rounder number format the neighbours in a batch would show: one at a time.
        at_once = len(images) if self._describer.spec.dtype == "float32" else 1
        found = []
        for start in range(0, len(images), at_once):
            rows = slice(start, start + at_once)
            for logits_K in self._describer.first_logits(images[rows], prompts[rows]):
                yes, no = yes_no(logits_K, self._words)
                found.append(1 / (1 + math.exp(min(no - yes, 700.0))))
        return found


def _as_object(text: str) -> str:
    """A description as part of a question: its first letter small, without the last full stop."""
    text = text.strip().rstrip(".")
    return text[:1].lower() + text[1:]
