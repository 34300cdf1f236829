"""``hb-tta demo``: the whole method on bundled scenes, as one HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hb_tta.cli.options import positive
from hb_tta.cli.output import write_result
from hb_tta.context import MultimodalContext
from hb_tta.settings import ViewSettings, by_arguments, each, refuse_gate
from hb_tta.settings import add_arguments as add_settings

if TYPE_CHECKING:
    from hb_tta.pocket.tasks import Sample
    from hb_tta.report.contact_sheet import Row

FAMILY = "pocket"  # the scenes are pocket scenes
METHODS = ("hummingbird", "i2t2i", "randaugment")
TITLE = "hb-tta demo"
SUBTITLE = (
    "At the left an image and a question about it; at the right what each method makes of them.\n"
    "A good view keeps what the question asks about and varies everything else."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta demo [options]"
    parser.description = (
        "Augments scenes of the bundled pocket world with several methods, on a CPU in minutes,\n"
        "and writes a contact sheet: one HTML file that needs no other."
    )
    parser.epilog = (
        "examples:\n"
        "  hb-tta demo\n"
        "  hb-tta demo --scenes 10 -n 8 --method hummingbird --method i2t2i --out sheet.html"
    )
    parser.add_argument(
        "--scenes", type=positive, default=5, metavar="N", help="how many (default: 5)"
    )
    parser.add_argument(
        "--method",
        action="append",
        help=f"a method to show, may be repeated (default: {', '.join(METHODS)})",
    )
    parser.add_argument(
        "--out",
        default="hb-tta-demo.html",
        metavar="FILE",
        help="the page (default: hb-tta-demo.html)",
    )
    add_settings(parser, "n", "seed", "device", "store")


def run(arguments: argparse.Namespace) -> int:
    """Augment, write the page, and print where it is."""
    from hb_tta.describe.templates import clean_question
    from hb_tta.report.contact_sheet import Panel, render

    asked = {"family": FAMILY, **by_arguments(arguments)}
    refuse_gate(asked)
    samples = list(pick_scenes(arguments.scenes))
    rows: list[list[Row]] = [[] for _ in samples]
    for method, settings in each(arguments.method or METHODS, asked).items():
        print(f"{method}: {settings.n} views of {len(samples)} scenes …", file=sys.stderr)
        for scene_rows, row in zip(rows, augment_all(settings, samples), strict=True):
            scene_rows.append(row)
    panels = [
        Panel(
            reference=sample.image,
            question=clean_question(sample.question),
            rows=scene_rows,
            facts={"asked about": sample.category, "right answer": sample.answer},
        )
        for sample, scene_rows in zip(samples, rows, strict=True)
    ]
    page = Path(arguments.out)
    write_result(page, render(panels, title=TITLE, subtitle=SUBTITLE).encode())
    print(page.resolve())
    return 0


def pick_scenes(count: int) -> Iterator[Sample]:
    """Dev scenes, the categories in turn, their questions answered by yes and by no in turn."""
    from hb_tta.pocket.tasks import CATEGORIES, pocket_mme

    an_image = 2  # questions: one that is answered by yes, one by no
    rounds = -(-count // len(CATEGORIES))
    by_category = [list(pocket_mme("dev", category=c, limit=rounds)) for c in CATEGORIES]
    turns = (
        samples[an_image * turn + (turn + place) % an_image]
        for turn in range(rounds)
        for place, samples in enumerate(by_category)
    )
    return islice(turns, count)


def contexts_of(samples: Iterable[Sample]) -> list[MultimodalContext]:
    """What the augmenter is told of the samples: never their answers."""
    return [MultimodalContext(sample.image, sample.question) for sample in samples]


def augment_all(settings: ViewSettings, samples: Sequence[Sample]) -> Iterator[Row]:
    """A row of views for every scene."""
    from hb_tta.report.contact_sheet import Row

    done = settings.augmenter().augment(contexts_of(samples), n=settings.n, seed=settings.seed)
    for its in done:
        yield Row(settings.method, its.views, its.seeds, its.description)
