"""Which questions of MME the paper uses."""

from __future__ import annotations

import datasets

PAPER = ("existence", "count", "position", "color", "scene")  # section 5.1
APPENDIX = ("artwork", "commonsense_reasoning")


def paper(documents: datasets.Dataset) -> datasets.Dataset:
    """The five categories of Table 1."""
    return _of(documents, PAPER)


def appendix(documents: datasets.Dataset) -> datasets.Dataset:
    """The two more of the appendix."""
    return _of(documents, APPENDIX)


def _of(documents: datasets.Dataset, categories: tuple[str, ...]) -> datasets.Dataset:
    # By index: a filter over rows would decode every image.
    kept = [i for i, category in enumerate(documents["category"]) if category in categories]
    return documents.select(kept)
