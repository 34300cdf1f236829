"""``hb-tta augment``: views of one image, or of every line of a JSONL file."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from hb_tta.cli.output import MANIFEST, Output
from hb_tta.cli.requests import Failure, Request, read_requests
from hb_tta.context import TASKS, MultimodalContext
from hb_tta.errors import UserError
from hb_tta.images import PixelDigests
from hb_tta.report.cells import spelled_out
from hb_tta.settings import ViewSettings, by_arguments, refuse_gate, settings_table
from hb_tta.settings import add_arguments as add_settings

DESCRIPTION = """\
Generates views of an image that keep what the question asks about and vary everything
else. Without a question the image as a whole is described.

FILE.jsonl holds one {"image": path, "question": text} a line (a "task" may stand there,
too); a relative path is taken from the file's folder. A line that cannot be used is told
at the end, and the others are done.

The views come as PNG files in views/, and as soon as an image has them, manifest.jsonl has
its line: description, seeds, and the hash under which specs.json has the generator's
settings. All views are kept in the store as well, so the same command again, also after an
interruption, generates only what is missing, and loads no model if nothing is."""

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
        help="the folder for views/ and manifest.jsonl; files of the same name are replaced "
        "(default: hb-tta-out)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Augment one image or many, writing the views and their lines as they come."""
    many = arguments.image.endswith(".jsonl")
    lines = _lines_of_file(arguments) if many else _line_of_image(arguments)
    with Output(Path(arguments.out)) as output:
        work = Work(lines, output, skip=many)
        try:
            _augment(work, output, arguments, many=many)
        finally:
            work.digests.save()
    if many:
        print(f"views: {output.views}, of images: {output.images}, in: {output.folder}")
    _tell(work.failures, output.folder / MANIFEST)
    return 1 if work.failures else 0


def view_settings(arguments: argparse.Namespace) -> ViewSettings:
    """Which views the command line asks for."""
    asked = by_arguments(arguments)
    refuse_gate(asked)
    return ViewSettings.of(arguments.method, asked)


def _line_of_image(arguments: argparse.Namespace) -> Iterator[Request | Failure]:
    yield Request(1, Path(arguments.image), arguments.question or "", arguments.task)


def _lines_of_file(arguments: argparse.Namespace) -> Iterator[Request | Failure]:
    if arguments.question is not None:
        raise UserError(
            f"a question stands beside {arguments.image}, whose lines hold their own: leave it out"
        )
    lines = read_requests(Path(arguments.image), arguments.task)
    first = next(lines, None)
    if first is None:
        raise UserError(
            f'{arguments.image} is empty: write one {{"image": path, "question": …}} a line'
        )
    return chain([first], lines)


class Work:
    """The contexts of the lines, read as the augmenter asks for them.

    Attributes:
        requests: of the contexts that were read and are not done.
        failures: the lines that cannot be used.
        digests: of the images, each looked at once.

    Args:
        lines: in their order.
        output: is told of the failures.
        skip: go on after a line that cannot be used.
    """

    def __init__(self, lines: Iterator[Request | Failure], output: Output, *, skip: bool) -> None:
        self.requests: deque[Request] = deque()
        self.failures: list[Failure] = []
        self.digests = PixelDigests()
        self._lines, self._output, self._skip = lines, output, skip

    def __iter__(self) -> Iterator[MultimodalContext]:
        for line in self._lines:
            try:
                if isinstance(line, Failure):
                    raise UserError(line.reason)
                context = line.context(self.digests)
            except UserError as error:
                if not self._skip:
                    raise
                self._fail(Failure(line.index, str(error)))
            else:
                self.requests.append(line)
                yield context

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self._output.fail(failure)


def _augment(work: Work, output: Output, arguments: argparse.Namespace, *, many: bool) -> None:
    contexts = iter(work)
    first = list(islice(contexts, 1))  # a mistake in it is told before one in the settings
    if not first:
        return
    settings = view_settings(arguments)
    augmenter = settings.augmenter(task=arguments.task)  # loads nothing yet
    done = augmenter.iter_augment(chain(first, contexts), n=settings.n, seed=settings.seed)
    for augmentation in done:
        files = output.add(work.requests.popleft(), augmentation)
        if not many:
            if augmentation.description is not None:
                print(f"description: {spelled_out(augmentation.description)}")
            print(*files, sep="\n")


def _tell(failures: Sequence[Failure], manifest: Path) -> None:
    """Print what failed."""
    if failures:
        print(f"hb-tta: lines that failed: {len(failures)}", file=sys.stderr)
    for failure in failures[:SHOWN]:
        print(f"  {spelled_out(str(failure))}", file=sys.stderr)
    if len(failures) > SHOWN:
        print(f"  … all of them are in {manifest}", file=sys.stderr)
