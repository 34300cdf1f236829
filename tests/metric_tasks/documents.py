"""Documents of tiny tasks of other metrics than MME's: flags of two colours, and questions on them.

The data set's one row says how many images; each has several questions, as most tasks' have.
"""

from __future__ import annotations

import io
from typing import Any

import datasets
import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200)}
LETTERS = "ABC"


def draw(recipe: datasets.Dataset) -> datasets.Dataset:
    """Images, questions and answers in the columns that tasks have."""
    number = recipe[0]["images"]
    rows = [row for place in range(number) for row in _rows(place, *_flag(place))]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def _flag(place: int) -> tuple[bytes, list[str]]:
    rng = np.random.default_rng(place)
    names = [str(name) for name in rng.choice(list(COLOURS), 2)]
    pixels = np.zeros((48, 64, 3), np.uint8)
    for half, name in zip((slice(0, 32), slice(32, 64)), names, strict=True):
        pixels[:, half] = COLOURS[name] + rng.integers(-20, 20, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), names


def _rows(place: int, png: bytes, names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for side, name in zip(("left", "right"), names, strict=True):
        options = "\n".join(f"{LETTERS[i]}. {c}" for i, c in enumerate(COLOURS))
        rows.append(
            {
                "index": len(rows),
                "flag": f"flag {place}",
                "image": {"bytes": png, "path": None},
                "side": side,
                "question": f"Which colour has the {side} half of flag {place}?",
                "answer": name,
                "answers": [name, f"{name} colour"],
                "place": list(COLOURS).index(name),
                "colours": list(COLOURS),
                "lettered": f"Which colour is at the {side}?\n{options}",
                "letter": LETTERS[list(COLOURS).index(name)],
                "type": "human_test" if side == "left" else "augmented",
                "number": str(place * 10 + 5),
            }
        )
    return rows


def image(doc: dict[str, Any]) -> list[Image.Image]:
    """What most tasks show."""
    return [doc["image"].convert("RGB")]


def both_halves(doc: dict[str, Any]) -> list[Image.Image]:
    """Two images a question."""
    (whole,) = image(doc)
    return [whole.crop((0, 0, 32, 48)), whole.crop((32, 0, 64, 48))]


def question(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return doc["question"] + "\nOne of: red, green, blue"


def count(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    number = int(doc["number"])
    wrong = f"{number * 2}, {number + 40}"
    return f"How many stars has the {doc['side']} half?\nOne of: {number}, {number * 1.03}, {wrong}"


def lettered(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return doc["lettered"] + "\nOne of: A, B, C"


def rated(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return f"How well do the halves of {doc['flag']} go together?\nOne of: 1, 2, 3, 4, 5"
