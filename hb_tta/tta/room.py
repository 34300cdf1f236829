"""How many rows go into one batch: as many as pay, and as the device's memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch

ROWS = 32
"""Rows of a batch where nothing else is said; on a CPU more make each dearer (docs/LOG.md)."""
_SHARE = 0.5  # of the free memory that the caches of a batch may take; the rest is for its steps


class Sized(Protocol):
    """What takes up rows: its rows, and the positions of the longest with its answer."""

    rows: int
    length: int


S = TypeVar("S", bound=Sized)
T = TypeVar("T")


def by_rows(items: Iterable[T], rows: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in order, as many together as have no more rows than ``most``; one at least."""
    some: list[T] = []
    for item in items:
        if some and sum(map(rows, some)) + rows(item) > most:
            yield some
            some = []
        some.append(item)
    if some:
        yield some


class Room:
    """The room of a run: what did not fit once is not tried again.

    Attributes:
        rows: at most in a batch.
    """

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows

    def shrink(self, tried: int) -> None:
        """After a batch of that many rows did not fit into memory."""
        self.rows = max(1, min(self.rows, tried // 2))

    def batches(self, items: Iterable[S], model: Any) -> Iterator[list[S]]:
        """The items in order, as many together as fit; one alone is never refused."""
        most = self._positions(model)
        batch: list[S] = []
        for item in items:
            if batch and not self._fits([*batch, item], most):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[Sized], most: float) -> bool:
        rows = sum(item.rows for item in batch)
        return rows <= self.rows and rows * max(item.length for item in batch) <= most

    def _positions(self, model: Any) -> float:
        """Positions of all rows together that the device's free memory holds."""
        if model.device.type != "cuda":
            return float("inf")
        bytes_each = _bytes_of_position(model)
        if not bytes_each:
            return float("inf")
        free, _ = torch.cuda.mem_get_info(model.device)
        reserved = torch.cuda.memory_reserved(model.device)
        return _SHARE * (free + reserved - torch.cuda.memory_allocated(model.device)) / bytes_each


def _bytes_of_position(model: Any) -> float:
    """What a row's position takes up in the cache, a key and a value a layer; 0: not known."""
    config = model.config.get_text_config()
    layers, heads, wide = (
        getattr(config, name, None)
        for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    if not (layers and heads and wide):
        return 0
    kept = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or wide // heads
    return 2 * layers * kept * width * model.dtype.itemsize
