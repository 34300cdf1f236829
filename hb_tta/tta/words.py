"""What a model says of yes and no, and the word that it begins with, out of its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_WORDS = {
    "yes": ("yes", "Yes", "YES", " yes", " Yes"),
    "no": ("no", "No", "NO", " no", " No"),
}


class YesNo(NamedTuple):
    """How much a view says yes and no: the logarithm of the probability that the answer begins so.

    Over the ways to write it ("yes", "Yes", with a space before, …), and of its first token.
    """

    yes: float
    no: float


def yes_no_tokens(tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """The tokens that a yes and a no begin with, or None where they cannot be told apart."""
    yes, no = ({t for w in _WORDS[a] for t in _first(tokenizer, w)} for a in ("yes", "no"))
    own_yes, own_no = yes - no, no - yes
    return (sorted(own_yes), sorted(own_no)) if own_yes and own_no else None


def _first(tokenizer: Any, word: str) -> list[int]:
    """The first token of a word that is not a space alone, if the tokenizer knows it."""
    for token in tokenizer.encode(word, add_special_tokens=False):
        if tokenizer.decode([token]).strip():
            return [] if token == tokenizer.unk_token_id else [token]
    return []


def yes_no(logits_K: Tensor, words: tuple[list[int], list[int]]) -> YesNo:
    """The scores of a view's first step, or of the combined one."""
    logprobs_K = logits_K.float().log_softmax(-1)
    return YesNo(*(round(logprobs_K[ids].logsumexp(0).item(), 6) for ids in words))


def first_token(logits_K: Tensor, tokenizer: Any) -> dict[str, Any]:
    """``first``: the text of the likeliest token; ``share``: its probability."""
    share, token = logits_K.float().softmax(-1).max(-1)
    return {"first": tokenizer.decode([int(token)]), "share": round(share.item(), 6)}
