"""The gate: views for a question only where the model, shown the real image alone, is not sure.

The plain pass comes first. Where its probability p of its own answer is at least the gate, that
answer stands, and nothing is described, generated or loaded for the question. The rule is one
question's own, so it is the same for one question, for a shard of many and for a server. No ground
truth has a part in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hb_tta.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Words = tuple[list[int], list[int]]


class Gated(NamedTuple):
    """What the gate made of a question.

    Attributes:
        p: how sure the model is of its plain answer, between 0 and 1.
        passed: whether the question went on to the views; else the plain answer is its answer.
    """

    p: float
    passed: bool


def sureness(
    first_K: Tensor, entropies: Sequence[float], text: str, words: Words | None = None
) -> float:
    """How sure a model is of an answer that it gave, between 0 and 1.

    An answer that begins with yes or no has the probability of all the ways to begin so. Another
    one of a single word, as a letter or a number, has its first token's. Of a longer one the first
    token says little: it has exp(−mean entropy), one over the number of words among which the model
    hesitated on the way.

    Args:
        first_K: logits of the answer's first token.
        entropies: of each token's distribution, in nats.
        text: the answer.
        words: see ``hb_tta.tta.answer.yes_no_tokens``.
    """
    logprobs_K = first_K.float().log_softmax(-1)
    best = int(logprobs_K.argmax())
    for side in words or ():
        if best in side:
            return _at_most_1(logprobs_K[side].logsumexp(0).exp().item())
    if len(text.split()) < 2 or not entropies:
        return _at_most_1(logprobs_K[best].exp().item())
    return _at_most_1(math.exp(-sum(entropies) / len(entropies)))


def sureness_of_choice(losses: Sequence[float]) -> float:
    """How sure a model is of the likeliest of several choices.

    Args:
        losses: −log-likelihood of each, as lmms-eval's backends give it; at least two.
    """
    assert len(losses) > 1, "one choice is the right answer, which no gate may see"
    least = min(losses)
    return 1 / sum(math.exp(least - loss) for loss in losses)


def gated(p: float, gate: float) -> Gated:
    """Gate 0 lets no question through to the views: the plain answers."""
    return Gated(p, p < gate)


def decide(
    sure: Mapping[int, float], gate: float | None, share: float | None = None
) -> dict[int, Gated]:
    """What a gate, or the share of a whole set, makes of questions.

    Args:
        sure: number of a question → p.
        gate: lets a question through below it.
        share: in its place, of all questions, that the least sure are let through. It is no rule of
            one question: what else is in the set decides, and so all of it must be there.
    """
    if share is not None:
        least = sorted(sure, key=lambda number: (sure[number], number))
        let_through = set(least[: round(share * len(least))])
        return {number: Gated(p, number in let_through) for number, p in sure.items()}
    assert gate is not None
    return {number: gated(p, gate) for number, p in sure.items()}


def check_gate(gate: float | None) -> None:
    """Raises UserError unless it is a probability, or None for no gate."""
    if gate is not None and not (isinstance(gate, int | float) and 0 <= gate <= 1):
        raise UserError(f"gate={gate} is out of range: use 0 (no views) to 1, or None for no gate")


def _at_most_1(p: float) -> float:
    return min(p, 1.0)  # rounding
