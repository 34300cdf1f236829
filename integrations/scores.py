"""What the rows of a question said where they were decoded from their logits, as plain JSON."""

from __future__ import annotations

from typing import Any

from hb_tta.tta.gate import sureness


class Scores:
    """Reads them off a ``Decoded``.

    Args:
        holder: the object that keeps the tokenizer, as a harness's wrapper of a model.
    """

    def __init__(self, holder: Any) -> None:
        self._tokenizer = tokenizer_of(holder)
        self._words: Any = None
        if self._tokenizer is not None:
            from hb_tta.tta.words import yes_no_tokens

            self._words = yes_no_tokens(self._tokenizer)

    def record(self, decoded: Any) -> dict[str, Any]:
        """``views`` and ``combined``: of each its scores of yes and no, and its likeliest token."""
        from hb_tta.tta.words import first_token, yes_no

        if self._words is None:
            return {"views": []}
        *views, combined = [
            {**yes_no(logits_K, self._words)._asdict(), **first_token(logits_K, self._tokenizer)}
            for logits_K in [*decoded.first_logits_VRK[:, 0], decoded.first_combined_RK[0]]
        ]
        return {"views": views, "combined": combined}

    def sure(self, decoded: Any, text: str) -> float:
        """See ``hb_tta.tta.gate.sureness``."""
        return sureness(decoded.first_combined_RK[0], decoded.entropies, text, self._words)


def tokenizer_of(holder: Any) -> Any:
    """A tokenizer, wherever it is kept; None where there is none."""
    for name in ("tokenizer", "_tokenizer", "processor", "_processor", "_image_processor"):
        try:
            found = getattr(holder, name, None)
        except (NotImplementedError, AssertionError):
            continue
        found = getattr(found, "tokenizer", found)
        if callable(getattr(found, "encode", None)) and callable(getattr(found, "decode", None)):
            return found
    return None


def holds_model(holder: Any) -> bool:
    """Whether a harness's wrapper has a model in this process, whose logits can be had."""
    from torch.nn import Module

    return any(isinstance(value, Module) for value in vars(holder).values())
