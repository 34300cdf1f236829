"""What an MLLM says to yes/no questions, with an arm's views beside the real image.

The paper's test-time augmentation (section 5.1): the logits of the answer's first token, averaged
over the real and the generated images; ACC over questions, ACC+ over an image's two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from hb_tta.datasets.questions import YesNoQuestion
from hb_tta.device import default_device
from hb_tta.errors import UserError
from hb_tta.experiments.ledger import kept_lines
from hb_tta.experiments.methods import REAL, Arm, identity, views_of
from hb_tta.experiments.reproduction import Options
from hb_tta.images import load_image, pixel_digest
from hb_tta.report.records import Record, Run
from hb_tta.store import content_key
from hb_tta.weights import Weights, as_weights

FORMAT = 1
"""Counts the changes of what a line means."""


def answerers(options: Options, count: int = 1) -> dict[str, Weights]:
    """Those MLLMs that answer, by a short name: those asked for, else the family's.

    Args:
        count: how many of the family's are taken, at most.
    """
    if options.mllms:
        short = {name: name.rstrip("/").rsplit("/", 1)[-1] for name in options.mllms}
        alike = {name for name in short if list(short.values()).count(short[name]) > 1}
        return {name if name in alike else short[name]: as_weights(name) for name in short}
    roles = [r for r in ("mllm", "mllm_two")[:count] if r in options.family.roles]
    return {
        _short(options.family.weights(role), role): options.family.weights(role) for role in roles
    }


def _short(weights: Weights, role: str) -> str:
    return role.replace("_", " ") if weights.is_folder() else weights.location.rsplit("/", 1)[-1]


def answers(
    arm: Arm, mllm: Weights, questions: Sequence[YesNoQuestion], options: Options, n: int
) -> list[dict[str, Any]]:
    """An answer a question: ``yes``, ``no`` (logarithms of probabilities) and ``right``.

    Kept line by line in the folder of the options; the same answers are given once for all tables.

    Raises:
        UserError: weights are missing, or the MLLM's words for yes and no cannot be told apart.
    """
    decided_by = {
        "entry": "yes/no answers",
        "format": FORMAT,
        "views": identity(arm, options, n),
        "mllm": mllm.fingerprint(),
        "questions": questions_key(questions),
    }

    def make(first: int) -> Iterator[dict[str, Any]]:
        ask = _asking(mllm, options.device)
        rest = questions[first:]
        for question, made in zip(rest, views_of(arm, rest, options, n), strict=True):
            yes, no = ask(question, [] if made is None else made.views)
            yield {"yes": yes, "no": no, "right": (yes > no) == question.answer}

    name = f"{arm.label}, {_short(mllm, 'mllm')}"
    return kept_lines(
        options.folder / "answers", name, decided_by, len(questions), make, quiet=options.quiet
    )


def questions_key(questions: Sequence[YesNoQuestion]) -> str:
    """Names questions by what is asked, what is right, and the images' pixels.

    An image is looked at once for both of its questions.
    """
    digests = {one.group: one for one in questions}
    looked = {g: pixel_digest(load_image(one.picture())) for g, one in digests.items()}
    named = [[one.prompt, one.answer, looked[one.group]] for one in questions]
    return content_key({"questions": named})


def run_of(name: str, questions: Sequence[YesNoQuestion], said: Sequence[dict[str, Any]]) -> Run:
    """Answers as a run, to be scored."""
    records = [
        Record(one.name, one.group, one.category, float(its["right"]))
        for one, its in zip(questions, said, strict=True)
    ]
    return Run(name, records, plain=name == REAL)


@lru_cache(maxsize=1)  # of several models one is in memory
def _asking(mllm: Weights, device: str | None) -> Callable[..., tuple[float, float]]:
    from hb_tta.describe import load_mllm
    from hb_tta.tta.answer import answer

    model, processor = load_mllm(mllm, device=device or default_device())

    def ask(question: YesNoQuestion, views: Sequence[Any]) -> tuple[float, float]:
        said = answer(
            model, processor, question.picture(), question.prompt, views,
            max_new_tokens=1, do_sample=False,
        )  # fmt: skip
        if said.combined is None:
            raise UserError(
                f"{mllm.location} has no first tokens of its own for yes and no: name another MLLM"
            )
        return said.combined.yes, said.combined.no

    return ask


def first_of_each_image(questions: Sequence[YesNoQuestion]) -> list[YesNoQuestion]:
    """The first question of each image: where a view is looked at and not asked about."""
    return list({one.group: one for one in reversed(questions)}.values())[::-1]


def images_each(questions: Sequence[YesNoQuestion]) -> str:
    """How many images there are of a category: a number, or the least and the most."""
    groups: dict[str, set[str]] = {}
    for one in questions:
        groups.setdefault(one.category, set()).add(one.group)
    counts = sorted({len(its) for its in groups.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def turns(questions: Sequence[YesNoQuestion], count: int) -> list[YesNoQuestion]:
    """The first questions, the categories in turn."""
    by_category: dict[str, list[YesNoQuestion]] = {}
    for one in questions:
        by_category.setdefault(one.category, []).append(one)
    rounds = (its for its in _by_turn(list(by_category.values())))
    return list(islice(rounds, count))


def _by_turn(lists: Sequence[Sequence[Any]]) -> Iterator[Any]:
    for place in range(max(map(len, lists), default=0)):
        yield from (its[place] for its in lists if place < len(its))
