"""A transformers model that answers, its rows decoded together (``hb_tta.tta``)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from hb_tta.describe import load_mllm
from hb_tta.serve.asking import Question, Said
from hb_tta.serve.chat import Decoding
from hb_tta.serve.job import LENGTH, STOP
from hb_tta.settings.augmented import RESCORE, VOTE, combinations
from hb_tta.tta.answer import Spoken, spoken
from hb_tta.tta.combine import Combiner
from hb_tta.tta.decoding import Decoded
from hb_tta.tta.gate import sureness
from hb_tta.tta.room import Room
from hb_tta.tta.together import Asked, decode_together
from hb_tta.tta.vote import vote
from hb_tta.tta.words import first_token, yes_no, yes_no_tokens


class Local:
    """A model on this machine.

    Args:
        source: a folder or hub repository in transformers' layout.
        name: that clients call it by; None: the source's last name.
        device, dtype: see ``hb_tta.describe.load_mllm``.

    Raises:
        UserError: it cannot be loaded.
    """

    names: tuple[str, ...]
    combines: tuple[str, ...]
    elsewhere: bool = False

    def __init__(
        self,
        source: str,
        name: str | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.names = (name or Path(source).name or source, source)
        # Logits say what rescoring would: mean is the same.
        self.combines = tuple(one for one in ("mean", *combinations()) if one != RESCORE)
        self._room = Room()
        self.model, self.processor = load_mllm(source, device=device, dtype=dtype)

    def ask(self, questions: Sequence[Question]) -> list[Said | Exception]:
        """See ``Backend``."""
        found: list[Said | Exception | None] = [None] * len(questions)
        together: list[int] = []
        for place, question in enumerate(questions):
            if question.combining.combine == VOTE and len(question.rows) > 1:
                found[place] = self._voted(question)
            elif question.decoding.seed is not None:  # each draws from its own beginning
                (found[place],) = self._decoded([question])
            else:
                together.append(place)
        said = self._decoded([questions[place] for place in together])
        for place, one in zip(together, said, strict=True):
            found[place] = one
        return found  # type: ignore[return-value]

    def _voted(self, question: Question) -> Said | Exception:
        """Each row alone, and the answer that most of them give."""
        alone = [question._replace(rows=[row], words=None) for row in question.rows]
        said: list[Said] = []
        for one in self._decoded(alone):
            if isinstance(one, Exception):
                return one
            said.append(one)
        texts = [one.text for one in said]
        chosen = said[vote(texts, question.combining.real_weight)]
        return chosen._replace(answers=[{"text": text} for text in texts], combined=None, p=None)

    def _decoded(self, questions: Sequence[Question]) -> list[Said | Exception]:
        """The rows of several questions, decoded in as few batches as they fit into."""
        watches = [_Watch(question, self.processor) for question in questions]
        asked = [self._asked(*both) for both in zip(questions, watches, strict=True)]
        seed = questions[0].decoding.seed if len(questions) == 1 else None
        with torch.inference_mode(), _drawing(seed):
            found = decode_together(asked, self._room)
        return [
            one if isinstance(one, Exception) else self._said(question, one, watch)
            for question, one, watch in zip(questions, found, watches, strict=True)
        ]

    def _asked(self, question: Question, watch: _Watch) -> Asked:
        settings = self._settings(question.decoding)
        if question.words is not None:
            settings["stopping_criteria"] = StoppingCriteriaList([watch])
        calls = [
            partial(
                spoken,
                self.model,
                self.processor,
                question.conversation.chat(row),
                settings,
            )
            for row in question.rows
        ]
        return Asked(calls, question.combining.combiner if len(calls) > 1 else Combiner())

    def _said(self, question: Question, decoded: Decoded[Any], watch: _Watch) -> Said:
        made: Spoken = decoded.value
        text, stopped = _cut(made.text, question.decoding.stop)
        watch.tell(text)
        count = len(made.tokens_T)
        full = count >= question.decoding.tokens and int(made.tokens_T[-1]) not in self._ends
        logits = [*decoded.first_logits_VRK[:, 0], decoded.first_combined_RK[0]]
        *answers, combined = [self._first(logits_K) for logits_K in logits]
        p = sureness(decoded.first_combined_RK[0], decoded.entropies, text, self._words)
        ended = LENGTH if full and not stopped else STOP
        return Said(text, answers, combined, p, ended, made.prompt, count)

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

    def __init__(self, question: Question, processor: Any) -> None:
        self._question, self._processor = question, processor
        self._prompt: int | None = None  # tokens
        self._told = 0
        self._held = max(map(len, question.decoding.stop), default=1) - 1

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """See ``transformers``."""
        if self._prompt is None:  # behind the first word
            self._prompt = input_ids.shape[1] - 1
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
