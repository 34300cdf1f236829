"""How many actors there are of a kind, and what each takes of a node."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from hb_tta.spelling import Unfit

_WRITTEN = re.compile(r"(\d{1,6})(?::(\d{1,4}|\d{0,4}\.\d{1,3}))?", re.ASCII)


class Pool(NamedTuple):
    """Actors of a kind.

    Attributes:
        most: how many; Ray has them all from the start where ``least`` is as many.
        each: GPUs of each, or processors where the cluster has no GPU.
        least: how many Ray keeps when there is little to do.
    """

    most: int
    each: float = 1.0
    least: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """``4``, four with a GPU each, or ``4:0.5``, four with half a GPU each.

        Raises:
            Unfit: it is none.
        """
        found = _WRITTEN.fullmatch(text.strip())
        each = float(found[2]) if found and found[2] else 1.0
        if not found or each <= 0:
            raise Unfit("is no number of actors: write N, or N:SHARE with the GPUs of each")
        most = int(found[1])
        return cls(most, each, most)

    @property
    def needs(self) -> float:
        """GPUs, or processors, that it cannot start without."""
        return self.least * self.each
