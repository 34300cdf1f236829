"""``hb-tta demo``: the whole method, told on one question after the other, as one HTML page."""

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
    from hb_tta.augment import Augmentation
    from hb_tta.pocket.tasks import Sample
    from hb_tta.report.story import Frame

FAMILY = "pocket"  # the questions are about pocket scenes
METHODS = ("hummingbird",)
LEAD = (
    "A model that answers questions about pictures is frozen, and looks once. hb-tta has it write\n"
    "down what matters for the question, draws new pictures that should keep just that, and asks\n"
    "the model again with all of them before its eyes."
)
NOTES = (
    "How these questions were chosen: they are the first of each kind in the benchmark's dev "
    "split, answered by yes and by no in turn. None was taken or left for what came of it.",
    "A handful of questions decides nothing. What the views bring over hundreds, beside controls, "
    "is measured in docs/results of the repository.",
)
WORDS = {
    "pocket world": "Everything here is small enough for a laptop: 64 × 64 pictures of coloured "
    "shapes on a plain ground, and models that were trained on nothing else. The same code runs "
    "SDXL, CLIP and LLaVA on photographs.",
    "view": "A picture that was generated from the real one and the description. The percentage "
    "is how sure the model is of its answer: its share among yes and no.",
    "keeps the answer": "Told by a reader, a network of its own that was trained on drawn scenes "
    "and on no generated picture. It takes no part in the answers.",
    "together": "The model's logits at the sight of each picture, the real one among them, are "
    "averaged before the answer is decoded.",
    "colours and grounds": "A ground is one plain colour, and has a name. What the words in "
    "questions and descriptions look like:",
}
NEXT = {
    "hb-tta demo --questions 50": "More of this page.",
    'hb-tta augment photo.jpg "Is there a dog?"': "Views of a photograph of yours: with the models "
    "for photographs, which are downloaded first and want a GPU.",
    "lmms-eval --tasks mme --augment hummingbird": "A whole benchmark: the line that you already "
    "use, with one flag behind it (pip install -e '.[lmms-eval]').",
    "hb-tta report RESULTS": "What came of it, with intervals, and every question with its views.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta demo [options]"
    parser.description = (
        "Tells the method on questions about the bundled pocket world, one after the other: the\n"
        "picture, what the model says to it alone, the description, the views, what it says to\n"
        "each and to all together. On a CPU, in about a minute; one HTML file that needs no other."
    )
    parser.epilog = (
        "examples:\n"
        "  hb-tta demo\n"
        "  hb-tta demo --questions 5 -n 8 --method hummingbird --method i2t2i --out demo.html"
    )
    parser.add_argument(
        "--questions",
        type=positive,
        default=10,
        metavar="N",
        help="how many, the kinds in turn (default: 10)",
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
    """Augment, ask, write the page, and print where it is."""
    from hb_tta.cli.story import tell
    from hb_tta.families import get_family
    from hb_tta.report.story import render, tally

    asked = {"family": FAMILY, **by_arguments(arguments)}
    refuse_gate(asked)
    samples = list(pick_questions(arguments.questions))
    settings = each(arguments.method or METHODS, asked)
    views = {}
    for method, its in settings.items():
        print(f"{method}: {its.n} views for {len(samples)} questions …", file=sys.stderr)
        views[method] = augment_all(its, samples)
    print("asking the model …", file=sys.stderr)
    device = next(iter(settings.values())).device
    stories = list(tell(samples, views, get_family(FAMILY), device))
    page = Path(arguments.out)
    write_result(page, render(stories, frame()).encode())
    for sentence in tally(stories):
        print(sentence, file=sys.stderr)
    print(page.resolve())
    return 0


def pick_questions(count: int) -> Iterator[Sample]:
    """Dev questions, the kinds in turn, answered by yes and by no in turn."""
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


def augment_all(settings: ViewSettings, samples: Sequence[Sample]) -> list[Augmentation]:
    """What a method makes of every question."""
    augmenter = settings.augmenter()
    done = augmenter.augment(contexts_of(samples), n=settings.n, seed=settings.seed)
    augmenter.unload()
    return done


def frame() -> Frame:
    """What stands around the questions."""
    from hb_tta.pocket.world import BACKGROUNDS, COLOURS
    from hb_tta.report.story import Frame

    return Frame(
        title="hb-tta, one question after the other",
        lead=LEAD,
        notes=NOTES,
        words=WORDS,
        colours={**COLOURS, **BACKGROUNDS},
        next=NEXT,
    )
