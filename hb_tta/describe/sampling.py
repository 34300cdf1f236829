"""Words drawn at random, each row of a batch from its own seed.

Shape suffixes: B rows, K tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class SeededSampling(LogitsProcessor):
    """Makes greedy decoding draw from the model's distribution (the Gumbel-max trick).

    What a row draws depends on its seed alone, not on the rows around it, as it would with
    ``do_sample``.

    Args:
        seeds: one a row; ``None``: the row stays greedy.
        temperature: above 0.
    """

    def __init__(self, seeds: Sequence[int | None], temperature: float) -> None:
        self._draws = [None if s is None else torch.Generator().manual_seed(s) for s in seeds]
        self._temperature = temperature

    def __call__(self, input_ids_BT: Tensor, logits_BK: Tensor) -> Tensor:
        """The logits with each row's noise."""
        noise_BK = torch.stack([_gumbel(draw, logits_BK.shape[-1]) for draw in self._draws])
        return logits_BK.float() / self._temperature + noise_BK.to(logits_BK.device)


def _gumbel(draw: torch.Generator | None, size: int) -> Tensor:
    if draw is None:
        return torch.zeros(size)
    return -torch.empty(size).exponential_(generator=draw).log()
