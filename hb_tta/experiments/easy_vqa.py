"""easy-VQA: what views bring on pictures and questions that nobody here drew.

    pip install easy-vqa
    python -m hb_tta.experiments.easy_vqa --out DIR [--images 100] [--views 4]

easy-VQA (github.com/vzhou842/easy-VQA): one coloured shape on a nearly white ground, 64×64. Of its
test split, and then its training split, for nothing here was trained on it, the images whose shape
and colour the pocket world has, in their order; of each image a yes/no question about a shape and
one about a colour, where it has them, not negated. They are asked in the world's wording, for the
model has read no other: "is there a red shape?" becomes "Is the circle red?" by the shape that
another of the image's questions names. The rows go through the same doors as a harness:
``--augment_args`` of each. Kept in DIR; the same command again goes on.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hb_tta.context import MultimodalContext
from hb_tta.describe import load_mllm
from hb_tta.errors import UserError
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import get_family
from hb_tta.metrics import bootstrap_interval, paired_test
from hb_tta.pocket.tasks import SUFFIX
from hb_tta.pocket.world import COLOURS, SHAPES
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.tta.answer import Answer, Question, answer_many

PLAIN = "plain"
# Row → the method, and what stands behind --augment_args.
ROWS: Mapping[str, tuple[str, str] | None] = {
    PLAIN: None,
    "hummingbird": ("hummingbird", "preset=paper"),
    "verified": ("hummingbird", "preset=safe,gate=none"),
    "safe": ("hummingbird", "preset=safe"),
    "i2t2i": ("i2t2i", "preset=paper"),
    "jitter": ("jitter", "preset=paper"),
    "box filter": ("filter", "preset=paper,n=1"),
}
_NEGATED = re.compile(r"\b(no|not)\b")
_NAMED = re.compile(r"what is the color of the (circle|rectangle|triangle)")


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        image: the split and the number of its image.
        about: "shape" or "colour".
    """

    image: str
    picture: Image.Image
    text: str
    answer: str
    about: str


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the tables."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        text = write_tables(options.out / "easy_vqa.md", tables(results))
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run a row."""
    questions = chosen(options.images)
    for name in ROWS:
        yield PlannedRun(name, lambda name=name: _measured(name, questions, options))  # type: ignore[misc]


# ── The questions ───────────────────────────────────────────────────────────────────────────────


def chosen(images: int) -> list[Asked]:
    """One question or two of each of the first images that the world's words can tell.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import easy_vqa  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("easy-VQA is not installed: `pip install easy-vqa`") from error
    found: list[Asked] = []
    splits = (
        ("test", easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()),
        ("train", easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()),
    )
    for split, questions, paths in splits:
        by_image: dict[int, list[tuple[str, str]]] = {}
        for text, answer, number in zip(*questions, strict=True):
            by_image.setdefault(number, []).append((text, answer))
        for number, pairs in sorted(by_image.items()):
            if len({one.image for one in found}) == images:
                return found
            if told := _told_of(pairs):
                picture = Image.open(paths[number]).convert("RGB")
                name = f"{split} {number}"
                found += [Asked(name, picture, *pair, about) for about, pair in told.items()]
    return found


def _told_of(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """About what → a question in the world's wording and its answer; of an image's own pairs."""
    open_answers = {answer for _, answer in pairs} - {"yes", "no"}
    named = next((m[1] for text, _ in pairs if (m := _NAMED.search(text))), None)
    if named not in SHAPES or not all(word in (*SHAPES, *COLOURS) for word in open_answers):
        return {}
    told: dict[str, tuple[str, str]] = {}
    for text, answer in pairs:
        if answer not in ("yes", "no") or _NEGATED.search(text):
            continue
        words = re.findall(r"[a-z]+", text)
        for shape in (word for word in words if word in SHAPES):
            told.setdefault("shape", (f"Is there a {shape} in this image?", answer.capitalize()))
        for colour in (word for word in words if word in COLOURS):
            told.setdefault("colour", (f"Is the {named} {colour}?", answer.capitalize()))
    return told


# ── The answers ─────────────────────────────────────────────────────────────────────────────────


def _measured(name: str, questions: Sequence[Asked], options: argparse.Namespace) -> Any:
    row = ROWS[name]
    settings = None if row is None else _settings(*row, options)
    decided_by = {
        "questions": [[one.image, one.text, one.answer] for one in questions],
        "mllm": get_family("pocket").weights("mllm").fingerprint(),
        "views": None if settings is None else settings.digest,
    }
    path = options.out / f"easy_vqa.{name.replace(' ', '_')}.json"
    return kept(path, decided_by, lambda: measure(questions, settings))


def _settings(method: str, said: str, options: argparse.Namespace) -> AugmentSettings:
    views = "" if "n=" in said else f",n={options.views}"
    store = (options.out / "store").resolve()
    return AugmentSettings.parse(method, f"family=pocket,{said}{views},store={store}")


def measure(questions: Sequence[Asked], settings: AugmentSettings | None) -> dict[str, Any]:
    """Right or wrong a question, 0/1, and the views that were shown."""
    prompts = [f"{one.text}{SUFFIX}" for one in questions]
    views: list[Sequence[Any]] = [()] * len(questions)
    if settings is not None:
        contexts = [
            MultimodalContext(one.picture, prompt)
            for one, prompt in zip(questions, prompts, strict=True)
        ]
        views = [its.views for its in settings.augmenter.augment(contexts, n=settings.n)]
    answers = answer_many(
        *load_mllm(get_family("pocket").weights("mllm")),
        [Question(one.picture, p, v) for one, p, v in zip(questions, prompts, views, strict=True)],
        gate=None if settings is None else settings.views.gate,
        max_new_tokens=4, do_sample=False,
    )  # fmt: skip
    given = [_raised(one) for one in answers]
    said = [one.text.strip().rstrip(".").capitalize() for one in given]
    right = [float(a == one.answer) for a, one in zip(said, questions, strict=True)]
    return {
        "right": right,
        "shown": [len(one.seen) - 1 for one in given],
        "image": [one.image for one in questions],
        "about": [one.about for one in questions],
    }


def _raised(answer: Answer | Exception) -> Answer:
    if isinstance(answer, Exception):
        raise answer
    return answer


# ── Tables ──────────────────────────────────────────────────────────────────────────────────────


def tables(results: Mapping[str, Any]) -> list[Table]:
    """A line a row: accuracy by what is asked and of all, with what has changed from plain."""
    plain = results[PLAIN]
    lines = []
    for name, its in results.items():
        cells: list[Cell | str] = [name]
        for about in ("shape", "colour", None):
            rows = [r for r, a in enumerate(its["about"]) if about in (None, a)]
            mine, base = ([of["right"][r] for r in rows] for of in (its, plain))
            groups = [its["image"][r] for r in rows]
            test = paired_test(mine, base, groups=groups) if name != PLAIN else None
            cells.append(
                Cell.of(
                    bootstrap_interval(mine, groups=groups),
                    None if test is None else Comparison.of(test, PLAIN),
                    kind="percent",
                )  # fmt: skip
            )
        pairs = list(zip(its["right"], plain["right"], strict=True))
        cells.append(f"{sum(a > b for a, b in pairs)}, {sum(a < b for a, b in pairs)}")
        cells.append(f"{sum(its['shown']) / len(its['shown']):.1f}")
        cells.append(could_have_shown(test) if test else "")
        lines.append(cells)
    heads = ["row", "shape", "colour", "all", "fixed, broken", "views shown", "could have shown"]
    notes = [f"{len(plain['right'])} questions of {len(set(plain['image']))} images."]
    return [Table(heads, lines, "easy-VQA: answers that are right", notes)]


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same again goes on")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--views", type=int, default=4, help="a question")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
