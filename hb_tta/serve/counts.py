"""What the server did so far, for /metrics: numbers alone, nothing of what anybody asked."""

from __future__ import annotations

import threading
from collections import Counter

BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds."""


class Counts:
    """Counts from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def request(self, status: int) -> None:
        """A request was answered with a status."""
        self._add(f'hb_tta_requests_total{{status="{status}"}}', 1)

    def batch(self, jobs: int) -> None:
        """So many questions are worked on together."""
        self._add("hb_tta_batches_total", 1)
        self._add("hb_tta_batched_questions_total", jobs)

    def made(self, views: int) -> None:
        """So many views are shown."""
        self._add("hb_tta_views_shown_total", views)

    def answered(self, with_views: bool) -> None:
        """A question was."""
        told = "true" if with_views else "false"
        self._add(f'hb_tta_answers_total{{augmented="{told}"}}', 1)

    def took(self, seconds: float) -> None:
        """From a question to its answer."""
        with self._lock:
            self._seconds += seconds
            self._counts["hb_tta_answer_seconds_count"] += 1
            for bound in BUCKETS:
                self._buckets[bound] += seconds <= bound

    def text(self, **now: float) -> str:
        """In Prometheus's text form.

        Args:
            now: what is so at this moment, by name.
        """
        with self._lock:
            lines = [f"{name} {value}" for name, value in sorted(self._counts.items())]
            name = "hb_tta_answer_seconds"
            lines += [f'{name}_bucket{{le="{bound}"}} {self._buckets[bound]}' for bound in BUCKETS]
            total = self._counts["hb_tta_answer_seconds_count"]
            lines += [f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {self._seconds:.3f}"]
        lines += [f"hb_tta_{name} {value:g}" for name, value in now.items()]
        return "\n".join([*lines, ""])

    def _add(self, name: str, number: int) -> None:
        with self._lock:
            self._counts[name] += number
