"""What the tests of ``hb-tta vlmevalkit`` share: data sets in its own form, and runs of it."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image

from hb_tta.cli import main


class Run(NamedTuple):
    """What a run left behind.

    Attributes:
        answers: index → prediction.
        records: index → the sidecar's line; none without views.
        status: the run's ``status.json``.
    """

    answers: dict[int, str]
    records: dict[int, dict[str, Any]]
    status: dict[str, Any]


def encoded(image: Image) -> str:
    """An image as the data sets hold it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A data set: ``image`` is an image, or several."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["index", *rows[0]], delimiter="\t")
        writer.writeheader()
        for index, row in enumerate(rows):
            image = row["image"]
            several = isinstance(image, list)
            told = str([encoded(one) for one in image]) if several else encoded(image)
            writer.writerow({"index": index, **row, "image": told})


def command(
    folder: Path, model: str, data: str | Sequence[str], *options: str, mode: str | None = "infer"
) -> list[str]:
    """A command line whose results go to ``folder``."""
    names = [data] if isinstance(data, str) else list(data)
    what = ["--mode", mode] if mode else []
    return ["vlmevalkit", "--model", model, "--data", *names, "--work-dir", str(folder), *what,
            *options]  # fmt: skip


def evaluate(folder: Path, model: str, data: str, *options: str, mode: str | None = "infer") -> Run:
    """``hb-tta vlmevalkit``, and what it left behind."""
    assert main(command(folder, model, data, *options, mode=mode)) == 0
    return read(folder, model, data)


def read(folder: Path, model: str, data: str) -> Run:
    """What the one run in a folder left behind."""
    from vlmeval.smp import load

    (predictions,) = folder.rglob(f"{model}_{data}.xlsx")
    table = load(str(predictions))
    answers = dict(zip(table["index"], map(str, table["prediction"]), strict=True))
    beside = predictions.parent / "hb_tta" / f"{data}.jsonl"
    lines = sorted(read_lines(beside), key=lambda its: its["index"]) if beside.exists() else []
    status = json.loads((predictions.parent / "status.json").read_text())
    return Run(answers, {line["index"]: line for line in lines}, status)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def views_of(samples: Iterable[Any], method: str, arguments: str) -> list[list[Image]]:
    """The views that ``--augment`` shows for questions."""
    from hb_tta import MultimodalContext
    from hb_tta.settings.augmented import AugmentSettings

    settings = AugmentSettings.parse(method, arguments)
    contexts = [MultimodalContext(one.image, one.question) for one in samples]
    made = settings.augmenter.augment(contexts, n=settings.n, seed=settings.views.seed)
    return [list(one.views) for one in made]
