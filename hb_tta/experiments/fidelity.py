"""How often views keep what was asked, by the form of what the generator was told.

    python -m hb_tta.experiments.fidelity --out DIR [--split dev|sealed] [--method hummingbird]

*question* and *generic* are what the describer writes by those templates, *drafts* the medoid of
five drafts by the first; *focused*, *full* and *colourless* are captions made from the scene's
record, which no method may see: they tell what a right description is worth, and who draws what it
leaves out. A view is faithful where the reader answers the question about it as about its
reference. Everything is kept in DIR; the same command again does what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hb_tta.augment import Augmenter
from hb_tta.context import DescribedContext
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import get_family
from hb_tta.generators import list_methods
from hb_tta.metrics import bootstrap_interval
from hb_tta.pocket.captions import Mention, caption
from hb_tta.pocket.edition import BUNDLED
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import answer
from hb_tta.pocket.tasks import SPLITS, QuestionPair, question_pairs
from hb_tta.pocket.world import render
from hb_tta.report.cells import Cell, Table

FAMILY = "pocket"
DRAFTS = 5
Context = Callable[[QuestionPair, str], DescribedContext]


def _asked(pair: QuestionPair, question: str) -> DescribedContext:
    return DescribedContext(render(pair.told), None, question)


def _told(text: Callable[[QuestionPair], str]) -> Context:
    return lambda pair, question: DescribedContext(render(pair.told), text(pair), question)


def _generic(pair: QuestionPair, question: str) -> DescribedContext:
    return DescribedContext(render(pair.told), None, "", "generic")


@dataclass(frozen=True)
class Template:
    """What the generator is told of a question's image: a context, and how many drafts it has."""

    context: Context
    drafts: int = 1


TEMPLATES = {
    "question": Template(_asked),
    "drafts": Template(_asked, DRAFTS),
    "generic": Template(_generic),
    "focused": Template(_told(lambda pair: pair.description)),
    "full": Template(_told(lambda pair: caption(pair.told))),
    "colourless": Template(_told(lambda pair: caption(pair.told, Mention(colour=False)))),
}


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the table."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        path = options.out / f"fidelity.{options.method}.{options.split}.md"
        text = write_tables(path, [table(results, options)])
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run a template."""
    for name in options.templates:
        yield PlannedRun(name, lambda name=name: _measured(name, options))  # type: ignore[misc]


def _measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    template = TEMPLATES[name]
    augmenter = Augmenter.from_pretrained(
        options.method, family=FAMILY, store=options.out / "store", drafts=template.drafts
    )
    decided_by = {
        "images": options.images,
        "views": options.views,
        "spec": augmenter.spec,
        "reader": get_family(FAMILY).weights("reader").fingerprint(),
    }
    path = options.out / f"fidelity.{options.method}.{name}.{options.split}.json"
    return kept(path, decided_by, lambda: measure(augmenter, template, options))


def measure(
    augmenter: Augmenter, template: Template, options: argparse.Namespace
) -> dict[str, list[list[float]]]:
    """Category → a question's views, 0/1 each; two questions in a row are of one image."""
    found = {}
    for category in BUNDLED.categories:
        asked = Asked.of(category, options.split, options.images, template.context)
        made = augmenter.augment(asked.contexts, n=options.views)
        found[category] = [row.tolist() for row in asked.faithful([its.views for its in made])]
    return found


@dataclass(frozen=True)
class Asked:
    """Questions about fresh scenes, two in a row of one image, and what is told of them."""

    questions: list[str]
    contexts: list[DescribedContext]

    @classmethod
    def of(cls, category: str, split: str, images: int, context: Context = _asked) -> Asked:
        """The first questions of a category."""
        pairs = list(islice(question_pairs(category, SPLITS[split], edition=BUNDLED), images))
        asked = [(pair, question) for pair in pairs for question in (pair.yes, pair.no)]
        return cls([question for _, question in asked], [context(*one) for one in asked])

    @cached_property
    def answers(self) -> list[bool | None]:
        """The reader's, of the references."""
        readings = reader().read([context.image for context in self.contexts])
        return [answer(r, q) for r, q in zip(readings, self.questions, strict=True)]

    def faithful(self, views: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """Of each question's views, whether the reader answers as of the reference, 0/1.

        A question that cannot be answered of a view is not kept by it.
        """
        readings = iter(reader().read([view for its in views for view in its]))
        return [
            np.array(
                [float((a := answer(next(readings), q)) is not None and a == right) for _ in its]
            )
            for q, right, its in zip(self.questions, self.answers, views, strict=True)
        ]


def reader() -> Reader:
    """The bundled one, which no training has seen."""
    return Reader.from_pretrained(get_family(FAMILY).weights("reader"))


def table(results: dict[str, dict[str, list[list[float]]]], options: argparse.Namespace) -> Table:
    """A row a template, a column a category."""
    title = (
        f"Faithful views by what {options.method} is told, %: {options.images} images a category, "
        f"two questions each, {options.views} views a question; intervals over images."
    )
    rows: list[list[Cell | str]] = []
    for name, found in results.items():
        cells = [share(found[category]) for category in found]
        rows.append([name, *cells, share([row for its in found.values() for row in its])])
    return Table(["told", *next(iter(results.values())), "all"], rows, title)


def share(rows: Sequence[Sequence[float]]) -> Cell:
    """The mean over questions' views; pairs of questions are resampled together."""
    means = np.array([np.mean(row) for row in rows])
    return Cell.of(bootstrap_interval(means, groups=np.arange(len(means)) // 2))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same again goes on")
    parser.add_argument("--method", choices=list_methods(), default="hummingbird")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--images", type=int, default=16, help="a category")
    parser.add_argument("--views", type=int, default=2, help="a question")
    parser.add_argument("--templates", nargs="+", choices=TEMPLATES, default=list(TEMPLATES))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
