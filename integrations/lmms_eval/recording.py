"""Where a run's records go: each behind its answer, and into the files beside lmms-eval's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loguru import logger

from hb_tta.integrations.lmms_eval.requests import Question
from hb_tta.integrations.lmms_eval.view_counts import sidecar_line
from hb_tta.integrations.sidecar import Sidecar


class Records:
    """Those of a call.

    Args:
        sidecar: the files; None: the run has no folder.
    """

    def __init__(self, sidecar: Sidecar | None) -> None:
        self._sidecar = sidecar

    def begin(self, requests: Sequence[Any]) -> None:
        """Read what earlier runs wrote of the requests' tasks."""
        if self._sidecar is not None:
            for task in {request.task_name for request in requests}:
                self._sidecar.begin(task)

    def keep(self, request: Any, value: Any, record: dict[str, Any]) -> Any:
        """Put a question's record where it belongs, and give what is returned for it."""
        sidecar = self._sidecar_of(request)
        if sidecar is not None:
            sidecar.add(request.task_name, sidecar_line(request, record), {})
        return value(record) if callable(value) else value

    def show(self, question: Question, record: dict[str, Any]) -> None:
        """Keep the real images of a question whose record is still to come."""
        sidecar = self._sidecar_of(question.request)
        if sidecar is not None:
            digests = (about["pixels"] for about in record["images"])
            sidecar.show(dict(zip(digests, question.shown, strict=True)))

    def write(self) -> None:
        """Write the files; a disk that is full now must not cost the answers."""
        if self._sidecar is not None and (failed := self._sidecar.tried()):
            logger.warning(f"hb-tta: {failed}")

    def _sidecar_of(self, request: Any) -> Sidecar | None:
        """Nowhere, where a request only fills up a batch."""
        return None if request.metadata.get("__padding_only__") else self._sidecar
