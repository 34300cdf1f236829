"""``hb-tta reproduce``: a table or figure of the papers, run with a family's models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.cli.options import positive
from hb_tta.errors import UserError
from hb_tta.settings import add_arguments as add_settings
from hb_tta.settings import by_arguments, options_of, refuse_gate

if TYPE_CHECKING:
    from hb_tta.experiments.reproduction import Experiment, Options
    from hb_tta.families import Family

OUT = "reproduce"

DESCRIPTION = """\
Runs a table or figure of the two papers with a family's models, and prints it in the paper's
shape: our figures with intervals, the paper's beside them, the paired test against the real
image alone, the difference that the sample could have shown, and what that says of the
paper's claims. `site` makes all of them, as one folder of pages.

Views, features and answers are kept: the same command again, after whatever stopped it, does
only what is missing. Before anything is loaded it is checked that weights and data are there.
Some tables compare trainings: --train makes those that are missing, which takes long."""

EXAMPLES = """\
examples:
  hb-tta reproduce --list
  hb-tta reproduce table1 --family pocket --limit 20
  hb-tta reproduce table1 --family sdxl --check
  hb-tta reproduce table5 --family pocket --quick --train
  hb-tta reproduce site --family pocket --quick"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta reproduce TABLE|FIGURE|site [options]"
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("name", nargs="?", metavar="TABLE|FIGURE|site", help="see --list")
    parser.add_argument(
        "--list", action="store_true", help="all tables and figures, what each needs and takes"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is missing, how long it takes, and stop"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few images, and say which differences they can show"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="the rows, see `hb-tta list` (default: the paper's, and other packages')",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="images a category, or tasks of a part (default: those that --list's times are of)",
    )
    parser.add_argument(
        "--split",
        choices=("dev", "sealed"),
        default="sealed",
        help="of pocket benchmarks: dev for choices, sealed for what is reported (default: sealed)",
    )
    parser.add_argument("--train", action="store_true", help="train LoRAs that are missing")
    parser.add_argument(
        "--train-set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of those trainings, as of `hb-tta train --set`",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out a method whose weights are missing",
    )
    parser.add_argument(
        "--mllm",
        action="append",
        default=[],
        metavar="DIR|ID",
        help="who answers, may be repeated (default: the family's)",
    )
    parser.add_argument(
        "--mumu", metavar="DIR|ID", help="what a training of MUMU wrote (default: the family's)"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="where a benchmark's data lie: mme, bongard-hoi, imagenet (a folder a variant in it); "
        "prompts=FILE.jsonl for MUMU's figures on photographs",
    )
    parser.add_argument(
        "--answers", nargs="+", default=[], metavar="FILE", help="of table10's survey"
    )
    parser.add_argument(
        "--out", default=OUT, metavar="DIR", help=f"the results' folder (default: {OUT})"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    own = ("num_inference_steps", "guidance_scale", "lora")
    add_settings(parser, "family", "n", "seed", "device", "store", *own)


def run(arguments: argparse.Namespace) -> int:
    """List, check, or carry out and print."""
    from hb_tta.experiments.registry import SITE, get_experiment

    options = asked_options(arguments)
    if arguments.list:
        print(listing(options))
        return 0
    if arguments.name is None:
        raise UserError("no table or figure is named: `hb-tta reproduce --list` has them")
    if arguments.name == SITE:
        return _site(arguments, options)
    experiment = get_experiment(arguments.name)
    if arguments.check:
        return _check([experiment], options)
    from hb_tta.experiments.carrying import markdown, reproduce

    shown = reproduce(experiment, options)
    print(_told(experiment, shown, options, markdown))
    return 0


def _told(experiment: Experiment, shown: Any, options: Options, markdown: Any) -> str:
    import sys

    from hb_tta.experiments.tables import tables_of
    from hb_tta.report import renderers

    where = f"{options.folder / experiment.name}.html"
    if not sys.stdout.isatty():
        return f"{markdown(experiment, shown)}\n{where}"
    parts = [renderers.text(table) for table in tables_of(shown)]
    return "\n\n".join([*parts, *shown.missing, where])


def asked_options(arguments: argparse.Namespace) -> Options:
    """What the command line asks for.

    Raises:
        UserError: a value is not of its kind, or a method is unknown.
    """
    from hb_tta.experiments.methods import methods_of
    from hb_tta.experiments.paper.lora import check_changes
    from hb_tta.experiments.reproduction import Options

    asked = by_arguments(arguments)
    refuse_gate(asked)
    for name in ("min_score", "preset"):
        if asked.get(name) is not None:
            raise UserError(
                f"{name}={asked[name]}: here every view of every method is compared as the paper "
                "does, leave it out"
            )
    known = options_of(asked)
    ours = ("family", "n", "seed", "device", "store", "preset")
    options = Options(
        out=Path(arguments.out),
        family=_family(asked.get("family", "pocket"), arguments.mumu),
        methods=None if arguments.methods is None else tuple(arguments.methods),
        limit=arguments.limit,
        views=known["n"] if "n" in asked else None,
        seed=known["seed"],
        split=arguments.split,
        quick=arguments.quick,
        train=arguments.train,
        skip_missing=arguments.skip_missing,
        store=known["store"],
        device=known["device"],
        data=dict(map(_named, arguments.data)),
        mllms=tuple(arguments.mllm),
        settings={name: value for name, value in asked.items() if name not in ours},
        training=tuple(arguments.train_set),
        answers=tuple(map(Path, arguments.answers)),
        quiet=arguments.quiet,
    )
    methods_of(options)  # what is unknown is told at once
    check_changes(options)
    return options


def _family(name: str, mumu: str | None) -> Family:
    from hb_tta.families import get_family

    family = get_family(name)
    return family if mumu is None else family.with_roles(mumu=mumu)


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UserError(f"--data {text!r} names no folder: write NAME=DIR, as in mme=DIR")
    return name, folder


def listing(options: Options) -> str:
    """A line each: the name, the title, what it needs and takes."""
    from hb_tta.experiments.carrying import spoken
    from hb_tta.experiments.registry import get_experiment, list_experiments

    lines = []
    for name in list_experiments():
        one = get_experiment(name)
        said = one.unbuilt and f"cannot be run yet: {one.unbuilt}"
        if not said:
            try:
                needs = one.needs(options)
                took = needs.cost.forecast(options)
                roles = list(dict.fromkeys([*needs.weights, *needs.roles]))
                said = f"needs {', '.join([*needs.data, *roles, *needs.methods])}; takes "
                said += f"{needs.cost.told()}"
                said += f", about {spoken(took)} on {options.family.machine}" if took else ""
            except UserError as error:
                said = f"lacks something: {error}"
        lines.append(f"{name} {one.title} [{said}]")
    return "\n".join(lines)


def _check(experiments: list[Experiment], options: Options) -> int:
    """What is missing of each; the exit status says whether anything is."""
    from hb_tta.experiments.carrying import spoken
    from hb_tta.experiments.checking import missing
    from hb_tta.experiments.reproduction import Cost

    status, every = 0, Cost()
    for one in experiments:
        lacking = missing(one, options)
        for it in lacking:
            skipped = " (--skip-missing leaves it out)" if it.method else ""
            print(f"{one.name} lacks {it}{skipped}")
        if lacking:
            status = 1
            continue
        cost = one.needs(options).cost
        every += cost
        took = cost.forecast(options)
        about = f", about {spoken(took)} on {options.family.machine}" if took else ""
        print(f"{one.name} has all that it needs; it takes {cost.told()}{about}")
    if len(experiments) > 1 and (took := every.forecast(options)):
        print(f"together at most {spoken(took)} on {options.family.machine}: views are shared")
    return status


def _site(arguments: argparse.Namespace, options: Options) -> int:
    from hb_tta.experiments.paper.lora import with_short_trainings
    from hb_tta.experiments.registry import get_experiment, list_experiments
    from hb_tta.experiments.site import build

    every = [get_experiment(name) for name in list_experiments()]
    options = with_short_trainings(options)
    if arguments.check:
        return _check([one for one in every if not one.unbuilt], options)
    print(build(every, options))
    return 0
