"""Loading a judge's weights, with mistakes told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hb_tta.errors import UserError
from hb_tta.weights import Weights, without_bars


@contextmanager
def reading(weights: Weights, what: str = "evaluator") -> Iterator[None]:
    """Turns the libraries' many complaints about files into one sentence."""
    from safetensors import SafetensorError

    try:
        with without_bars():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{weights.location!r} cannot be loaded as a reward's {what}: {reason}"
        ) from error
