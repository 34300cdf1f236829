"""``hb-tta bootstrap``: where the words of captions are in their images, to train MUMU on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta import spelling
from hb_tta.cli.augment import SHEET, SHOWN
from hb_tta.cli.boxes_file import BoxesFile
from hb_tta.cli.options import add_columns, add_shard, from_zero, positive, share
from hb_tta.cli.requests import Failure, Request, read_asked
from hb_tta.cli.sheet import PAGE
from hb_tta.context import MultimodalContext
from hb_tta.datasets.rows import Columns
from hb_tta.detect import Box, Filters, boxes_in
from hb_tta.disk import write_aside
from hb_tta.errors import UserError, visible
from hb_tta.images import load_image
from hb_tta.locks import owned
from hb_tta.progress import progress

CAPTIONS = ("caption", "text", "prompt")
"""Columns that a caption is read from, where nobody names one; ``description`` comes first."""

DESCRIPTION = """\
Finds the words of each image's caption in the image, so that a training of MUMU can put
crops of them before the words (hb-tta train --recipe mumu-1 --data DIR/boxes.jsonl). Only
boxes are written, with the detector's scores and the places of the words in the caption:
the images stay where they are, and no crop is stored.

Images are a folder, or a file of rows with image and caption: JSON lines, CSV, Parquet, a
data set of the hub. An image without a caption is described by the family's MLLM. Boxes are
kept as the paper keeps them: by area, by share of the image, one a word; of persons the
head is looked for, too. The same command again, also after a kill, goes on where it
stopped. index.html shows crops to look at."""

EXAMPLES = """\
examples:
  hb-tta bootstrap captions.jsonl --out boxes
  hb-tta bootstrap photos/ --detector google/owlv2-base-patch16-ensemble --out boxes
  hb-tta train --recipe mumu-1 --data boxes/boxes.jsonl --out run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta bootstrap IMAGES.jsonl|FOLDER --out DIR [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("images", metavar="IMAGES", help="a file of rows, a folder or a data set")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder for boxes.jsonl")
    add_shard(
        parser, "they share --out, where each has a boxes-I-of-N.jsonl: `cat` makes one of them"
    )
    add_columns(parser)
    parser.add_argument(
        "--caption-column", metavar="NAME", help=f"of your rows (default: {', '.join(CAPTIONS)})"
    )
    parser.add_argument("--family", default="sdxl", help="whose models are used (default: sdxl)")
    parser.add_argument(
        "--detector", metavar="WEIGHTS", help="GroundingDINO, OWLv2, … (default: the family's)"
    )
    filters = Filters()
    chance = spelling.argument(spelling.share)
    for name, told in (("threshold", "a box"), ("text-threshold", "a word for a box")):
        parser.add_argument(
            f"--{name}",
            type=chance,
            default=getattr(filters, name.replace("-", "_")),
            metavar="P",
            help=f"least score of {told} (default: %(default)s)",
        )
    parser.add_argument(
        "--least-area",
        type=from_zero,
        metavar="N",
        help="least area of a box, pixels (default: 150 × 150; 36 of the pocket family)",
    )
    parser.add_argument(
        "--most-share", type=share, default=filters.most_share, metavar="P",
        help="most of the image that a box may have (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=positive, metavar="N",
        help="boxes of an image, the best (default: all; a training draws three of them)",
    )  # fmt: skip
    parser.add_argument("--no-heads", action="store_true", help="look for no heads of persons")
    parser.add_argument(
        "--batch-size", type=positive, default=8, metavar="N",
        help="images that are described at once (default: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--sheet", type=from_zero, default=SHEET, metavar="N",
        help=f"images that index.html shows; 0: no page (default: {SHEET})",
    )  # fmt: skip


@dataclass(frozen=True)
class Captioned:
    """An image to look into; ``caption`` is ``None`` where a describer has to write it."""

    request: Request
    caption: str | None


def run(arguments: argparse.Namespace) -> int:
    """Find the boxes, writing a line an image as they come."""
    columns = Columns(arguments.image_column, arguments.question_column)
    asked = read_asked([arguments.images], None, "generic", columns)
    finder = Finder(arguments)
    folder, shard = Path(arguments.out), arguments.shard
    lines = iter(asked.part(shard))
    failures: list[Failure] = []
    with owned(folder, "" if shard is None else f"-{shard.name}"):
        file = BoxesFile(folder, finder.to_json(), shard)
        whole = False
        try:
            with progress("finding boxes", "image", None) as bar:
                for rows in _batches(lines, arguments, file):
                    _write(rows, finder, file, failures)
                    bar.update(len(rows))
            whole = True
        finally:
            file.close(whole=whole)
        page = PAGE if shard is None else shard.of(PAGE)
        shown = _write_page(file, arguments.sheet, page)
    print(f"images: {file.images}, in: {visible(file.path)}{shown}")
    for failure in sorted(failures, key=lambda it: it.index)[:SHOWN]:
        print(f"  {visible(failure)}", file=sys.stderr)
    if len(failures) > SHOWN:
        print(f"  … {len(failures)} in all, each a line of {file.path.name}", file=sys.stderr)
    return 1 if failures else 0


class Finder:
    """Describer and detector, each loaded when it is first needed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from hb_tta.describe import DescriberSpec
        from hb_tta.device import default_dtype
        from hb_tta.families import get_family

        family = get_family(arguments.family)
        if arguments.detector:
            family = family.with_roles(detector=arguments.detector)
        own = family.method_defaults.get("mumu", {}).get("least_area", Filters().least_area)
        least = arguments.least_area
        self.filters = Filters(
            arguments.threshold, arguments.text_threshold, own if least is None else least,
            arguments.most_share, arguments.most,
        )  # fmt: skip
        self._heads = not arguments.no_heads
        self._weights = family.weights("detector")
        self._describer: Any = None
        self._detector: Any = None
        self._spec = DescriberSpec(family.weights("mllm"), dtype=default_dtype())

    def to_json(self) -> dict[str, Any]:
        """What decides a line."""
        return {
            "detector": self._weights.fingerprint(),
            "filters": self.filters.to_json(),
            "heads": self._heads,
            "describer": self._spec.to_json(),
        }

    def describe(self, images: list[Any]) -> list[str]:
        """A caption an image.

        Raises:
            UserError: the model writes none of one of them.
        """
        if not images:
            return []
        if self._describer is None:
            self._describer = self._spec.load()
        texts = self._describer.describe([MultimodalContext(im, "", "generic") for im in images])
        if not all(texts):
            raise UserError("the describer wrote nothing of use: give it a caption")
        return texts

    def find(self, images: list[Any], captions: list[str]) -> list[list[Box]]:
        """The boxes of each caption's words."""
        if self._detector is None:
            from hb_tta.detect import Detector

            self._detector = Detector.from_pretrained(self._weights)
        return boxes_in(self._detector, images, captions, self.filters, heads=self._heads)


def _batches(
    lines: Iterable[Request | Failure], arguments: argparse.Namespace, file: BoxesFile
) -> Iterator[list[Captioned | Failure]]:
    """Rows in order, a batch at a time; an earlier run's lines are taken over between them."""
    rows: list[Captioned | Failure] = []
    for line in lines:
        row = _row(line, arguments.caption_column)
        done = None
        if isinstance(row, Captioned):
            image = file.relative(Path(str(row.request.image)))
            done = file.known(row.request.index, image, row.caption)
        if done is None:
            rows.append(row)
        if rows and (done is not None or len(rows) >= arguments.batch_size):
            yield rows  # in order: before what comes behind it
            rows = []
        if done is not None:
            file.write(done)
    if rows:
        yield rows


def _row(line: Request | Failure, column: str | None) -> Captioned | Failure:
    try:
        if isinstance(line, Failure):
            raise UserError(line.reason)
        caption = _caption(line, column)
        if not isinstance(line.image, Path):
            raise UserError("its image is no file: save it as one, boxes name files")
    except UserError as error:
        return Failure(line.index, str(error), line.called)
    return Captioned(line, caption)


def _caption(request: Request, column: str | None) -> str | None:
    """The row's caption; ``None``: it has none."""
    if column is not None and column not in request.others and column != "description":
        raise UserError(f"it has no column {column!r}: check --caption-column")
    names = [column] if column else [name for name in CAPTIONS if name in request.others]
    found = request.others.get(names[0]) if names and names[0] != "description" else None
    found = found or request.description or request.question or None
    if found is not None and not isinstance(found, str):
        raise UserError(f"its caption is no text ({str(found)[:40]!r}): write a string")
    return found.strip() or None if found else None


def _write(
    rows: list[Captioned | Failure], finder: Finder, file: BoxesFile, failures: list[Failure]
) -> None:
    """The lines of a batch; a row that fails is one, and the others are done."""
    for row in _found(rows, finder):
        if isinstance(row, Failure):
            failures.append(row)
            file.write({"index": row.index, "failure": row.reason})
            continue
        request, image, caption, boxes = row
        file.write(
            {
                "index": request.index,
                "image": file.relative(Path(str(request.image))),
                "caption": caption,
                "size": list(image.size),
                "boxes": [box.to_json() for box in boxes],
            }
        )


def _found(rows: list[Captioned | Failure], finder: Finder) -> list[Any]:
    """(request, image, caption, boxes) of each row, or why it has none, in order."""
    done: list[Any] = []
    for row in rows:
        if isinstance(row, Captioned):
            try:
                done.append([row.request, load_image(row.request.image), row.caption])
            except UserError as error:
                done.append(Failure(row.request.index, str(error), row.request.called))
        else:
            done.append(row)
    for one in done:
        if isinstance(one, list) and one[2] is None:
            try:
                (one[2],) = finder.describe([one[1]])
            except UserError as error:
                one[:] = [Failure(one[0].index, str(error), one[0].called)]
    done = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in done]
    good = [one for one in done if isinstance(one, list)]
    boxes = finder.find([one[1] for one in good], [one[2] for one in good])
    for one, its in zip(good, boxes, strict=True):
        one.append(its)
    return done


def _write_page(file: BoxesFile, limit: int, name: str) -> str:
    """A page of the first images; what to say of it."""
    from hb_tta.reading import objects_in
    from hb_tta.report.crops import render

    if not limit or not file.path.exists():
        return ""
    lines = (line for _, line in objects_in(file.path) if line is not None and "boxes" in line)
    rows = [_shown(line, file.folder) for line in islice(lines, limit)]
    if not rows:
        return ""
    lead = (
        f"The first {len(rows)} images, and what their boxes cut out; behind the words the "
        f"detector's scores. {file.path.name} has all."
    )
    page = render(rows, title=file.folder.resolve().name, lead=lead)
    write_aside(file.folder / name, page.encode("utf-8", "backslashreplace"), flush=False)
    return f", look at {name} beside it"


def _shown(line: dict[str, Any], folder: Path) -> Any:
    from hb_tta.report.crops import Captioned as Row
    from hb_tta.report.crops import Crop

    image = load_image(folder / line["image"])
    crops = []
    for box in line["boxes"]:
        crops.append(Crop(image.crop(tuple(box["box"])), box["word"], box["score"]))
        if "head" in box:
            head = image.crop(tuple(box["head"]))
            crops.append(Crop(head, f"{box['word']}'s head", box["score"]))
    return Row(image, line["caption"], crops, Path(line["image"]).name)
