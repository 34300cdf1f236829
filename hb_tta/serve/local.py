"""A transformers model that answers, its rows decoded together (``hb_tta.tta``)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from hb_tta.describe import load_mllm
from hb_tta.serve.asking import Question, Said
from hb_tta.serve.chat import Decoding
from hb_tta.serve.job import LENGTH, STOP
from hb_tta.settings.augmented import VOTE
from hb_tta.tta.answer import calls, first_token, new_words, yes_no, yes_no_tokens
from hb_tta.tta.combine import Combiner
from hb_tta.tta.decoding import decode_jointly
from hb_tta.tta.gate import sureness
from hb_tta.tta.vote import vote


class Local:
    """A model on this machine.

    Args:
        source: a folder or hub repository in transformers' layout.
        name: that clients call it by; None: the source's last name.
        device, dtype: see ``hb_tta.describe.load_mllm``.

    Raises:
        UserError: it cannot be loaded.
    """

    combines = None
    elsewhere = False

    def __init__(
        self,
        source: str,
        name: str | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.names = (name or Path(source).name or source, source)
        self.model, self.processor = load_mllm(source, device=device, dtype=dtype)

    def ask(self, questions: Sequence[Question]) -> list[Said | Exception]:
        """See ``Backend``."""
        return [self._tried(question) for question in questions]

    def _tried(self, question: Question) -> Said | Exception:
        try:
            if question.combining.combine == VOTE and len(question.rows) > 1:
                return self._voted(question)
            return self._decoded(question)
        except Exception as error:
            return error

    def _voted(self, question: Question) -> Said:
        """Each row alone, and the answer that most of them give."""
        alone = [question._replace(rows=[row], words=None) for row in question.rows]
        said = [self._decoded(one) for one in alone]
        texts = [one.text for one in said]
        chosen = said[vote(texts, question.combining.real_weight)]
        return chosen._replace(answers=[{"text": text} for text in texts], p=None)

    def _decoded(self, question: Question) -> Said:
        asked = question.conversation
        chats = [asked.chat(row.images, row.words) for row in question.rows]
        rows = calls(self.model, self.processor, chats, self._settings(question.decoding))
        prompt = rows[0].keywords["input_ids"].shape[1]
        watch = _Watch(question, self.processor, prompt)
        if question.words is not None:
            rows[0].keywords["stopping_criteria"] = StoppingCriteriaList([watch])
        combiner = question.combining.combiner if len(rows) > 1 else Combiner()
        with torch.inference_mode(), _drawing(question.decoding.seed):
            decoded = decode_jointly(rows, combiner)
        text, new_T = new_words(self.model, self.processor, rows, decoded.value)
        text, stopped = _cut(text, question.decoding.stop)
        watch.tell(text)
        full = len(new_T) >= question.decoding.tokens and int(new_T[-1]) not in self._ends
        logits = [*decoded.first_logits_VRK[:, 0], decoded.first_combined_RK[0]]
        *answers, combined = [self._first(logits_K) for logits_K in logits]
        p = sureness(decoded.first_combined_RK[0], decoded.entropies, text, self._words)
        ended = LENGTH if full and not stopped else STOP
        return Said(text, answers, combined, p, ended, prompt, len(new_T))

    def _settings(self, decoding: Decoding) -> dict[str, Any]:
        """Of ``generate``: what a client does not say is the model's own affair."""
        found: dict[str, Any] = {"max_new_tokens": decoding.tokens}
        if decoding.temperature == 0:
            return found | self._stopping(decoding) | {"do_sample": False}
        drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p}
        drawn = {name: value for name, value in drawn.items() if value is not None}
        return found | self._stopping(decoding) | drawn | ({"do_sample": True} if drawn else {})

    def _stopping(self, decoding: Decoding) -> dict[str, Any]:
        if not decoding.stop:
            return {}
        return {"stop_strings": list(decoding.stop), "tokenizer": self.processor.tokenizer}

    def _first(self, logits_K: Tensor) -> dict[str, Any]:
        found = first_token(logits_K, self.processor.tokenizer)
        return found if self._words is None else found | yes_no(logits_K, self._words)._asdict()

    @cached_property
    def _words(self) -> tuple[list[int], list[int]] | None:
        return yes_no_tokens(self.processor.tokenizer)

    @cached_property
    def _ends(self) -> set[int]:
        found = self.model.generation_config.eos_token_id
        return set(found) if isinstance(found, list) else {found}


class _Watch(StoppingCriteria):
    """Tells the words of the real row as they come, and ends what nobody waits for."""

    def __init__(self, question: Question, processor: Any, prompt: int) -> None:
        self._question, self._processor, self._prompt = question, processor, prompt
        self._told = 0
        self._held = max(map(len, question.decoding.stop), default=1) - 1

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """See ``transformers``."""
        new_T = input_ids[0, self._prompt :]
        text = self._processor.tokenizer.decode(new_T, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # half of a character
            self.tell(text[: len(text) - self._held])
        over = self._question.over()
        return torch.full(input_ids.shape[:1], over, device=input_ids.device)

    def tell(self, text: str) -> None:
        """What of the answer so far was not told yet."""
        if self._question.words is not None and len(text) > self._told:
            self._question.words(text[self._told :])
            self._told = len(text)


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of what ends it, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _drawing(seed: int | None) -> Any:
    """Draw with a seed, and leave what is drawn afterwards as it was."""
    if seed is None:
        return nullcontext()
    return _Seeded(seed)


class _Seeded:
    def __init__(self, seed: int) -> None:
        self._seed, self._fork = seed, torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
