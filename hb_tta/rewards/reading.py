"""Loading a judge's weights, with mistakes told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hb_tta.device import check_memory
from hb_tta.errors import UserError
from hb_tta.progress import without_bars_of_libraries
from hb_tta.weights import Weights


@contextmanager
def reading(weights: Weights, what: str = "evaluator") -> Iterator[None]:
    """Turns the libraries' many complaints about files into one sentence."""
    from safetensors import SafetensorError

    try:
        with without_bars_of_libraries():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, MemoryError, SafetensorError) as error:
        check_memory(error, f"the weights {weights.location!r}")
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{weights.location!r} cannot be loaded as a reward's {what}: {reason}"
        ) from error
