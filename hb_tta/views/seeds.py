"""The numbers of views and their seeds, as a person gives them. Imports no torch."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from hb_tta.errors import UserError

FIXED, BY_CONTEXT = SEEDS = ("fixed", "by_context")


def check_seeds(seeds: str) -> None:
    """Raises UserError unless ``seeds`` is one of ``SEEDS``."""
    if seeds not in SEEDS:
        raise UserError(f"seeds={seeds!r} is not known: choose from {', '.join(SEEDS)}")


def whole(name: str, value: SupportsIndex) -> int:
    """A number as an int.

    Raises:
        UserError: it is none.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise UserError(f"{name}={value!r} is no whole number: give an int")
    return number


def first_seeds(seed: SupportsIndex, number: int) -> range:
    """``number`` seeds from ``seed`` on.

    Raises:
        UserError: the seed is no whole number, or out of range.
    """
    first = whole("seed", seed)
    if not 0 <= first <= 2**63 - number:
        raise UserError(f"seed={first} is out of range: use 0 to 2**63 - n")
    return range(first, first + number)
