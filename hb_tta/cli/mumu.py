"""``hb-tta mumu``: images of prompts of words and pictures."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.cli.augment import SHEET, tell
from hb_tta.cli.output import Output
from hb_tta.cli.prompts import read_prompts
from hb_tta.cli.work import Work
from hb_tta.errors import visible
from hb_tta.generators.mumu.pictures import load_cut_out
from hb_tta.images import load_image
from hb_tta.settings import add_arguments as add_settings
from hb_tta.settings import by_arguments
from hb_tta.settings.options import OPTIONS, read_option

if TYPE_CHECKING:
    from hb_tta.mumu import Mumu

DESCRIPTION = """\
Makes images of prompts in which pictures stand among the words, each before the word that it
shows: "a <img:man.png> man and his <img:dog.png> dog". At most four pictures; \\<img: stands for
the words themselves. The model knows crops of single things; what else is in a picture may come
along, which --cutout prevents.

A file of rows has a prompt in each: JSON lines {"prompt": text}, CSV, TSV or Parquet. Paths in a
prompt start from the file's folder. A row may name its pictures, {"prompt": "a <img:him> man",
"images": {"him": "man.png"}}. What cannot be used is told at the end, and the others are done.

What is written, kept and made again is that of `hb-tta augment`."""

EXAMPLES = """\
examples:
  hb-tta mumu "a <img:man.png> man and his <img:dog.png> dog" -n 4 --model my-mumu
  hb-tta mumu prompts.jsonl --model my-mumu --tokens 1296 --out images
  hb-tta mumu "a <img:man.png> man" --cutout --generator cagliostrolab/animagine-xl-3.1"""

RUNNING = ("store", "device", "dtype", "batch_size", "cpu_offload", "deterministic")
SHARED = ("n", "seed", *RUNNING, "num_inference_steps", "guidance_scale")
"""Options that mean here what they mean for any view."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta mumu PROMPT … [options]\n       hb-tta mumu FILE [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("named", metavar="PROMPT", nargs="+", help="prompts, or a file of rows")
    parser.add_argument(
        "--model",
        default="pocket",
        metavar="DIR|ID",
        help="what a training of MUMU wrote, or a family that has one (default: pocket)",
    )
    parser.add_argument(
        "--generator",
        metavar="DIR|ID",
        help="a Stable Diffusion XL to draw with, a fine-tune for example (default: the one that "
        "the model was trained on)",
    )
    parser.add_argument(
        "--tokens",
        type=spelling.argument(spelling.positive),
        metavar="N",
        help="of each picture, a square number such as 64, 324 or 1296: more keep more detail "
        "(default: as trained)",
    )
    parser.add_argument(
        "--image-scale",
        type=float,
        metavar="X",
        help="multiplies what the pictures say: less gives the words more weight (default: 1)",
    )
    parser.add_argument(
        "--cutout",
        action="store_true",
        help="take what the pictures show out of its background, by their transparency or by a "
        "mask beside them, man.mask.png beside man.jpg: white on the thing, black elsewhere",
    )
    add_settings(parser, *SHARED)
    parser.add_argument(
        "--out",
        default="hb-tta-out",
        metavar="DIR",
        help="the folder for views/, manifest.jsonl and index.html (default: hb-tta-out)",
    )
    parser.add_argument(
        "--sheet",
        type=spelling.argument(partial(spelling.whole, least=0)),
        default=SHEET,
        metavar="N",
        help=f"prompts that index.html shows; 0: no page (default: {SHEET})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make images of one prompt or many, writing them and their lines as they come."""
    asked = read_prompts(arguments.named, load_cut_out if arguments.cutout else load_image)
    settings = by_arguments(arguments)
    n, seed = (
        read_option(name, settings.pop(name, OPTIONS[name].default)) for name in ("n", "seed")
    )
    mumu = model(arguments, settings)
    with Output(Path(arguments.out), arguments.sheet, command="mumu") as output:
        work = Work(asked.lines, output.fail, skip=asked.many)
        for drawn in mumu.iter_draw(work, n, seed):
            files = output.add(work.next_done(), drawn)
            if not asked.many:
                print(*map(visible, files), sep="\n")
    if asked.many:
        print(f"views: {output.views}, of prompts: {output.images}, in: {visible(output.folder)}")
    tell(work.failures, output.manifest, "prompts")
    return 1 if work.failures else 0


def model(arguments: argparse.Namespace, settings: dict[str, Any]) -> Mumu:
    """The model that the command line names; nothing is loaded yet."""
    from hb_tta.mumu import Mumu

    options = {
        name: read_option(name, value) for name, value in settings.items() if name in RUNNING
    }
    own = {name: value for name, value in settings.items() if name not in RUNNING}
    given = {"tokens": arguments.tokens, "image_scale": arguments.image_scale}
    own |= {name: value for name, value in given.items() if value is not None}
    return Mumu.from_pretrained(arguments.model, generator=arguments.generator, **options, **own)
