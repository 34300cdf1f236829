"""The documents of pocket_mme: the data set's one row says which scenes to draw."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import datasets

from hb_tta.pocket.tasks import CATEGORIES, Sample, pocket_mme

FEATURES = datasets.Features(
    {
        "question_id": datasets.Value("string"),
        "image": datasets.Image(),
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "category": datasets.Value("string"),
        "part": datasets.Value("string"),
    }
)


def draw(recipe: datasets.Dataset) -> datasets.Dataset:
    """MME's columns and the picture's part, a yes and a no question an image.

    The categories take turns, image by image, and within each the parts: any ``--limit`` is
    balanced.
    """
    split, images = recipe[0]["split"], recipe[0]["images_per_category"]
    streams = [pocket_mme(split, category=category, limit=images) for category in CATEGORIES]
    rows = [row for _ in range(images) for stream in streams for row in _pair(stream)]
    return datasets.Dataset.from_list(rows, features=FEATURES)


def _pair(stream: Iterator[Sample]) -> list[dict[str, Any]]:
    yes, no = next(stream), next(stream)
    assert yes.question_id == no.question_id
    file = io.BytesIO()
    yes.image.save(file, "PNG")
    image = {"bytes": file.getvalue(), "path": None}
    return [
        {
            "question_id": sample.question_id,
            "image": image,
            "question": sample.question,
            "answer": sample.answer,
            "category": sample.category,
            "part": sample.part,
        }
        for sample in (yes, no)
    ]
