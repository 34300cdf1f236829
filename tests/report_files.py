"""Output folders of lmms-eval, as its version 0.7.3 writes them, for the tests of the report."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hb_tta.integrations.lmms_eval.folders import run_name
from PIL import Image

from hb_tta.images import pixel_digest
from hb_tta.store import Store, content_key

PROMPT = "\nAnswer the question using a single word or phrase."
SETTINGS = "hb_augment=hummingbird,hb_family=pocket,hb_seed=0,hb_spec=0123456789abcdef,hb_views=2"


def picture(seed: int, size: int = 8) -> Image.Image:
    """One of a colour of its own."""
    return Image.new("RGB", (size, size), (seed % 256, 7 * seed % 256, 200))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def line(number: int, right: bool, **changes: Any) -> dict[str, Any]:
    """A question's line: two questions an image, two images a category."""
    category = ("count", "color")[number // 4]
    question_id = f"{category}/{number // 2:04d}.png"
    target = ("Yes", "No")[number % 2]
    answer = target if right else ("No", "Yes")[number % 2]
    score = {"question_id": question_id, "category": category, "score": float(right)}
    return {
        "doc_id": number,
        "target": target,
        "filtered_resps": answer,
        "token_counts": [{"output_tokens": 2}],
        "doc_hash": "74234e98",
        "input_media": [question_id],
        "mme_perception_score": score,
        "input": f"Is it number {number}?{PROMPT}",
        **changes,
    }


def said(number: int, store: Store, views: int = 2, size: int = 8) -> dict[str, Any]:
    """What the plugin writes of a question; the views go into the store."""
    keys = [content_key({"question": number, "view": view}) for view in range(views)]
    for view, key in enumerate(keys):
        store.put("views", key, png(picture(100 + 10 * number + view, size)), {})
    return {
        "answer": "Yes",
        "mode": "batched",
        "views": [{"yes": -0.1 * (view + 1), "no": -2.0} for view in range(views + 1)],
        "combined": {"yes": -0.2, "no": -1.7},
        "images": [
            {
                "pixels": pixel_digest(picture(number // 2)),
                "description": f"a description of {number}",
                "seeds": list(range(views)),
                "keys": keys,
            }
        ],
    }


def write_run(
    out: Path,
    lines: Iterable[Mapping[str, Any]],
    *,
    model_args: str = "pretrained=tiny,device_map=cpu",
    task: str = "mme",
    date: str = "20260101_000000",
    results: bool = True,
    model: str = "tiny",
    **config: Any,
) -> Path:
    """A run's folder below ``out``; the samples file's path."""
    folder = out / model
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / f"{date}_samples_{task}.jsonl"
    samples.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    if results:
        known = {"model": "llava_hf", "model_args": model_args, "limit": 8.0, "offset": 0}
        known |= {"device": "cpu", "random_seed": 0, **config}
        text = json.dumps({"config": known, "model_name_sanitized": model})
        (folder / f"{date}_results.json").write_text(text, encoding="utf-8")
    return samples


def write_plain(out: Path, right: str = "11101000", **settings: Any) -> Path:
    """A run without our flag; a 1 for each question that it answers rightly."""
    return write_run(out, [line(n, r == "1") for n, r in enumerate(right)], **settings)


def write_augmented(
    out: Path, store: Store, right: str = "11011100", *, beside: bool = False, **settings: Any
) -> Path:
    """A run with our flag; with ``beside`` as it is when lmms-eval's cache gave the answers."""
    model_args = f"pretrained=tiny,device_map=cpu,{settings.pop('hb', SETTINGS)}"
    task, size = settings.get("task", "mme"), settings.pop("size", 8)
    records = [said(number, store, size=size) for number in range(len(right))]
    folder = out / "hb_tta" / run_name(model_args)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(records):
        digest = record["images"][0]["pixels"]
        (folder / "images" / f"{digest}.png").write_bytes(png(picture(number // 2)))
    with open(folder / f"{task}.jsonl", "w", encoding="utf-8") as file:
        for number, record in enumerate(records):
            file.write(json.dumps({"task": task, "doc_id": number, "idx": 0, **record}) + "\n")
    counts = [
        {"token_counts": [{"output_tokens": 2, **({} if beside else {"hb_tta": record})}]}
        for record in records
    ]
    lines = [line(n, r == "1", **counts[n]) for n, r in enumerate(right)]
    return write_run(out, lines, model_args=model_args, **settings)
