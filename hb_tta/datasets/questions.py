"""Yes/no questions in pairs an image, as MME has them: MME itself, and the pocket world's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hb_tta.errors import UserError, choose_from
from hb_tta.reading import user_path

SUFFIX = "Please answer yes or no."
ANSWER_FORMAT = "\nAnswer the question using a single word or phrase."  # of lmms-eval's mme
CATEGORIES = ("existence", "count", "position", "color", "scene")
"""Of the paper's section 5.1; its appendices ask more (``MORE``)."""


@dataclass(frozen=True)
class YesNoQuestion:
    """A question about an image.

    Attributes:
        name: tells it from all others.
        group: of its image, the same for both of its questions.
        category: of the benchmark.
        text: as the benchmark has it.
        answer: whether yes is right; for scoring alone.
        picture: gives the image, in a form that ``load_image`` takes.
    """

    name: str
    group: str
    category: str
    text: str
    answer: bool
    picture: Callable[[], Any]

    @property
    def prompt(self) -> str:
        """As lmms-eval asks it."""
        return self.text.removesuffix(SUFFIX).rstrip() + ANSWER_FORMAT

    @property
    def guidance(self) -> str:
        """As the describer is told it: up to the first question mark."""
        asked, mark, _ = self.text.partition("?")
        return asked + mark


def _pocket(
    categories: Sequence[str], data: str | None, split: str, limit: int | None
) -> list[YesNoQuestion]:
    from hb_tta.pocket.edition import BUNDLED
    from hb_tta.pocket.tasks import pocket_mme

    for category in categories:
        if category not in BUNDLED.categories:
            raise UserError(
                f"the bundled models know no questions of {category!r}: their world has "
                f"{', '.join(BUNDLED.categories)}"
            )
    return [
        YesNoQuestion(
            f"{one.question_id} {number % 2}",
            one.question_id,
            one.category,
            one.question,
            one.answer == "Yes",
            lambda one=one: one.image,  # type: ignore[misc]
        )
        for category in categories
        for number, one in enumerate(pocket_mme(split, category=category, limit=limit))
    ]


def _mme(
    categories: Sequence[str], data: str | None, split: str, limit: int | None
) -> list[YesNoQuestion]:
    """From the hub, or a copy of it; it has one split."""
    from hb_tta.datasets.hub import as_file, load_rows

    path = None if data is None else user_path(data)
    if path is not None and not path.exists():
        raise UserError(f"there is no folder {data!r}: give MME's with --data mme=DIR")
    rows = load_rows("lmms-lab/MME", path, None, "test")
    wanted: dict[str, list[Any]] = {name: [] for name in categories}
    for row in rows:
        if row["category"] in wanted:
            wanted[row["category"]].append(row)
    if lacks := [category for category, its in wanted.items() if not its]:
        raise UserError(
            f"{data or 'lmms-lab/MME'} has no question of {', '.join(lacks)}: check the data"
        )
    found = []
    for category, its in wanted.items():
        for row in _paired(its, limit):
            asked = YesNoQuestion(
                f"{category}/{row['question_id']} {row['answer']}",
                f"{category}/{row['question_id']}",
                category,
                row["question"],
                row["answer"].strip().lower() == "yes",
                lambda row=row: as_file(row["image"]),  # type: ignore[misc]
            )
            found.append(asked)
    return found


def _paired(rows: Iterable[Any], limit: int | None) -> list[Any]:
    """Rows with both questions of an image beside each other, of the first images."""
    by_image: dict[str, list[Any]] = {}
    for row in rows:
        by_image.setdefault(row["question_id"], []).append(row)
    return [row for its in islice(by_image.values(), limit) for row in its]


QUESTIONS = {"pocket_mme": _pocket, "mme": _mme}
MORE = {
    "pocket_mme": {"artwork": "style", "reasoning": "reasoning"},
    "mme": {"artwork": "artwork", "reasoning": "commonsense_reasoning"},
}
"""Benchmark → what the paper's appendices F and G ask for → its category of that."""


def load_questions(
    name: str,
    categories: Sequence[str] = CATEGORIES,
    *,
    data: str | None = None,
    split: str = "dev",
    limit: int | None = None,
) -> list[YesNoQuestion]:
    """The questions of a benchmark, both of an image beside each other.

    Args:
        name: of ``QUESTIONS``.
        data: a folder with a copy, where the data lie on the hub.
        split: where there are several.
        limit: images a category.

    Raises:
        UserError: the name is unknown, or the data are missing.
    """
    if name not in QUESTIONS:
        raise UserError(f"there are no questions {name!r}{choose_from(name, QUESTIONS)}")
    return QUESTIONS[name](categories, data, split, limit)
