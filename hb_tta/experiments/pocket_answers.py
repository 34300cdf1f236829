"""The answers to pocket_mme's questions under its controls, in files with a line a question."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from hb_tta.disk import write_aside
from hb_tta.experiments.pocket_controls import Shown, controls
from hb_tta.families import get_family
from hb_tta.images import pixel_digest
from hb_tta.pocket.tasks import CATEGORIES, Sample, pocket_mme
from hb_tta.report import Picture, Record, Run, Seen
from hb_tta.tta.answer import Answer, answer

Augment = Callable[[Sequence[Sample], argparse.Namespace], list[Any]]


def questions(options: argparse.Namespace) -> list[Sample]:
    """The questions in the order of lmms-eval's documents: the categories take turns by image."""
    streams = [list(pocket_mme(options.split, category=c, limit=options.limit)) for c in CATEGORIES]
    starts = range(0, 2 * options.limit, 2)
    return [s for start in starts for stream in streams for s in stream[start : start + 2]]


def answer_controls(options: argparse.Namespace, augment: Augment) -> None:
    """Answer what is missing of each control.

    Args:
        options: of the command.
        augment: questions and the options → an ``Augmentation`` each, by the method under test.
    """
    samples = questions(options)
    files = {name: control_file(name, options) for name in controls([], [], options.split, 0)}
    done = {name: len(read_lines(path)) if path.exists() else 0 for name, path in files.items()}
    if all(count == len(samples) for count in done.values()):
        return
    arms = controls(samples, augment(samples, options), options.split, options.views)
    ask = asking(options)
    for name, shown in arms.items():
        began, processor_began = time.perf_counter(), time.process_time()
        todo = range(done[name], len(samples))
        with open(files[name], "a", encoding="utf-8") as file:
            for number in tqdm(todo, desc=name):
                line = ask(number, samples[number], shown(number))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
        if todo:
            processor = time.process_time() - processor_began
            keep_seconds(name, time.perf_counter() - began, processor, len(todo), options)


def control_file(name: str, options: argparse.Namespace) -> Path:
    """Where a control's answers are; a line that a killed run left unfinished is taken off."""
    path = Path(options.out) / "controls" / f"{name.replace(' ', '_')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            write_aside(path, text[: text.rfind("\n") + 1].encode())
    return path


def asking(options: argparse.Namespace) -> Callable[[int, Sample, Shown], dict[str, Any]]:
    """A function that asks the MLLM and scores its answer as lmms-eval does."""
    from lmms_eval.tasks.mme.utils import mme_process_results

    folder = get_family("pocket").weights("mllm").local_folder()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")  # as llava_hf does
    processor = AutoProcessor.from_pretrained(folder)

    def ask(number: int, sample: Sample, shown: Shown) -> dict[str, Any]:
        said = Answer(shown.answered or "", [], None)
        if shown.answered is None:
            said = answer(
                model, processor, sample.image if shown.pictured else None, shown.prompt,
                shown.views, max_new_tokens=16, do_sample=False,
            )  # fmt: skip
        document = {"category": sample.category, "answer": sample.answer}
        document["question_id"] = sample.question_id
        (scored,) = mme_process_results(document, [said.text]).values()
        return {
            "question": str(number),
            "right": scored["score"] == 1,
            "answer": said.text,
            "description": shown.description,
            "pictured": shown.pictured,
            "prompt": shown.prompt,
            "real": keep_image(sample.image, options),
            "keys": list(shown.keys),
            "images": [] if shown.keys else [keep_image(view, options) for view in shown.views],
            "views": [view._asdict() for view in said.seen],
            "combined": said.combined and said.combined._asdict(),
        }

    return ask


def keep_image(image: Any, options: argparse.Namespace) -> str:
    """Write an image for the page; its file's name."""
    path = Path(options.out) / "controls" / "images" / f"{pixel_digest(image)}.png"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        image.save(path)  # nothing reads it while the figures are made
    return path.name


def control_runs(options: argparse.Namespace) -> Iterator[Run]:
    """The controls' answers as runs."""
    samples = questions(options)
    for name in controls([], [], options.split, 0):
        lines = read_lines(control_file(name, options))
        records = [
            control_record(sample, line, options)
            for sample, line in zip(samples, lines, strict=True)
        ]
        yield Run(name, records)


def control_record(sample: Sample, line: dict[str, Any], options: argparse.Namespace) -> Record:
    """A control's answer to a question."""
    images = Path(options.out) / "controls" / "images"
    pictures = [Picture(images / line["real"])]
    pictures += [Picture(key=key) for key in line["keys"]]
    pictures += [Picture(images / name) for name in line["images"]]
    labels = ["real" if line["pictured"] else "words alone (the image was not shown)"]
    labels += [f"view {number}" for number in range(len(pictures) - 1)]
    views = line["views"] or [{}] * len(pictures)  # the model was not asked
    return Record(
        question=line["question"],
        group=sample.question_id,
        category=sample.category,
        score=float(line["right"]),
        text=line["prompt"],
        target=sample.answer,
        answer=line["answer"],
        description=line["description"],
        seen=[
            Seen(label, (picture,), **said)
            for label, picture, said in zip(labels, pictures, views, strict=True)
        ],
        combined=line["combined"] and Seen("combined", **line["combined"]),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The answers in a control's file."""
    lines = path.read_text(encoding="utf-8").split("\n")  # a question may hold a U+2028
    return [json.loads(line) for line in lines if line]


def keep_seconds(
    arm: str, seconds: float, processor: float, questions: int, options: argparse.Namespace
) -> None:
    """Note how long an arm took, by the clock and in time of the processor."""
    path = seconds_folder(options) / f"{arm.replace(' ', '_')}.json"
    kept = {"clock": seconds, "processor": processor, "questions": questions}
    write_aside(path, json.dumps(kept).encode())


def seconds_folder(options: argparse.Namespace) -> Path:
    """Where a file an arm says how long it took; of a run in pieces, the last one."""
    return Path(options.out) / "seconds"
