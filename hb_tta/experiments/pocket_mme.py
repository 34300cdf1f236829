"""What generated views bring on pocket_mme, and what a gain means: methods beside their controls.

    python -m hb_tta.experiments.pocket_mme --split dev --limit 20 --out results

*plain* and the methods are answered by lmms-eval with our plugin, as a person would run it:
*hummingbird*, *i2t2i*, *mumu* and *randaugment* by the paper's preset, *safe* by that preset,
*verified* without its gate, *describe* and *paraphrases* without views, *contrast* with noisy
copies; the controls (pocket_controls.py) in this process, by ``hb_tta.answer`` from the same
questions, and once more *plain*, which must agree. Writes report.json, report.md and report.html
into the folder of ``--out``; the same command again goes on where it was stopped. On several cores
run its parts side by side first, each with ``--only``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hb_tta.context import MultimodalContext
from hb_tta.disk import write_aside
from hb_tta.experiments.plan import PlannedRun, carry_out, run_command
from hb_tta.experiments.pocket_answers import (
    answer_controls,
    control_runs,
    keep_seconds,
    questions,
    seconds_folder,
)
from hb_tta.experiments.pocket_controls import prompt_of
from hb_tta.families import get_family
from hb_tta.metrics import PairedTest, paired_test
from hb_tta.pocket.tasks import CATEGORIES, Sample
from hb_tta.report import Run, page, renderers, score, table
from hb_tta.report.cells import Cell, Table, could_have_shown
from hb_tta.report.scores import ALL, Scored
from hb_tta.store import open_store

if TYPE_CHECKING:
    from hb_tta.settings.augmented import AugmentSettings

# Arm → the method, and what else stands behind --augment_args.
ARMS = {
    "hummingbird": ("hummingbird", "preset=paper"),
    "verified": ("hummingbird", "preset=safe,gate=none"),
    "safe": ("hummingbird", "preset=safe"),
    "i2t2i": ("i2t2i", "preset=paper"),
    "mumu": ("mumu", "preset=paper"),
    "randaugment": ("randaugment", "preset=paper"),
    "describe": ("hummingbird", "preset=paper,n=0,combine=describe"),
    "paraphrases": ("hummingbird", "preset=paper,n=0,paraphrases=3"),
    "contrast": ("noise", "preset=paper,combine=contrast"),
}
UNDER_TEST = "hummingbird"  # whose descriptions and views the controls borrow
PARTS = ("plain", *ARMS, "controls")
TASKS = {"dev": "pocket_mme_dev", "sealed": "pocket_mme"}
# (a, b): is a better than b, beside each against plain
COMPARISONS = (
    (UNDER_TEST, "i2t2i"),
    (UNDER_TEST, "mumu"),
    (UNDER_TEST, "randaugment"),
    (UNDER_TEST, "text"),
    (UNDER_TEST, "words"),
    (UNDER_TEST, "said"),
    (UNDER_TEST, "other"),
    (UNDER_TEST, "jitter"),
    (UNDER_TEST, "box filter"),
    ("verified", UNDER_TEST),
    ("safe", "verified"),
    ("safe", "jitter"),
    ("safe", "box filter"),
    ("safe", "describe"),
    ("perfect judge", UNDER_TEST),
    ("ceiling", UNDER_TEST),
    ("ceiling", "words"),
    ("ceiling", "jitter"),
    ("ceiling", "said"),
    ("ceiling", "box filter"),
    ("ceiling", "unsharp mask"),
)


def main() -> None:
    """Evaluates, and writes the report."""
    options = _options()
    torch.set_num_threads(options.threads)
    check_settings(options)
    for _ in carry_out(plan(options)):
        pass  # every part's results are files in its own folder
    if options.only is None:
        write_report(options)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """The parts that are asked for."""
    for part in PARTS if options.only is None else (options.only,):
        if part == "controls":
            yield PlannedRun(part, lambda: answer_controls(options, augmented))
        else:
            yield PlannedRun(part, lambda part=part: evaluate(part, options))  # type: ignore[misc]


# ── plain and the methods: lmms-eval ─────────────────────────────────────────────────────────────


def settings_of(arm: str, options: argparse.Namespace) -> AugmentSettings:
    """The plugin's settings of an arm."""
    from hb_tta.settings.augmented import AugmentSettings

    return AugmentSettings.parse(ARMS[arm][0], augment_args(arm, options), device="cpu")


def augment_args(arm: str, options: argparse.Namespace) -> str:
    """What stands behind ``--augment_args``."""
    own = ARMS[arm][1]
    views = "" if "n=0" in own else f"n={options.views},"
    return f"family=pocket,{own},{views}seed={options.seed},store={store_of(options)}"


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
        **{arm: settings_of(arm, options).digest for arm in ARMS},
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
        *("lmms-eval", "--model", "llava_hf"),
        *("--model_args", f"pretrained={mllm},device_map=cpu", "--device", "cpu"),
        *("--tasks", TASKS[options.split], "--limit", str(number_of_questions(options))),
        *("--log_samples", "--output_path", str(folder)),
    ]
    if arm != "plain":
        command += ["--augment", ARMS[arm][0], "--augment_args", augment_args(arm, options)]
    began, processor_began = time.perf_counter(), os.times().children_user
    if run_command(*command) or not is_complete(folder, options):
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


def augmented(samples: Sequence[Sample], options: argparse.Namespace) -> list[Any]:
    """The descriptions and views of the method under test; they are in the store already."""
    augmenter = settings_of(UNDER_TEST, options).augmenter
    contexts = [MultimodalContext(sample.image, prompt_of(sample)) for sample in samples]
    return augmenter.augment(contexts, n=options.views, seed=options.seed)


# ── The report ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Results:
    """What the parts gave.

    Attributes:
        task: its name.
        scored: every arm.
        tests: between arms, each with what it is about.
        agree: to how many questions lmms-eval and ``hb_tta.answer`` give the same plain answer.
    """

    task: str
    scored: list[Scored]
    tests: list[tuple[dict[str, str], PairedTest]]
    agree: int


def results_of(options: argparse.Namespace) -> Results:
    """Read what the parts left in their folders."""
    from hb_tta.integrations.lmms_eval.results import read_runs

    runs = []
    for arm in ("plain", *ARMS):
        folder = str(Path(options.out) / "lmms_eval" / arm)
        task, (run,) = read_runs([folder], store=store_of(options))
        runs.append(replace(run, name=arm))
    plain = runs[0]
    here, *others = control_runs(options)
    agree = sum(a.answer == b.answer for a, b in zip(plain.records, here.records, strict=True))
    runs += [replace(run, model=plain.model) for run in others]
    parts = [sample.part for sample in questions(options)]
    tests = comparisons({run.name: run for run in runs}, parts)
    return Results(task, score(runs), tests, agree)


def tables(results: Results) -> list[Table]:
    """The arms by category, and the arms beside each other."""
    return [table.table(results.scored), comparison_table(results.tests)]


def write_report(options: argparse.Namespace) -> None:
    """The tables, their figures as JSON, and the page."""
    results, out = results_of(options), Path(options.out)
    files = sorted(seconds_folder(options).glob("*.json"))
    asked = len(results.scored[0].run.records)
    report = {
        **table.to_json(results.task, results.scored),
        "comparisons": [{**about, **vars(test)} for about, test in results.tests],
        "plain agrees": {"questions": asked, "same answer": results.agree},
        "benchmark": json.loads((out / "settings.json").read_text()),
        "seconds": {path.stem: json.loads(path.read_text()) for path in files},
    }
    arms, between = map(renderers.markdown, tables(results))
    text = "\n\n".join(
        [
            f"# {results.task}: {options.limit} images a category, {options.views} views",
            arms,
            f"## Between the arms, ACC in points\n\n{between}",
            f"lmms-eval and `hb_tta.answer` give the same plain answer to {results.agree} of "
            f"{asked} questions.",
        ]
    )
    made = page.render(results.task, results.scored, store=open_store(store_of(options)))
    write_aside(out / "report.json", json.dumps(report, indent=2).encode())
    write_aside(out / "report.md", (text + "\n").encode())
    write_aside(out / "report.html", made.html.encode())
    print(text)


def comparisons(
    runs: dict[str, Run], parts: Sequence[str]
) -> list[tuple[dict[str, str], PairedTest]]:
    """Paired tests over images between arms: of all questions, each category and each part.

    Args:
        parts: of the questions, in their order: a row each where there is more than one.
    """
    found = []
    several = sorted(set(parts)) if len(set(parts)) > 1 else []
    for first, second in COMPARISONS:
        for those in (ALL, *CATEGORIES, *several):
            a, b = (
                [
                    record
                    for record, part in zip(runs[name].records, parts, strict=True)
                    if those in (ALL, record.category, part)
                ]
                for name in (first, second)
            )
            about = {"first": first, "second": second, "of": those}
            rights = [[record.score for record in records] for records in (a, b)]
            found.append((about, paired_test(*rights, groups=[record.group for record in a])))
    return found


def comparison_table(tests: list[tuple[dict[str, str], PairedTest]]) -> Table:
    """A row a pair of arms and a category or part, with what the sample could have shown.

    That is a difference in points, at power 0.8.
    """
    rows: list[list[Cell | str]] = [
        [
            f"{about['first']} − {about['second']}",
            about["of"],
            Cell.difference(test, about["second"]),
            could_have_shown(test),
        ]
        for about, test in tests
    ]
    return Table(["first − second", "of", "difference", "could have shown"], rows, heads=2)


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
