"""What every view said, in the columns of lmms-eval's samples file, and in a file beside it.

The samples file has it under ``token_counts`` → ``hb_tta``, unless the answer came out of
lmms-eval's response cache. The sidecar keeps it: ``<output_path>/hb_tta/<run>/<task>.jsonl``, where
``<run>`` is ``run_name(model_args)`` (folders.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import TokenCounts

IDENTITY = ("doc_id", "idx")
"""Tells one question of a task from another, in the sidecar's lines."""


@dataclass
class ViewCounts(TokenCounts):
    """Token counts with a record of the views."""

    record: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What lmms-eval writes into the samples file."""
        counts: dict[str, Any] = dict(super().to_dict())
        return counts if self.record is None else {**counts, "hb_tta": self.record}

    @classmethod
    def of(cls, counts: TokenCounts | None, record: dict[str, Any]) -> ViewCounts:
        counts = counts or TokenCounts()
        return cls(counts.input_tokens, counts.output_tokens, counts.reasoning_tokens, record)


def sidecar_line(request: Any, record: dict[str, Any]) -> dict[str, Any]:
    """A question's line in the sidecar.

    Args:
        request: lmms-eval's ``Instance``.
        record: what the views said.
    """
    return {
        "task": request.task_name,
        "doc_id": request.doc_id,
        "idx": request.idx,
        "prompt": str(request.args[0]),
        **record,
    }
