"""``hb-tta train``: fine-tunes the generator with rewards into a LoRA."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hb_tta.cli.options import add_columns
from hb_tta.errors import UserError, visible

DESCRIPTION = """\
Fine-tunes a generator's UNet, by a LoRA, on rewards for images that show what their context
descriptions say (Hummingbird, section 4.2). The run lives in DIR: the last LoRA lies there in
PEFT's format, and the same command again, also after a kill, goes on where it stopped.

Data is a file of rows with image, question and answer: JSON lines or an array, CSV, TSV,
Parquet, the manifest.jsonl of `hb-tta augment`; a folder with one of them in it, or in the
layout of the recipe's data; or a data set of the Hugging Face hub, owner/name. A relative
path of an image is taken from the file's folder. Rows that cannot be used are counted and
listed.

The recipes mumu-… train MUMU, prompts of text and images, on what `hb-tta bootstrap`
writes; their folder is what `hb-tta mumu` loads.

Several GPUs: accelerate launch -m hb_tta.cli train … (as many processes as divide batch_size)."""

EXAMPLES = """\
examples:
  hb-tta train --recipe pocket --out run
  hb-tta train --recipe paper-vqa --data mine.jsonl --out run --set learning_rate=1e-5
  hb-tta train --recipe paper-vqa --dry-run
  hb-tta train --recipe mumu-align --data boxes/boxes.jsonl --out aligned
  hb-tta train --recipe mumu-1 --data boxes/boxes.jsonl --set start=aligned --out run
  hb-tta augment photo.jpg "Is there a dog?" --lora run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta train --recipe NAME [--data PATH] [--set KEY=VALUE …] --out DIR"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME",
        help="pocket, pocket-hoi, pocket-object (the bundled family, on a CPU), paper-vqa, "
        "paper-hoi, paper-object (the paper's settings; each tunes one LoRA for its benchmark) "
        "or released (the authors' hyper-parameters); of MUMU mumu-align, mumu-1, mumu-2 (the "
        "paper's stages) or pocket-mumu",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a file of rows, a folder or a data set of the hub (default: what the recipe names)",
    )
    add_columns(parser)
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change a setting, such as max_steps=100, save_steps=10, rewards.global=0 or "
        "memory=step+block; may be given many times; --dry-run shows them all",
    )
    parser.add_argument("--out", metavar="DIR", help="the run's folder (needed but for --dry-run)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what it would take, in parameters, steps, memory and hours; needs neither "
        "weights nor data",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train, or say what it would take."""
    from hb_tta.families import get_family
    from hb_tta.training.recipes import get_recipe, with_changes

    settings = with_changes(get_recipe(arguments.recipe), _changes(arguments))
    if arguments.dry_run:
        from hb_tta.training.estimate import table
        from hb_tta.training.kinds import estimate

        found = estimate(settings, None if arguments.out is None else Path(arguments.out))
        print(json.dumps(found, indent=2) if arguments.json else table(found))
        return 0
    if arguments.out is None:
        raise UserError("there is no folder for the run: name one with --out DIR")
    get_family(settings.family).weights("generator").commit()  # before torch is imported
    from hb_tta.training.train import train

    result = train(settings, Path(arguments.out), quiet=arguments.json)
    if _is_main_process():
        print(json.dumps(result, indent=2) if arguments.json else _told(result))
    return 0


def _changes(arguments: argparse.Namespace) -> list[str]:
    """The settings of ``--set``, and those that follow from ``--data``."""
    if arguments.data is None:
        if arguments.image_column or arguments.question_column:
            raise UserError("a column is one of your own rows': give them with --data")
        return arguments.changes
    from hb_tta.datasets.own import holds_rows
    from hb_tta.training.recipes import get_recipe

    recipe = get_recipe(arguments.recipe)
    said = {"data": arguments.data, "image_column": arguments.image_column or ""}
    if hasattr(recipe, "data_format"):
        said["data_format"] = "" if holds_rows(arguments.data) else recipe.data or ""
        said["question_column"] = arguments.question_column or ""
    elif arguments.question_column:
        raise UserError(f"{arguments.recipe} asks no questions: leave --question-column out")
    return [*(f"{name}={value}" for name, value in said.items()), *arguments.changes]


def _is_main_process() -> bool:
    from accelerate.state import PartialState

    return PartialState().is_main_process


def _told(result: dict[str, Any]) -> str:
    from hb_tta.training.progress import bad_rows

    lines = [f"{result['step']} steps; ended by {result['ended']}"]
    first, last = result["first"], result["last"]
    if first and last:
        for name, before in first["held_out"].items():
            lines.append(f"held-out {name}: {before:.4g} → {last['held_out'][name]:.4g}")
        if "diversity" in first and "diversity" in last:
            lines.append(f"held-out diversity: {first['diversity']:.4g} → {last['diversity']:.4g}")
    if result["skipped"]:
        lines.append(f"{result['skipped']} steps skipped: their gradient was not finite")
    out = visible(result["out"])
    if result["bad_records"]:
        lines.append(f"{bad_rows(result['bad_records'])}: {out}/bad_records.jsonl")
    drawn = f" and {Path(result['curve']).name}" if result["curve"] else ""
    lines.append(f"what was trained is in {out}; look at its samples/{drawn}")
    return "\n".join(lines)
