"""``hb-tta augment``: views of one image, of several, of a folder or of every row of a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from hb_tta import spelling
from hb_tta.augment import Augmentation, Augmenter
from hb_tta.cli.dry_run import forecast
from hb_tta.cli.engine import LOCAL, add_engine, make_on_cluster
from hb_tta.cli.engine import check as check_engine
from hb_tta.cli.options import add_columns, add_shard
from hb_tta.cli.output import Output
from hb_tta.cli.requests import C_co, Failure, Line, read_asked
from hb_tta.cli.work import Work
from hb_tta.context import TASKS, DescribedContext, MultimodalContext
from hb_tta.datasets.rows import Columns
from hb_tta.errors import UserError, visible
from hb_tta.report.cells import spelled_out
from hb_tta.settings import ViewSettings, by_arguments, refuse_gate, settings_table
from hb_tta.settings import add_arguments as add_settings

DESCRIPTION = """\
Generates views of an image that keep what the question asks about and vary everything
else. Without a question the image as a whole is described.

A file of rows names an image and its question in each: JSON lines {"image": path,
"question": text}, a JSON array, CSV or TSV with the columns' names in the first line,
Parquet, or a data set of the Hugging Face hub, owner/name[:split] (the last two by
pip install 'hb-tta[train]'). A relative path is taken from the file's folder. "task" and
"description", used in the place of a describer's, may stand in a row, too. A folder is read
by the file of rows in it, such as metadata.csv, else every image in it gets the question. A
row that cannot be used is told at the end, and the others are done.

The views come as PNG files in views/, and as soon as an image has them, manifest.jsonl has
its line: description, seeds, the hash under which specs.json has the generator's settings,
and the row's other columns; `hb-tta train --data` reads it as it is. index.html shows all.
Views are kept in the store as well, so the same command again, also after an interruption,
generates only what is missing, and loads no model if nothing is."""

EXAMPLES = """\
examples:
  hb-tta augment photo.jpg "Is there a dog?" -n 8
  hb-tta augment scene.png "Is the circle red?" --family pocket --out views
  hb-tta augment holiday/*.jpg "What are they doing?" --out views
  hb-tta augment questions.csv --question-column query --store /data/views
  hb-tta augment lmms-lab/VQAv2:validation --seed 100
  hb-tta augment photo.jpg --method randaugment --augment_args magnitude=20
  hb-tta augment questions.jsonl --shard 2/8 --store /shared/views --out /shared/out
  hb-tta augment questions.jsonl --engine ray --store /shared/views"""

SHEET = 200  # images on the page, where nobody says otherwise
SHOWN = 20  # failures told on the terminal; the manifest has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = (
        "hb-tta augment IMAGE|FOLDER … [QUESTION] [options]\n"
        "       hb-tta augment FILE|FOLDER|DATASET [options]"
    )
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.set_defaults(notes=settings_table)
    parser.add_argument(
        "named",
        metavar="IMAGE",
        nargs="+",
        help="images, folders, a file of rows or a data set; behind images the question",
    )
    parser.add_argument(
        "--question",
        metavar="TEXT",
        help="what matters in all of the images, where it could be taken for a file's name",
    )
    add_columns(parser)
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
        help="the folder for views/, manifest.jsonl and index.html, one run at a time; what an "
        "earlier run left there goes when this one is whole (default: hb-tta-out)",
    )
    add_shard(
        parser,
        "they share --out, where each has a manifest-I-of-N.jsonl: `cat` makes one of them",
    )
    add_engine(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tell how many views are to be made, how long that takes here and what room they "
        "need; a few are made for that, and kept in the store",
    )
    parser.add_argument("--json", action="store_true", help="of --dry-run, for programs")
    parser.add_argument(
        "--sheet",
        type=spelling.argument(partial(spelling.whole, least=0)),
        default=SHEET,
        metavar="N",
        help=f"images that index.html shows; 0: no page (default: {SHEET})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Augment one image or many, writing the views and their lines as they come."""
    columns = Columns(arguments.image_column, arguments.question_column)
    asked = read_asked(arguments.named, arguments.question, arguments.task, columns)
    many, shard = asked.many, arguments.shard
    lines = asked.part(shard)
    check_engine(arguments)
    if arguments.dry_run:
        return _dry_run(lines, arguments)
    if arguments.json:
        raise UserError("--json is for --dry-run: the manifest says it all, a line an image")
    with Output(Path(arguments.out), arguments.sheet, shard) as output:
        made = lines if arguments.engine == LOCAL else _made_on_ray(lines, arguments, many=many)
        work = Work(made, output.fail, skip=many)
        try:
            _augment(work, output, arguments, many=many)
        finally:
            work.digests.save()
    if many:
        print(f"views: {output.views}, of images: {output.images}, in: {visible(output.folder)}")
    tell(work.failures, output.manifest)
    return 1 if work.failures else 0


def view_settings(arguments: argparse.Namespace) -> ViewSettings:
    """Which views the command line asks for."""
    asked = by_arguments(arguments, elsewhere=arguments.engine != LOCAL)
    refuse_gate(asked)
    return ViewSettings.of(arguments.method, asked)


def _made_on_ray(
    lines: Iterable[Line[MultimodalContext | DescribedContext] | Failure],
    arguments: argparse.Namespace,
    *,
    many: bool,
) -> Iterator[Line[MultimodalContext | DescribedContext] | Failure]:
    """The lines, when a cluster has made what the store lacked; those that failed there say so."""

    def read() -> Work[MultimodalContext | DescribedContext]:
        return Work(lines, lambda failure: None, skip=many)

    failed = make_on_cluster(read, view_settings(arguments), arguments)
    for line in lines:
        reason = failed.get(line.index)
        yield line if reason is None else Failure(line.index, reason, line.called)


def _dry_run(
    lines: Iterable[Line[MultimodalContext | DescribedContext] | Failure],
    arguments: argparse.Namespace,
) -> int:
    """Print what there is to do; nothing is written to ``--out``."""
    work = Work(lines, lambda failure: None, skip=True)
    settings = view_settings(arguments)
    augmenter = settings.augmenter(task=arguments.task)
    told = replace(forecast(augmenter, settings, _passing(work)), failed=len(work.failures))
    print(told.json() if arguments.json else told.text())
    tell(work.failures)
    return 1 if work.failures else 0


def _passing(work: Work[C_co]) -> Iterator[C_co]:
    """The contexts of the lines, none of which is kept."""
    for context in work:
        work.next_done()
        yield context


def _augment(
    work: Work[MultimodalContext | DescribedContext],
    output: Output,
    arguments: argparse.Namespace,
    *,
    many: bool,
) -> None:
    contexts = iter(work)
    first = list(islice(contexts, 1))  # a mistake in it is told before one in the settings
    if not first:
        return
    settings = view_settings(arguments)
    augmenter = settings.augmenter(task=arguments.task)  # loads nothing yet
    done = augmenter.iter_augment(
        chain(first, contexts),
        n=settings.n,
        seed=settings.seed,
        on_failure=work.refuse if many else None,
    )
    for augmentation in done:
        dropped = [] if output.sheet.full else _dropped(augmenter, augmentation)
        files = output.add(work.next_done(), augmentation, dropped)
        if not many:
            if augmentation.description is not None:
                print(f"description: {spelled_out(augmentation.description)}")
            print(*map(visible, files), sep="\n")


def _dropped(augmenter: Augmenter, augmentation: Augmentation) -> list[bytes]:
    """The candidates that a judge did not let through, as far as the store has them."""
    found: list[bytes] = []
    store = augmenter.store
    for _, key, _ in augmentation.dropped:
        entry = None if store is None else store.read("views", key)
        if entry is None:  # pruned meanwhile
            break
        found.append(entry[0])
    return found


def tell(failures: Sequence[Failure], manifest: Path | None = None, what: str = "images") -> None:
    """Print what failed."""
    if failures:
        print(f"hb-tta: {what} that failed: {len(failures)}", file=sys.stderr)
    for failure in failures[:SHOWN]:
        print(f"  {visible(failure)}", file=sys.stderr)
    if len(failures) > SHOWN:
        where = "" if manifest is None else f": all of them are in {visible(manifest)}"
        print(f"  … and {len(failures) - SHOWN} more{where}", file=sys.stderr)
