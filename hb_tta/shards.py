"""Parts of a job: several processes, on any machines, each do their own and none does another's.

A part follows from a thing's place alone. Nobody has to ask anybody, and the same part is the same
again when it is resumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self, TypeVar

from hb_tta.spelling import Unfit

_WRITTEN = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)

T = TypeVar("T")


class Shard(NamedTuple):
    """One of equal parts.

    Attributes:
        number: of this part, from 1.
        parts: how many there are.
    """

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``2/8``, the second of eight.

        Raises:
            Unfit: it is none.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise Unfit("is no part of a job: write I/N, from 1/N to N/N")
        return cls(int(found[1]), int(found[2]))

    def part(self, items: Iterable[T], block: int = 1) -> Iterator[T]:
        """What this part has to do. Parts are disjoint, whole together, and differ by one block.

        Args:
            items: of the whole job, in an order that all parts have.
            block: neighbours that stay together.
        """
        for place, item in enumerate(items):
            if place // block % self.parts == self.number - 1:
                yield item

    @property
    def name(self) -> str:
        """In a file's name: names of equal jobs sort by number."""
        return f"{self.number:05d}-of-{self.parts:05d}"

    def of(self, file: str) -> str:
        """What this part calls a file of the whole job: ``boxes-00002-of-00008.jsonl``."""
        stem, dot, suffix = file.rpartition(".")
        return f"{stem}-{self.name}{dot}{suffix}"

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"
