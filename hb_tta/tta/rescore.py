"""Rescoring: each view proposes an answer, and all views say how likely each proposal is.

It needs no logits of the whole vocabulary, only the log-probabilities of texts that are given, as
engines say them of prompts. For answers of one word, as yes, no and letters, the proposal of the
best score is the word of the highest mean log-probability among them: the rule ``mean`` restricted
to what some view would say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Scorer = Callable[[Sequence[tuple[Any, str | None]]], list[list[float] | Exception]]
"""Requests, each with an answer that is begun, or none → the log-probability of every token that
the prompt then has, from the second on; or what the request failed with."""


class Dispute(NamedTuple):
    """A question whose views propose more than one answer.

    Attributes:
        rows: a request a view.
        weights: of the views.
        proposals: at least two texts.
    """

    rows: Sequence[Any]
    weights: Sequence[float]
    proposals: list[str]


class Rescored(NamedTuple):
    """What the views make of proposals.

    Attributes:
        best: which of them it is; a tie goes to the earlier one, which is the real image's first.
        combined: the weighted mean of the views' scores of each.
        of_views: each view's scores of each: log-probabilities, less the first proposal's; where
            proposals differ in length, their means a token.
    """

    best: int
    combined: list[float]
    of_views: list[list[float]]


def proposals(texts: Sequence[str]) -> list[str]:
    """What there is to choose from, in the order of the views; ends of white space do not count."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(text.strip(), text)
    return list(first.values())


def rescore(disputes: Sequence[Dispute], score: Scorer) -> list[Rescored | Exception]:
    """Score every proposal at the sight of every view: all requests at once.

    Returns:
        What the views make of each question's proposals, or what one of its requests failed with.
    """
    pairs = [(row, text) for its in disputes for row in its.rows for text in its.proposals]
    found = iter(score(pairs))
    scored = [[[next(found) for _ in its.proposals] for _ in its.rows] for its in disputes]
    uneven = [place for place, rows in enumerate(scored) if not all(map(_is_even, rows))]
    plain = iter(score([(row, None) for place in uneven for row in disputes[place].rows]))
    starts = {place: [next(plain) for _ in disputes[place].rows] for place in uneven}
    return [
        _rescored(its, rows, starts.get(place))
        for place, (its, rows) in enumerate(zip(disputes, scored, strict=True))
    ]


Tokens = list[float] | Exception


def _is_even(of_row: list[Tokens]) -> bool:
    """Whether a row's proposals have as many tokens; or failed, so that it is of no matter."""
    counts = {len(its) for its in of_row if not isinstance(its, Exception)}
    return len(counts) < 2


def _rescored(
    dispute: Dispute, rows: list[list[Tokens]], starts: list[Tokens] | None
) -> Rescored | Exception:
    for its in [*(its for of_row in rows for its in of_row), *(starts or ())]:
        if isinstance(its, Exception):
            return its
    # Where nothing says where the answer starts, what stands before it is as long, and the same.
    firsts = [0 if starts is None else len(its) for its in starts or rows]  # type: ignore[arg-type]
    of_views = [
        [round(its - scores[0], 6) for its in scores]
        for scores in (
            [_score(its, first, starts is not None) for its in of_row]  # type: ignore[arg-type]
            for of_row, first in zip(rows, firsts, strict=True)
        )
    ]
    total = sum(dispute.weights)
    combined = [
        sum(
            weight * scores[place] for weight, scores in zip(dispute.weights, of_views, strict=True)
        )
        / total
        for place in range(len(dispute.proposals))
    ]
    best = max(range(len(combined)), key=combined.__getitem__)
    return Rescored(best, [round(its, 6) for its in combined], of_views)


def _score(tokens: list[float], first: int, mean: bool) -> float:
    own = tokens[first:]
    return sum(own) / max(1, len(own)) if mean else sum(own)
