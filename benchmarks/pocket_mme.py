"""What generated views bring on pocket_mme, and what a gain means: methods beside their controls.

    python benchmarks/pocket_mme.py --split dev --limit 20 --out results

*plain* and the methods are answered by lmms-eval with our plugin, as a person would run it; the
controls (pocket_controls.py) in this process, by ``hb_tta.answer`` from the same questions, and
once more *plain*, which must agree. Writes report.json, report.md and report.html into the folder
of ``--out``; the same command again goes on where it was stopped. On several cores run its parts
side by side first, each with ``--only``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hb_tta.integrations.lmms_eval.settings import AugmentSettings
from lmms_eval.tasks.mme.utils import mme_process_results
from pocket_controls import Shown, controls, prompt_of
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from hb_tta import MultimodalContext, answer
from hb_tta.disk import write_aside
from hb_tta.families import get_family
from hb_tta.images import pixel_digest
from hb_tta.metrics import PairedTest, paired_test
from hb_tta.pocket.tasks import CATEGORIES, Sample, pocket_mme
from hb_tta.report import Picture, Record, Run, View, page, score, table
from hb_tta.report.reading import read_lines, read_runs
from hb_tta.report.scores import ALL
from hb_tta.store import Store

METHODS = ("hummingbird", "i2t2i", "randaugment")
UNDER_TEST = METHODS[0]  # whose descriptions and views the controls borrow
PARTS = ("plain", *METHODS, "controls")
TASKS = {"dev": "pocket_mme_dev", "sealed": "pocket_mme"}
# (a, b): is a better than b, beside each against plain
COMPARISONS = (
    (UNDER_TEST, "i2t2i"),
    (UNDER_TEST, "randaugment"),
    (UNDER_TEST, "text"),
    (UNDER_TEST, "other"),
    (UNDER_TEST, "jitter"),
    (UNDER_TEST, "box filter"),
    ("perfect judge", UNDER_TEST),
    ("ceiling", UNDER_TEST),
    ("ceiling", "jitter"),
    ("ceiling", "box filter"),
)
# A difference of so many standard errors is shown at p < 0.05 in four of five samples; an interval
# of 95 % is 3.92 of them wide.
POWER = (1.96 + 0.84) / 3.92


def main() -> None:
    """Evaluates, and writes the report."""
    options = _options()
    torch.set_num_threads(options.threads)
    check_settings(options)
    for part in PARTS if options.only is None else (options.only,):
        if part == "controls":
            answer_controls(options)
        else:
            evaluate(part, options)
    if options.only is None:
        write_report(options)


# ── plain and the methods: lmms-eval ─────────────────────────────────────────────────────────────


def settings_of(method: str, options: argparse.Namespace) -> AugmentSettings:
    """The plugin's settings of a method."""
    return AugmentSettings.parse(method, augment_args(options), device="cpu")


def augment_args(options: argparse.Namespace) -> str:
    """What stands behind ``--augment_args``."""
    return f"family=pocket,views={options.views},seed={options.seed},store={store_of(options)}"


def store_of(options: argparse.Namespace) -> str:
    """The store's folder."""
    return options.store or str(Path(options.out).resolve() / "store")


def check_settings(options: argparse.Namespace) -> None:
    """Ends the process if the folder has results of other weights or settings."""
    settings = {
        "split": options.split,
        "images a category": options.limit,
        "views": options.views,
        "seed": options.seed,
        "mllm": get_family("pocket").weights("mllm").fingerprint(),
        **{method: settings_of(method, options).spec_hash for method in METHODS},
    }
    path = Path(options.out) / "settings.json"
    if path.exists() and (found := json.loads(path.read_text())) != settings:
        other = sorted(k for k in settings | found if settings.get(k) != found.get(k))
        sys.exit(f"{options.out} has results of another {', '.join(other)}: name another --out")
    write_aside(path, json.dumps(settings, indent=2).encode())


def evaluate(arm: str, options: argparse.Namespace) -> None:
    """Run lmms-eval with the plugin, unless its results are there."""
    folder = Path(options.out) / "lmms_eval" / arm
    if is_complete(folder, options):
        return
    mllm = get_family("pocket").weights("mllm").location
    command = [
        *(sys.executable, "-m", "hb_tta.cli", "lmms-eval", "--model", "llava_hf"),
        *("--model_args", f"pretrained={mllm},device_map=cpu", "--device", "cpu"),
        *("--tasks", TASKS[options.split], "--limit", str(number_of_questions(options))),
        *("--log_samples", "--output_path", str(folder)),
    ]
    if arm != "plain":
        command += ["--augment", arm, "--augment_args", augment_args(options)]
    began, processor_began = time.perf_counter(), os.times().children_user
    subprocess.run(command, check=True)
    if not is_complete(folder, options):
        sys.exit(f"lmms-eval gave no results for {arm}: its messages above say why")
    processor = os.times().children_user - processor_began
    seconds = time.perf_counter() - began
    keep_seconds(arm, seconds, processor, number_of_questions(options), options)


def is_complete(folder: Path, options: argparse.Namespace) -> bool:
    """Whether lmms-eval has finished there; what a killed run left is taken away."""
    samples = list(folder.glob("*/*_samples_*.jsonl"))
    if any(len(path.read_bytes().splitlines()) == number_of_questions(options) for path in samples):
        return True
    for path in samples:
        path.unlink()
    return False


def number_of_questions(options: argparse.Namespace) -> int:
    """A yes and a no question an image."""
    return options.limit * len(CATEGORIES) * 2


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


# ── The controls ─────────────────────────────────────────────────────────────────────────────────


def questions(options: argparse.Namespace) -> list[Sample]:
    """The questions in the order of lmms-eval's documents: the categories take turns by image."""
    streams = [list(pocket_mme(options.split, category=c, limit=options.limit)) for c in CATEGORIES]
    starts = range(0, 2 * options.limit, 2)
    return [s for start in starts for stream in streams for s in stream[start : start + 2]]


def answer_controls(options: argparse.Namespace) -> None:
    """Answer what is missing of each control, a line a question."""
    samples = questions(options)
    files = {name: control_file(name, options) for name in controls([], [], options.split, 0)}
    done = {name: len(read_lines(path)) if path.exists() else 0 for name, path in files.items()}
    if all(count == len(samples) for count in done.values()):
        return
    arms = controls(samples, augmented(samples, options), options.split, options.views)
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


def augmented(samples: Sequence[Sample], options: argparse.Namespace) -> list[Any]:
    """The descriptions and views of the method under test; they are in the store already."""
    augmenter = settings_of(UNDER_TEST, options).augmenter
    contexts = [MultimodalContext(sample.image, prompt_of(sample)) for sample in samples]
    return augmenter.augment(contexts, n=options.views, seed=options.seed)


def asking(options: argparse.Namespace) -> Callable[[int, Sample, Shown], dict[str, Any]]:
    """A function that asks the MLLM and scores its answer as lmms-eval does."""
    folder = get_family("pocket").weights("mllm").local_folder()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")  # as llava_hf does
    processor = AutoProcessor.from_pretrained(folder)

    def ask(number: int, sample: Sample, shown: Shown) -> dict[str, Any]:
        said = answer(
            model, processor, sample.image, shown.prompt, shown.views,
            max_new_tokens=16, do_sample=False,
        )  # fmt: skip
        document = {"category": sample.category, "answer": sample.answer}
        document["question_id"] = sample.question_id
        (scored,) = mme_process_results(document, [said.text]).values()
        return {
            "question": str(number),
            "right": scored["score"] == 1,
            "answer": said.text,
            "description": shown.description,
            "prompt": shown.prompt,
            "real": keep_image(sample.image, options),
            "keys": list(shown.keys),
            "images": [] if shown.keys else [keep_image(view, options) for view in shown.views],
            "views": [view._asdict() for view in said.views],
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
    labels = ["real", *(f"view {number}" for number in range(len(pictures) - 1))]
    return Record(
        question=line["question"],
        image=sample.question_id,
        category=sample.category,
        right=line["right"],
        text=line["prompt"],
        target=sample.answer,
        answer=line["answer"],
        description=line["description"],
        views=[
            View(label, (picture,), **said)
            for label, picture, said in zip(labels, pictures, line["views"], strict=True)
        ],
        combined=line["combined"] and View("combined", **line["combined"]),
    )


# ── The report ───────────────────────────────────────────────────────────────────────────────────


def write_report(options: argparse.Namespace) -> None:
    """The table, the comparisons and the page."""
    folders = [str(Path(options.out) / "lmms_eval" / arm) for arm in ("plain", *METHODS)]
    task, runs = read_runs(folders, store=store_of(options))
    plain = runs[0]
    here, *others = control_runs(options)
    agree = sum(a.answer == b.answer for a, b in zip(plain.records, here.records, strict=True))
    runs += [replace(run, model=plain.model) for run in others]
    scored = score(runs)
    tests = comparisons({run.name: run for run in runs})
    settings = json.loads((Path(options.out) / "settings.json").read_text())
    files = sorted(seconds_folder(options).glob("*.json"))
    seconds = {path.stem: json.loads(path.read_text()) for path in files}
    report = {
        **table.to_json(task, scored),
        "comparisons": [{**about, **vars(test)} for about, test in tests],
        "plain agrees": {"questions": len(plain.records), "same answer": agree},
        "benchmark": settings,
        "seconds": seconds,
    }
    text = "\n\n".join(
        [
            f"# {task}: {options.limit} images a category, {options.views} views",
            table.markdown(scored),
            "## Between the arms, ACC in points\n\n" + comparison_table(tests),
            f"lmms-eval and `hb_tta.answer` give the same plain answer to {agree} of "
            f"{len(plain.records)} questions.",
        ]
    )
    made = page.render(task, scored, store=Store(store_of(options)))
    out = Path(options.out)
    write_aside(out / "report.json", json.dumps(report, indent=2).encode())
    write_aside(out / "report.md", (text + "\n").encode())
    write_aside(out / "report.html", made.html.encode())
    print(text)


def comparisons(runs: dict[str, Run]) -> list[tuple[dict[str, str], PairedTest]]:
    """Paired tests over images between arms, for all questions and each category."""
    found = []
    for first, second in COMPARISONS:
        for category in (ALL, *CATEGORIES):
            a, b = (
                [r for r in runs[name].records if category in (ALL, r.category)]
                for name in (first, second)
            )
            about = {"first": first, "second": second, "category": category}
            rights = [[float(record.right) for record in records] for records in (a, b)]
            found.append((about, paired_test(*rights, groups=[record.image for record in a])))
    return found


def comparison_table(tests: list[tuple[dict[str, str], PairedTest]]) -> str:
    """The comparisons in Markdown, with the difference that the sample shows at power 0.8."""
    rows = [
        "| first − second | category | difference | p | could have shown |",
        "| --- | --- | --- | --- | --- |",
    ]
    for about, test in tests:
        ends = f"[{table.signed(test.low)}, {table.signed(test.high)}]"
        rows.append(
            f"| {about['first']} − {about['second']} | {about['category']} "
            f"| {table.signed(test.difference)} {ends} | {table.p_value(test)} "
            f"| {100 * POWER * (test.high - test.low):.1f} |"
        )
    return "\n".join(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", required=True, help="a folder; the same again goes on")
    parser.add_argument("--split", choices=TASKS, default="dev", help="sealed is for reporting")
    parser.add_argument("--limit", type=int, default=20, help="images a category, 2 to 500")
    parser.add_argument("--views", type=int, default=4, help="beside the real image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="of the views (default: in the folder of --out)")
    parser.add_argument("--only", choices=PARTS, help="do this part and write no report")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not 2 <= options.limit <= 500:
        parser.error("--limit is the number of images a category, 2 to 500")
    return options


if __name__ == "__main__":
    main()
