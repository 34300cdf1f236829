"""``hb-tta tpt``: test-time prompt tuning of a CLIP on a benchmark, with generated views."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.cli.options import add_shard, from_zero, positive, share
from hb_tta.cli.output import write_result
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.presets import CLASSES
from hb_tta.settings import (
    ViewSettings,
    by_arguments,
    each,
    options_of,
    refuse_share,
    settings_table,
)
from hb_tta.settings import add_arguments as add_settings

if TYPE_CHECKING:
    from hb_tta.tpt.evaluate import TptSettings
    from hb_tta.tpt.models import Clip
    from hb_tta.tpt.views import ViewFeatures

NONE = "none"  # in place of a method: no generated views

DESCRIPTION = """\
Tunes a CLIP's prompts on the views of each test image, and prints accuracy with intervals
beside what the same views give without tuning (the mean, ZERO, MTA, TDA). Several methods
make a table.

Tasks: pocket_objects, its variants pocket_objects_a, _v2, _r, _sketch (pocket_objects_all:
all five); imagenet, imagenet-a, -v2, -r, -sketch, folder (--data: one folder a class);
pocket_hoi, bongard-hoi (--data: its JSON files, and the images' paths start there).

Hummingbird's views are shown by preset=safe: for images alone whose zero-shot probability is
below the gate, and checked by a judge. --preset paper shows them for every image.

Features, views and answers are kept in the store: the same command again resumes, and
other settings of the tuner encode no image again."""

EXAMPLES = """\
examples:
  hb-tta tpt --task pocket_objects_all --family pocket --augment none randaugment hummingbird
  hb-tta tpt --task pocket_hoi --family pocket --augment none hummingbird -n 2 --split sealed
  hb-tta tpt --task imagenet-a --data imagenet-a --clip ViT-B-16-quickgelu:openai \\
      --augment hummingbird -n 63 --filter difftpt-paper --steps 4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta tpt --task TASK [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("--task", required=True, help="see above")
    parser.add_argument("--data", metavar="DIR", help="the images, for tasks that bring none")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help='of `folder`: JSON {"folder": "name"} (default: the folders\' own names)',
    )
    parser.add_argument(
        "--split",
        choices=("dev", "sealed"),
        default="dev",
        help="of pocket tasks: dev for choices, sealed for reported figures (default: dev)",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="samples of each task, a fixed subset"
    )
    parser.add_argument(
        "--clip",
        metavar="DIR|ID|NAME:TAG",
        help="a folder, a hub id, or open_clip's NAME:PRETRAINED (default: the family's)",
    )
    _add_views(parser)
    _add_tuning(parser)
    add_shard(parser, "the same without --shard then scores what all of them left in the store")
    parser.add_argument("--out", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--html", metavar="FILE", help="write them as a page, too")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(notes=settings_table)


def _add_views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--augment",
        nargs="+",
        default=[NONE],
        metavar="METHOD",
        help="who makes views, see `hb-tta list`; none: the crops alone (default: none)",
    )
    parser.add_argument(
        "--crops",
        type=from_zero,
        metavar="N",
        help="random crops of an image as well, by the same seed (default: the filter's, 63 of "
        "tpt and 64 of difftpt; in few-shot tasks none)",
    )
    parser.add_argument(
        "--views-of",
        choices=("both", "supports", "queries"),
        default="both",
        help="in few-shot tasks, whose views are used (default: both)",
    )
    own = ("num_inference_steps", "guidance_scale", "lora")
    add_settings(
        parser,
        *("family", "n", "seed", "preset", "gate", "device", "store", *own),
        flags={"num_inference_steps": "--sampling-steps"},
    )


def _add_tuning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompt", default="a photo of a", help="to start from (default: 'a photo of a')"
    )
    parser.add_argument(
        "--filter",
        default="tpt",
        help="of views: tpt, difftpt-paper, difftpt-code (default: tpt)",
    )
    parser.add_argument(
        "--selection",
        type=share,
        metavar="SHARE",
        help="of views that are trusted (default: the filter's, 0.1 or 0.3)",
    )
    parser.add_argument(
        "--generated-selection",
        type=share,
        metavar="SHARE",
        help="a quota of their own for generated views (default: one pool for all)",
    )
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="of tuning (default: 1; few-shot: 64)"
    )
    parser.add_argument("--lr", type=share, default=5e-3, help="of AdamW (default: 0.005)")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="prompts tuned at once (default: fits)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every method on every part of the task; write and print the table."""
    _look_for_clip(arguments.clip, options_of(by_arguments(arguments))["family"])
    from hb_tta.datasets import load_tasks
    from hb_tta.families import get_family
    from hb_tta.tpt import table
    from hb_tta.tpt.models import load_clip
    from hb_tta.tpt.results import written

    settings = _tuning(arguments)
    _check_part(arguments)
    tasks = load_tasks(
        arguments.task,
        data=arguments.data,
        class_names=arguments.class_names,
        split=arguments.split,
        limit=arguments.limit,
    )
    methods = list(dict.fromkeys(arguments.augment))
    chosen = view_settings(arguments)
    options = options_of(by_arguments(arguments))
    family = get_family(options["family"])
    clip = load_clip(arguments.clip or family.weights("clip"), device=options["device"])
    crops = _crops(tasks, arguments)
    makers = {method: _views(clip, options, chosen.get(method), crops) for method in methods}
    results = []
    for method, views in makers.items():
        for task in tasks:
            gated = replace(settings, gate=chosen[method].gate if method in chosen else None)
            if arguments.shard is not None:
                _do_part(method, task, views, gated, arguments)
                continue
            results.append({"augment": method, **_evaluate(task, views, gated, arguments)})
            # After each part: what is done is there, whatever comes.
            if arguments.out:
                write_result(Path(arguments.out), written(results))
            if arguments.html:
                write_result(Path(arguments.html), table.html(results).encode())
    if arguments.shard is not None:
        return 0
    # Markdown for a file or another program, where it is pasted from.
    print(table.text(results) if sys.stdout.isatty() else table.markdown(results))
    return 0


def _look_for_clip(named: str | None, family: str) -> None:
    """Say that there is no network before torch and open_clip are imported, which takes longer."""
    from hb_tta.families import get_family
    from hb_tta.network import hub_answers
    from hb_tta.weights import Weights

    if named is None:
        get_family(family).weights("clip").commit()
    elif ":" not in named or Path(named).exists():
        Weights(named).commit()
    elif not hub_answers():
        warnings.warn(
            f"the hub cannot be reached: {named} can be had only if it was fetched before",
            HbTtaWarning,
            stacklevel=2,
        )


def view_settings(arguments: argparse.Namespace) -> dict[str, ViewSettings]:
    """Which views the command line asks for, by method; none of those for which there are none."""
    methods = [method for method in arguments.augment if method != NONE]
    asked = by_arguments(arguments)
    refuse_share(asked)
    return each(methods, asked, harness=CLASSES)


def _crops(tasks: Sequence[Any], arguments: argparse.Namespace) -> int:
    """How many crops an image has: what was asked for, else what the way of tuning has."""
    from hb_tta.datasets import FewShot
    from hb_tta.tpt import few_shot
    from hb_tta.tpt.filters import get_filter

    if arguments.crops is not None:
        return arguments.crops
    if all(isinstance(task, FewShot) for task in tasks):
        return few_shot.CROPS
    return get_filter(arguments.filter).crops


def _views(
    clip: Clip, options: Mapping[str, Any], settings: ViewSettings | None, crops: int
) -> ViewFeatures:
    from hb_tta.store import open_store
    from hb_tta.tpt.views import ViewFeatures

    store = open_store(options["store"])
    return ViewFeatures(
        clip,
        store,
        augmenter=None if settings is None else settings.augmenter(store=store),
        generated=0 if settings is None else settings.n,
        crops=crops,
        seed=options["seed"],
    )


def _tuning(arguments: argparse.Namespace) -> TptSettings:
    """How prompts are tuned, checked before anything is loaded."""
    from hb_tta.tpt.evaluate import TptSettings

    return TptSettings(
        prompt=arguments.prompt,
        filter=arguments.filter,
        selection=arguments.selection,
        generated_selection=arguments.generated_selection,
        steps=arguments.steps,
        lr=arguments.lr,
        batch_size=arguments.batch_size,
        support_views=arguments.views_of != "queries",
        query_views=arguments.views_of != "supports",
    )


def _check_part(arguments: argparse.Namespace) -> None:
    """Raises UserError where a part of the samples is to be written down as if it were all."""
    for option in ("out", "html"):
        if arguments.shard is not None and getattr(arguments, option):
            raise UserError(
                f"--{option} {getattr(arguments, option)} is for scores, and --shard "
                f"{arguments.shard} gives none: leave it to the run without --shard at the end"
            )


def _do_part(
    method: str,
    task: Any,
    views: ViewFeatures,
    settings: TptSettings,
    arguments: argparse.Namespace,
) -> None:
    from hb_tta.tpt.evaluate import answer_part

    progress = False if arguments.quiet else None
    done = answer_part(task, views, settings, arguments.shard, progress=progress)
    print(f"{task.name}, {method}: {done} samples of part {arguments.shard} are in the store")


def _evaluate(
    task: Any, views: ViewFeatures, settings: TptSettings, arguments: argparse.Namespace
) -> dict[str, Any]:
    from hb_tta.datasets import FewShot
    from hb_tta.tpt.evaluate import evaluate_classification, evaluate_few_shot

    progress = False if arguments.quiet else None
    if isinstance(task, FewShot):
        return evaluate_few_shot(task, views, settings, progress=progress)
    return evaluate_classification(task, views, settings, progress=progress)
