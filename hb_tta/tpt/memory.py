"""Running out of memory, told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hb_tta.errors import UserError


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation, on any device, into a ``UserError``.

    Args:
        what: what did not fit, as in "64 views of 8 images".
        remedy: what to do about it.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(f"{what} do not fit into memory: {remedy}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the CPU's allocator has no class of its own
            raise
        raise UserError(f"{what} do not fit into memory: {remedy}") from error
