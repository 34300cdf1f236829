"""ChartQA's own scores, whose documents name their answer otherwise."""

from __future__ import annotations

from typing import Any

from lmms_eval.tasks.chartqa.utils import chartqa_process_results


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    return chartqa_process_results({**doc, "answer": doc["number"]}, results)
