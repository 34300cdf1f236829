"""One progress bar and one summary for a run in which a backend is called once a question."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(backend: type) -> Iterator[None]:
    """Take the place of what a backend's modules call at every ``generate_until``.

    ``tqdm`` shows nothing, and ``log_metrics`` is called once, at the end, with the sums.
    """
    modules = dict.fromkeys(sys.modules[cls.__module__] for cls in backend.__mro__)
    began = time.perf_counter()
    logged: list[dict[str, Any]] = []
    replaced = []
    for module in modules:
        if module.__name__.startswith("lmms_eval.models."):
            for name, made in (("tqdm", _hidden), ("log_metrics", lambda _: _collect(logged))):
                if hasattr(module, name):
                    own = getattr(module, name)
                    replaced.append((module, name, own))
                    setattr(module, name, made(own))
    try:
        yield
    finally:
        for module, name, own in replaced:
            setattr(module, name, own)
    seconds = time.perf_counter() - began
    logs = [own for _, name, own in replaced if name == "log_metrics"]
    if logged:
        logs[0](**_summed(logged, seconds))


def _collect(logged: list[dict[str, Any]]) -> Any:
    def log_metrics(**metrics: Any) -> None:
        logged.append(metrics)

    return log_metrics


def _hidden(tqdm: Any) -> Any:
    def bar(*args: Any, **kwargs: Any) -> Any:
        return tqdm(*args, **{**kwargs, "disable": True})

    return bar


def _summed(logged: list[dict[str, Any]], most: float) -> dict[str, Any]:
    # Calls that wait for one batch count its time each.
    seconds = min(most, sum(metrics["total_elapsed_time"] for metrics in logged))
    tokens = sum(metrics["total_gen_tokens"] for metrics in logged)
    return {
        **logged[-1],
        "total_elapsed_time": seconds,
        "total_gen_tokens": tokens,
        "avg_speed": tokens / seconds if seconds else 0,
    }
