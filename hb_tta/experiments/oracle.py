"""Fidelity by an oracle: does it answer a question of the view as of the reference (table 12)?

The paper asks GPT-4o; here any chat model of transformers is asked, or in the pocket world the
reader, which reads the scene itself. Nobody knows the right answer but to say which questions are
"yes" questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from hb_tta.errors import UserError
from hb_tta.metrics import Interval, answer_fidelity, bootstrap_interval
from hb_tta.weights import Weights

FORMAT = "\nAnswer the question using a single word or phrase."  # lmms-eval's, of MME


class Oracle(Protocol):
    """Whoever answers yes/no questions about images."""

    @property
    def sampled(self) -> bool:
        """Whether another seed can give another answer; else one run is all there is."""
        ...

    def answers(
        self, images: Sequence[Any], questions: Sequence[str], seed: int | None = None
    ) -> list[bool | None]:
        """One an image and question: yes, no, or None where it says neither.

        Args:
            images: RGB.
            questions: as many.
            seed: of a sampled answer; ``None``: the likeliest one.
        """
        ...


@dataclass(frozen=True)
class OracleFidelity:
    """How often views are answered as their references are.

    Attributes:
        yes, no: of the questions whose right answer is yes, or no; ``None``: there is none.
        overall: of all. (The paper's overall figures lie above both of their parts: they are some
            other mean, which it does not tell.)
        runs: that each share is the mean of.
    """

    yes: Interval | None
    no: Interval | None
    overall: Interval
    runs: int


def oracle_fidelity(
    oracle: Oracle,
    references: Sequence[Any],
    views: Sequence[Any],
    questions: Sequence[str],
    truths: Sequence[bool],
    *,
    runs: int = 3,
    groups: Sequence[Any] | None = None,
) -> OracleFidelity:
    """The consistency of an oracle's answers, the mean of several runs, with intervals over images.

    Args:
        oracle: is asked about every reference and every view in every run.
        references, views: images, one a question.
        questions: yes/no questions.
        truths: whether yes is right. The oracle does not see it.
        runs: of a sampled oracle; the first is of the likeliest answers. Another has one.
        groups: the image of each question; ``None``: each question is a unit of its own.
    """
    if not len(references) == len(views) == len(questions) == len(truths):
        raise ValueError("references, views, questions and truths: give as many of each")
    if runs < 1:
        raise UserError(f"runs={runs} asks nothing: use 1 or more")
    seeds = [None, *range(1, runs)] if oracle.sampled else [None]
    agree_RN = [
        answer_fidelity(
            oracle.answers(references, questions, seed),
            [[answer] for answer in oracle.answers(views, questions, seed and seed + runs)],
        )
        for seed in seeds
    ]
    agree_N, right_N = np.mean(agree_RN, axis=0), np.asarray(truths, bool)
    units = np.arange(len(agree_N)) if groups is None else np.asarray(groups)
    parts = [_share(agree_N[which], units[which]) for which in (right_N, ~right_N)]
    overall = _share(agree_N, units)
    assert overall is not None
    return OracleFidelity(*parts, overall, len(seeds))


def _share(values: np.ndarray, units: np.ndarray) -> Interval | None:
    return bootstrap_interval(values, groups=units) if len(values) else None


class ReaderOracle:
    """The pocket world's reader, which no training has seen.

    Args:
        weights: a family's role "reader".
    """

    sampled = False

    def __init__(self, weights: Weights) -> None:
        from hb_tta.pocket.reader import Reader

        self._reader = Reader.from_pretrained(weights)

    def answers(
        self, images: Sequence[Any], questions: Sequence[str], seed: int | None = None
    ) -> list[bool | None]:
        """See ``Oracle.answers``."""
        from hb_tta.pocket.reading import answer

        readings = self._reader.read(images)
        return [answer(reading, q) for reading, q in zip(readings, questions, strict=True)]


class MllmOracle:
    """Any chat model of transformers.

    Args:
        weights: a folder or hub id.
        dtype: "float32", "bfloat16" or "float16"; ``None``: what suits the device.
        device: ``None``: a GPU if there is one.
    """

    sampled = True

    def __init__(
        self, weights: Weights, *, dtype: str | None = None, device: str | None = None
    ) -> None:
        from hb_tta.describe import load_mllm

        self._model, self._processor = load_mllm(weights, dtype=dtype, device=device)

    def answers(
        self, images: Sequence[Any], questions: Sequence[str], seed: int | None = None
    ) -> list[bool | None]:
        """See ``Oracle.answers``: by its first word."""
        return [self._answer(image, q, seed) for image, q in zip(images, questions, strict=True)]

    def _answer(self, image: Any, question: str, seed: int | None) -> bool | None:
        from hb_tta.tta.answer import answer

        how: dict[str, Any] = {"do_sample": seed is not None, "max_new_tokens": 8}
        with torch.random.fork_rng():
            if seed is not None:
                torch.manual_seed(seed)
            said = answer(self._model, self._processor, image, f"{question}{FORMAT}", **how)
        return {"yes": True, "no": False}.get(_first_word(said.text))


def _first_word(text: str) -> str:
    words = text.strip().lower().split()
    return words[0].strip(".,:;!\"'") if words else ""
