"""``hb-tta augment``: views of one image, or of every line of a JSONL file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hb_tta.cli.output import MANIFEST, Output
from hb_tta.cli.requests import Failure, Request, read_requests
from hb_tta.context import TASKS
from hb_tta.errors import UserError
from hb_tta.report.cells import spelled_out
from hb_tta.settings import ViewSettings, by_arguments, settings_table
from hb_tta.settings import add_arguments as add_settings

if TYPE_CHECKING:
    from hb_tta.augment import Augmenter

DESCRIPTION = """\
Generates views of an image that keep what the question asks about and vary everything
else. Without a question the image as a whole is described.

FILE.jsonl holds one {"image": path, "question": text} a line (a "task" may stand there,
too); a relative path is taken from the file's folder. A line that cannot be used is told
at the end, and the others are done.

The views come as PNG files with a manifest.json: description, seeds and the generator's
settings. All of them are kept in the store as well, so the same command again, also after
an interruption, generates only what is missing, and loads no model if nothing is."""

EXAMPLES = """\
examples:
  hb-tta augment photo.jpg "Is there a dog?" -n 8
  hb-tta augment scene.png "Is the circle red?" --family pocket --out views
  hb-tta augment questions.jsonl --seed 100 --store /data/views
  hb-tta augment photo.jpg --method randaugment --augment_args magnitude=20"""

SHOWN = 20  # failures told on the terminal; the manifest has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = (
        "hb-tta augment IMAGE [QUESTION] [options]\n       hb-tta augment FILE.jsonl [options]"
    )
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.set_defaults(notes=settings_table)
    parser.add_argument("image", metavar="IMAGE", help="an image file, or a file in .jsonl")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="what matters in it")
    parser.add_argument(
        "--method", default="hummingbird", help="see `hb-tta list` (default: hummingbird)"
    )
    add_settings(parser)
    parser.add_argument(
        "--task",
        choices=TASKS,
        default="vqa",
        help="what the text is: a question (vqa), 'agent | object' (hoi), not read (object, "
        "generic) (default: vqa)",
    )
    parser.add_argument(
        "--out",
        default="hb-tta-out",
        metavar="DIR",
        help="the views' folder; files of the same name are replaced (default: hb-tta-out)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Augment one image or many, write the views and their manifest."""
    many = arguments.image.endswith(".jsonl")
    requests, failures = _read_file(arguments) if many else _read_image(arguments)
    settings = view_settings(arguments)
    # It loads nothing yet, but knows of wrong settings.
    augmenter = settings.augmenter(task=arguments.task)
    if many:
        requests, unreadable = _look_at_images(requests)
        failures = sorted(failures + unreadable, key=lambda failure: failure.index)
    output = Output(Path(arguments.out))
    try:
        if requests:
            _augment(augmenter, requests, output, settings)
    finally:  # what was written before an interruption is listed, too
        if output.items or failures:
            output.write_manifest(failures)
    _tell(output, failures, many=many)
    return 1 if failures else 0


def view_settings(arguments: argparse.Namespace) -> ViewSettings:
    """Which views the command line asks for."""
    return ViewSettings.of(arguments.method, by_arguments(arguments))


def _read_image(arguments: argparse.Namespace) -> tuple[list[Request], list[Failure]]:
    request = Request(1, Path(arguments.image), arguments.question or "", arguments.task)
    request.check_image()
    return [request], []


def _read_file(arguments: argparse.Namespace) -> tuple[list[Request], list[Failure]]:
    if arguments.question is not None:
        raise UserError(
            f"a question stands beside {arguments.image}, whose lines hold their own: leave it out"
        )
    lines = list(read_requests(Path(arguments.image), arguments.task))
    if not lines:
        raise UserError(
            f'{arguments.image} is empty: write one {{"image": path, "question": …}} a line'
        )
    requests = [line for line in lines if isinstance(line, Request)]
    return requests, [line for line in lines if isinstance(line, Failure)]


def _look_at_images(requests: Sequence[Request]) -> tuple[list[Request], list[Failure]]:
    sound, unreadable = [], []
    for request in requests:
        try:
            request.check_image()
            sound.append(request)
        except UserError as error:
            unreadable.append(Failure(request.index, str(error)))
    return sound, unreadable


def _augment(
    augmenter: Augmenter,
    requests: Sequence[Request],
    output: Output,
    settings: ViewSettings,
) -> None:
    contexts = [request.context() for request in requests]
    done = augmenter.iter_augment(contexts, n=settings.n, seed=settings.seed)
    for request, augmentation in zip(requests, done, strict=True):
        output.add(request, augmentation)


def _tell(output: Output, failures: Sequence[Failure], *, many: bool) -> None:
    """Print where the views are, and what failed."""
    if many:
        views = sum(len(item["views"]) for item in output.items)
        print(f"views: {views}, of images: {len(output.items)}, in: {output.folder}")
    for item in () if many else output.items:
        if item["description"] is not None:
            print(f"description: {spelled_out(item['description'])}")
        print(*(output.folder / view["file"] for view in item["views"]), sep="\n")
    if failures:
        print(f"hb-tta: lines that failed: {len(failures)}", file=sys.stderr)
    for failure in failures[:SHOWN]:
        print(f"  {spelled_out(str(failure))}", file=sys.stderr)
    if len(failures) > SHOWN:
        print(f"  … all of them are in {output.folder / MANIFEST}", file=sys.stderr)
