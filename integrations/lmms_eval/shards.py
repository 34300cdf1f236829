"""One part of every task's questions, through the function by which lmms-eval itself shares them.

lmms-eval has no option for it. ``create_iterator`` deals a task's documents out to the processes of
a run; what it deals out is a part of them here. Questions stay with their neighbour: MME scores two
of an image together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from hb_tta.shards import Shard

NEIGHBOURS = 2

Deal = Callable[..., Iterator[Any]]


def deal_out(shard: Shard | None) -> None:
    """From now on lmms-eval sees one part of each task; ``None``: all of it."""
    from lmms_eval import evaluator, utils

    stock = getattr(utils.create_iterator, "hb_stock", utils.create_iterator)
    dealt = stock if shard is None else _dealing(stock, shard)
    utils.create_iterator = evaluator.create_iterator = dealt


def _dealing(stock: Deal, shard: Shard) -> Deal:
    def create_iterator(
        raw_iterator: Any, rank: int, world_size: int, limit: Any = None, offset: int = 0
    ) -> Iterator[Any]:
        asked = stock(raw_iterator, 0, 1, limit, offset)
        return islice(shard.part(asked, NEIGHBOURS), int(rank), None, int(world_size))

    create_iterator.hb_stock = stock  # type: ignore[attr-defined]
    return create_iterator
