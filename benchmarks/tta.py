"""What views cost at answering: jointly, separately, in batches, and out of the store.

    python benchmarks/tta.py                                  # the pocket family's MLLM
    python benchmarks/tta.py --mllm FOLDER --device cuda

Every arm answers the same yes/no questions of pocket_mme in one process: *plain* from the real
image, *joint* from it and its views decoded together, *separate* with one plain answer a view; and
*plain, in batches* and *joint, in batches* many questions at once. The arms take turns, a block of
questions at a time, so that whatever else slows the machine slows all of them; on a CPU the clock
is the process's own processor time on one thread. *Augmentation* is what it takes to find all views
in the store again, per question, as a share of a joint answer and that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from hb_tta import Augmenter, MultimodalContext
from hb_tta.device import default_device, default_dtype
from hb_tta.families import get_family
from hb_tta.pocket.tasks import Sample, pocket_mme
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Table
from hb_tta.tta.answer import Question, answer_many
from hb_tta.tta.room import ROWS, Room

SUFFIX = "\nAnswer the question using a single word or phrase."


def main() -> None:
    """Measures and prints a table, or JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    model = AutoModelForImageTextToText.from_pretrained(
        options.mllm, dtype=default_dtype(options.device)
    ).to(options.device)
    processor = AutoProcessor.from_pretrained(options.mllm)
    samples = list(islice(pocket_mme("dev", limit=options.questions), options.questions))
    with tempfile.TemporaryDirectory() as store:
        augmented = augment(samples, options, store)
        augment_seconds = measure_augmentation(samples, options, store, clock)
    seconds = measure_answers(model, processor, samples, augmented, options, clock)
    report = summary(seconds, augment_seconds, options)
    print(json.dumps(report, indent=2) if options.json else table(report))


def augment(samples: list[Sample], options: argparse.Namespace, store: str) -> list[Any]:
    """The views of every question, which the store keeps."""
    augmenter = Augmenter.from_pretrained(options.method, family="pocket", store=store)
    contexts = [MultimodalContext(sample.image, sample.question + SUFFIX) for sample in samples]
    return augmenter.augment(contexts, n=options.views)


def measure_augmentation(
    samples: list[Sample],
    options: argparse.Namespace,
    store: str,
    clock: Callable[[], float],
) -> float:
    """Seconds a question for views that are in the store already."""
    times = []
    for _ in range(options.rounds):
        began = clock()
        augment(samples, options, store)
        times.append((clock() - began) / len(samples))
    return statistics.median(times)


def measure_answers(
    model: Any,
    processor: Any,
    samples: list[Sample],
    augmented: list[Any],
    options: argparse.Namespace,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds a question of each arm for each block, in turn."""
    room = Room(options.rows)

    def ask(questions: list[Question]) -> None:
        found = answer_many(
            model, processor, questions, room=room, max_new_tokens=options.max_new_tokens
        )
        assert not any(isinstance(one, Exception) for one in found), found
        if options.device != "cpu":
            torch.cuda.synchronize()

    def one_by_one(questions: list[Question]) -> None:
        for question in questions:
            ask([question])

    plain = [Question(sample.image, sample.question + SUFFIX) for sample in samples]
    joint = [replace(q, views=its.views) for q, its in zip(plain, augmented, strict=True)]
    arms: dict[str, Callable[[int, int], None]] = {
        "plain": lambda start, end: one_by_one(plain[start:end]),
        "plain, in batches": lambda start, end: ask(plain[start:end]),
        "joint": lambda start, end: one_by_one(joint[start:end]),
        "joint, in batches": lambda start, end: ask(joint[start:end]),
        "separate": lambda start, end: one_by_one(
            [
                replace(question, image=image)
                for question, its in zip(plain[start:end], augmented[start:end], strict=True)
                for image in (question.image, *its.views)
            ]
        ),
    }
    for arm in arms.values():  # warms up
        arm(0, 2)
    seconds: dict[str, list[float]] = {name: [] for name in options.arms or arms}
    for start in [*range(0, len(samples), options.block)] * options.rounds:
        end = min(start + options.block, len(samples))
        for name in seconds:
            began = clock()
            arms[name](start, end)
            seconds[name].append((clock() - began) / (end - start))
            print(f"{end} {name}: {1000 * seconds[name][-1]:.1f} ms", file=sys.stderr, flush=True)
    return seconds


def summary(
    seconds: dict[str, list[float]], augment_seconds: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Medians; ratios are medians of the ratios of neighbours in time."""

    def ratio(one: str, other: str) -> float:
        pairs = zip(seconds[one], seconds[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    joint = statistics.median(seconds["joint"])
    pairs = (
        ("joint", "separate"),
        ("joint", "plain"),
        ("plain", "plain, in batches"),
        ("joint", "joint, in batches"),
    )
    return {
        "views": options.views,
        "questions": options.questions,
        "device": options.device,
        "milliseconds": {name: 1000 * statistics.median(its) for name, its in seconds.items()},
        "ratios": {
            f"{one} / {other}": ratio(one, other)
            for one, other in pairs
            if one in seconds and other in seconds
        },
        "milliseconds of augmentation": 1000 * augment_seconds,
        "share of augmentation": augment_seconds / (augment_seconds + joint),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    milliseconds = {**report["milliseconds"], "from store": report["milliseconds of augmentation"]}
    rows: list[list[Cell | str]] = [
        [name, Cell(figure, kind="fine")] for name, figure in milliseconds.items()
    ]
    title = (
        f"{report['views']} views and the real image, {report['questions']} questions, "
        f"{report['device']}"
    )
    notes = [f"{name} {ratio:.2f}" for name, ratio in report["ratios"].items()]
    notes.append(f"augmentation {report['share of augmentation']:.1%} (aim: under 2 %)")
    return renderers.text(Table(["", "ms a question"], rows, title, notes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mllm", default=get_family("pocket").weights("mllm").location)
    parser.add_argument("--method", default="randaugment", help="whose views (speed is the same)")
    parser.add_argument("--views", type=int, default=4, help="beside the real image")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=int, default=20, help="questions, before the next arm")
    parser.add_argument("--rows", type=int, default=ROWS, help="of a batch")
    parser.add_argument("--arms", action="append", help="those alone; repeat it")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
