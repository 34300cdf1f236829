"""Figures that are pictures: methods beside each other, seeds, tuning, failures, descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hb_tta.datasets.questions import CATEGORIES, MORE, YesNoQuestion
from hb_tta.experiments.asking import turns
from hb_tta.experiments.methods import (
    TUNED,
    Arm,
    arms_of,
    cost_of_views,
    questions_of,
    views_of,
)
from hb_tta.experiments.paper import fine_tuned
from hb_tta.experiments.paper.lora import Training, cost_of, trainings_of
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Experiment,
    Gallery,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.images import load_image

if TYPE_CHECKING:
    from hb_tta.report.contact_sheet import Panel, Row

REFERENCES = 10  # of a figure; the paper's have four to eight
LARGEST = 320  # pixels of a picture on a page


@dataclass(frozen=True)
class Pictures:
    """A gallery: the same questions before several arms.

    Attributes:
        arms: of the options, in the rows' order.
        views: of a question and an arm.
        categories: of the benchmark, by its name; none: the paper's five.
        references: questions.
        facts: of a question, what stands below it.
        quick_views: in a quick run.
        tuning: whether the arms are Hummingbird before and after its fine-tuning.
    """

    name: str
    title: str
    arms: Callable[[Options], Sequence[Arm]]
    views: int = 1
    quick_views: int = 1
    categories: Callable[[Options], Sequence[str]] = lambda _: CATEGORIES
    references: int = REFERENCES
    note: str = ""
    source: str = "Hummingbird"
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)
    tuning: bool = False

    def questions(self, options: Options) -> list[YesNoQuestion]:
        """The categories in turn, answered by yes and no in turn; nothing is picked."""
        categories = self.categories(options)
        count = options.number(self.references, 5)
        rounds = -(-count // len(categories))
        every = questions_of(options, categories, rounds)
        alternating = [one for n, one in enumerate(every) if n % 2 == (n // 2) % 2]
        return turns(alternating, count)

    def number(self, options: Options) -> int:
        """Views of a question."""
        return options.views or (self.quick_views if options.quick else self.views)

    def needs(self, options: Options) -> Needs:
        """The arms' weights."""
        arms = self.arms(options)
        count = options.number(self.references, 5)
        cost = cost_of_views(arms, count, self.number(options), options)
        cost += cost_of(self.trainings(options), options)
        more = tuple(self.categories(options)) != tuple(CATEGORIES)
        return Needs(
            methods=tuple(dict.fromkeys(arm.method for arm in arms if arm.method)),
            data=("more questions" if more else "questions",),
            cost=cost,
        )

    def plan(self, options: Options) -> Iterator[PlannedRun]:
        """What has to be trained, and a run an arm."""
        yield from trainings_of(self.trainings(options), options)
        for arm in self.arms(options):
            yield PlannedRun(
                arm.label,
                lambda arm=arm: self.made(arm, options),  # type: ignore[misc]
                0.0,
                arm.method or "",
            )

    def trainings(self, options: Options) -> list[Training]:
        """What the arms take beforehand."""
        return fine_tuned.trainings(options) if self.tuning else []

    def made(self, arm: Arm, options: Options) -> list[Any]:
        """What the arm gives of each question."""
        return list(views_of(arm, self.questions(options), options, self.number(options)))

    def show(self, results: Results, options: Options) -> Shown:
        """A panel a question, a row an arm."""
        arms = [arm.label for arm in self.arms(options) if arm.label in results]
        panels = [
            panel_of(one, {label: results[label][place] for label in arms})
            for place, one in enumerate(self.questions(options))
        ]
        number = self.name.removeprefix("figure")
        note = " ".join([self.note, *(fine_tuned.explained(options) if self.tuning else ())])
        gallery = Gallery(f"Figure {number}. {self.title}", panels, note.strip())
        missing = fine_tuned.lacking(options) if self.tuning else []
        return Shown(galleries=[gallery], missing=missing)

    def experiment(self) -> Experiment:
        """As the registry has it."""
        source = f"{self.source}, figure {self.name.removeprefix('figure')}"
        return Experiment(self.name, self.title, source, self.needs, self.plan, self.show)


def panel_of(question: YesNoQuestion, made: Mapping[str, Any]) -> Panel:
    """A question's reference, and a row an arm."""
    from hb_tta.report.contact_sheet import Panel

    rows = [row_of(label, its) for label, its in made.items() if its is not None]
    answer = "Yes" if question.answer else "No"
    return Panel(small(question.picture()), question.guidance, rows, {"answer": answer})


def row_of(label: str, made: Any) -> Row:
    """An augmentation as a row."""
    from hb_tta.report.contact_sheet import Row

    return Row(label, [small(view) for view in made.views], made.seeds, made.description)


def small(image: Any) -> Any:
    """A picture no larger than a page shows it."""
    shown = load_image(image)
    if max(shown.size) > LARGEST:
        shown.thumbnail((LARGEST, LARGEST))
    return shown


def _only(*methods: str) -> Callable[[Options], Sequence[Arm]]:
    """Those of the options' arms whose methods are named."""
    return lambda options: [arm for arm in arms_of(options) if arm.method in methods]


def _tuned(options: Options) -> Sequence[Arm]:
    return [arm for arm in arms_of(options) if arm.label == TUNED] or [Arm(TUNED, "hummingbird")]


def _more(kind: str) -> Callable[[Options], Sequence[str]]:
    return lambda options: [MORE[options.benchmark("questions")][kind]]


FIGURE_4 = Pictures(
    "figure4", "Methods beside each other, a view each", arms_of, references=5
).experiment()
FIGURE_5 = Pictures(
    "figure5", "One context, many seeds", _tuned, views=10, quick_views=4, references=5
).experiment()
FIGURE_6 = Pictures(
    "figure6",
    "Before and after fine-tuning",
    fine_tuned.before_and_after,
    views=4,
    quick_views=2,
    tuning=True,
).experiment()
FIGURE_10 = Pictures(
    "figure10", "Descriptions that the MLLM wrote without the answer", _tuned, references=5
).experiment()
FIGURE_11 = Pictures(
    "figure11", "Methods beside each other on artwork", arms_of, categories=_more("artwork")
).experiment()
FIGURE_12 = Pictures(
    "figure12",
    "Methods beside each other on commonsense reasoning",
    arms_of,
    categories=_more("reasoning"),
).experiment()
FIGURE_13 = Pictures(
    "figure13",
    "Methods of low FID beside Hummingbird",
    _only("randaugment", "image_translation", "hummingbird"),
    note="Low in the paper's table 9: near the real images is not different from them.",
).experiment()
FIGURE_17 = Pictures(
    "figure17", "More contexts, more seeds", _tuned, views=8, quick_views=4, references=10
).experiment()
FIGURE_18 = Pictures(
    "figure18", "More of the methods beside each other", arms_of, references=20
).experiment()


# ── Figure 7: failures ───────────────────────────────────────────────────────────────────────────

_TRIED = 40  # questions that are looked through


def _judged(options: Options) -> list[Any]:
    """Views of many questions with a judge's scores, Hummingbird's."""
    questions = _looked_through(options)
    arm = Arm(TUNED, "hummingbird", (("judge", "fine_grained"),))
    return list(views_of(arm, questions, options, 1))


def _looked_through(options: Options) -> list[YesNoQuestion]:
    return questions_of(options, CATEGORIES, options.number(_TRIED // 5, 4))


def _needs_7(options: Options) -> Needs:
    cost = Cost(views=10 * options.number(_TRIED // 5, 4))
    return Needs(roles=("evaluator",), methods=("hummingbird",), data=("questions",), cost=cost)


def _plan_7(options: Options) -> list[PlannedRun]:
    return [PlannedRun(TUNED, lambda: _judged(options), 0.0, "hummingbird")]


def _show_7(results: Results, options: Options) -> Shown:
    if TUNED not in results:
        return Shown(missing=[f"{TUNED} was left out"])
    questions, made = _looked_through(options), results[TUNED]
    least = sorted(range(len(made)), key=lambda n: _margin(made[n]))
    least = an_image_once(questions, least)[:8]
    galleries = [
        Gallery(
            "Figure 7. Failures: the judge's least liked views",
            [panel_of(questions[n], {TUNED: made[n]}) for n in least],
            "Picked by the ITM score, less the reference's own.",
        )
    ]
    wrong = _changed(questions, made, options)
    if wrong:
        first = an_image_once(questions, wrong)[:8]
        panels = [panel_of(questions[n], {TUNED: made[n]}) for n in first]
        note = f"The first of {len(wrong)} in {len(made)} whose answer the reader finds changed."
        galleries.append(Gallery("Figure 7. Failures: the answer is another", panels, note))
    return Shown(galleries=galleries)


def an_image_once(questions: Sequence[YesNoQuestion], places: Sequence[int]) -> list[int]:
    """The first of those places that ask about the same image."""
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(questions[place].group, place)
    return list(first.values())


def _margin(made: Any) -> float:
    return made.scores[0] - made.real_score if made.scores else 0.0


def _changed(
    questions: Sequence[YesNoQuestion], made: Sequence[Any], options: Options
) -> list[int]:
    """The questions whose view has another answer, by a reader, where the family has one."""
    if "reader" not in options.family.roles:
        return []
    from hb_tta.experiments.oracle import ReaderOracle

    oracle = ReaderOracle(options.family.weights("reader"))
    asked = [one.guidance for one in questions]
    before = oracle.answers([load_image(one.picture()) for one in questions], asked)
    after = oracle.answers([its.views[0] for its in made], asked)
    return [
        n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a is not None and a != b
    ]


FIGURE_7 = Experiment(
    "figure7",
    "Failures, picked by the judge and by the reader",
    "Hummingbird, figure 7",
    _needs_7,
    _plan_7,
    _show_7,
)
