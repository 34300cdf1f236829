"""MUMU's figures 1 and 4 to 12, and its five findings: galleries, and figures of the same arms.

The paper has pictures alone. Where a reader can judge them, the pictures' marks and a table of
many more of them stand beside; mumu_study.py has what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hb_tta.experiments.paper import fine_tuned
from hb_tta.experiments.paper.lora import Training, cost_of, trainings_of, untrained
from hb_tta.experiments.paper.mumu_prompts import Pictured, crops_beside, judges, prompts_of
from hb_tta.experiments.paper.mumu_rows import (
    AUGMENTED,
    CONTROL,
    EXCHANGED,
    OTHER,
    SAME,
    TUNED_BASE,
    UNAUGMENTED,
    WORDS,
    Pictures,
    beside_pasted,
    beside_words,
    both_trainings,
    by_tokens,
    no_other_base,
    of_mumu,
    on_bases,
    sampling,
    token_counts,
    trained_family,
    trained_tokens,
    tuned_base,
)
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Drawing,
    Experiment,
    Finding,
    Gallery,
    Needs,
    Options,
    Results,
    Shown,
    unbuilt,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.experiments.mumu_study import Figures, Study
    from hb_tta.families import Family
    from hb_tta.report.cells import Table
    from hb_tta.report.contact_sheet import Panel

SCENES, QUICK_SCENES = 300, 24
PICTURES = "pictures"

Claims = Callable[[Mapping[str, "Figures"], Options], Sequence[Finding]]


# ── A figure ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class MumuFigure:
    """A gallery of prompts, and what is measured beside it.

    Attributes:
        arm: of the prompts: see ``prompts_of``.
        rows: of the gallery.
        measured: names of runs, where a reader can judge.
        claims: what they say of the paper's.
        prompts, views: of the gallery.
        wanted: whether of the prompts only those are shown that the reader finds right (True) or
            wrong (False); None: all.
        trainings: what is trained beforehand.
    """

    number: int
    title: str
    arm: str = SAME
    rows: Callable[[Options, Sequence[Pictured], int], Pictures] = of_mumu
    measured: Callable[[Options], Sequence[str]] = lambda _: ()
    claims: Claims = lambda measured, options: ()
    prompts: int = 6
    views: int = 1
    wanted: bool | None = None
    note: str = ""
    trainings: Callable[[Options], Sequence[Training]] = lambda _: ()

    @property
    def name(self) -> str:
        """As it is typed."""
        return f"mumu{self.number}"

    def needs(self, options: Options) -> Needs:
        """MUMU, its base, and whoever judges."""
        judged = ("reader", "clip") if judges(options) else ()
        count = len(self.measured(options)) * scenes(options) if judged else 0
        cost = Cost(views=count + 3 * self.prompts * self.views)
        cost += cost_of(self.trainings(options), options)
        return Needs(roles=("generator", "mumu", *judged), data=("prompts",), cost=cost)

    def plan(self, options: Options) -> Iterator[PlannedRun]:
        """The trainings where there are any, what is measured, and the gallery."""
        yield from trainings_of(self.trainings(options), options)
        seconds = Cost(views=scenes(options)).forecast(options)
        for name in self.measured(options) if judges(options) else ():
            yield PlannedRun(name, lambda name=name: measure(name, options), seconds)  # type: ignore[misc]
        yield PlannedRun(PICTURES, lambda: self.panels(options))

    def panels(self, options: Options) -> list[Panel]:
        """A panel a prompt; which ones, the reader may say."""
        tried = self.prompts if self.wanted is None else 4 * self.prompts
        if options.limit:
            tried = min(tried, max(2, options.limit))
        prompts = prompts_of(options, self.arm, tried)
        n = options.views or self.views
        made = self.rows(options, prompts, n)
        marks = {label: _marks(options, prompts, its) for label, its in made.items()}
        panels = []
        for place, one in enumerate(prompts):
            its = {label: row[place] for label, row in made.items()}
            said = {label: rows[place] for label, rows in marks.items() if rows}
            if self.wanted is not None and said:
                right = all(all(not wrong for wrong in row) for row in said.values())
                if right != self.wanted:
                    continue
            panels.append(_panel(one, its, said, options.seed))
        return panels[: self.prompts]

    def show(self, results: Results, options: Options) -> Shown:
        """The gallery, the table and the claims."""
        title = f"Figure {self.number} of MUMU. {self.title}"
        gallery = Gallery(title, results.get(PICTURES, []), self.note)
        measured = {n: its for n, its in results.items() if n in self.measured(options)}
        missing = [] if judges(options) else [_UNJUDGED]
        missing += untrained(self.trainings(options), options)
        if self.wanted is False and not results.get(PICTURES):
            missing.append("the reader finds no picture wrong among those that were tried")
        if not measured:
            return Shown(galleries=[gallery], missing=missing)
        return Shown(
            tables_of(measured, options),
            galleries=[gallery],
            drawings=_curves(measured, title),
            findings=self.claims(measured, options),
            missing=missing,
        )

    def experiment(self) -> Experiment:
        """As the registry has it."""
        source = f"MUMU, figure {self.number}"
        return Experiment(self.name, self.title, source, self.needs, self.plan, self.show)


_UNJUDGED = "nobody can judge these prompts: the pictures stand alone"


def scenes(options: Options) -> int:
    """Of an arm that is measured."""
    return options.number(SCENES, QUICK_SCENES)


def measure(name: str, options: Options) -> Figures:
    """A run of mumu_study.py, on another base or by another training where its name says so."""
    from hb_tta.experiments.mumu_study import run_on

    kind, _, run = name.partition(": ")
    if not run:
        return run_on(study_of(options, options.family), name)
    family = tuned_base(options) if kind == TUNED_BASE else trained_family(options, kind)
    return {} if family is None else run_on(study_of(options, family), run)


def study_of(options: Options, family: Family) -> Study:
    """With the options' sizes."""
    from hb_tta.experiments.mumu_study import Study

    return Study(
        family, options.folder / "mumu", scenes(options), options.split, seed=options.seed,
        store=options.store, settings=sampling(options), device=options.device,
        quiet=options.quiet,
    )  # fmt: skip


def _marks(
    options: Options, prompts: Sequence[Pictured], made: Sequence[Sequence[Image]]
) -> list[list[list[str]]]:
    """Of each prompt and picture what the reader finds wrong; nothing where nobody can say."""
    if not judges(options):
        return []
    study = study_of(options, options.family)
    flat = [(one.asked, view) for one, its in zip(prompts, made, strict=True) for view in its]
    verdicts = iter(
        study.verdicts([asked for asked, _ in flat if asked], [view for _, view in flat])
    )
    return [[[n for n, v in next(verdicts).items() if not v] for _ in its] for its in made]


def _panel(
    one: Pictured, made: Mapping[str, Sequence[Image]], said: Mapping[str, Any], seed: int
) -> Panel:
    from hb_tta.experiments.paper.pictures import small
    from hb_tta.report.contact_sheet import Panel, Row

    rows = []
    for label, its in made.items():
        marks = [f"wrong {', '.join(w)}" if w else "right" for w in said.get(label, ())]
        seeds = [seed + place for place in range(len(its))]
        rows.append(Row(label, [small(view) for view in its], seeds, notes=marks or None))
    facts = {"in words": one.told} if one.told != one.written else {}
    return Panel(crops_beside(one.prompt), one.written, rows, facts)


# ── Tables ───────────────────────────────────────────────────────────────────────────────────────


def tables_of(measured: Mapping[str, Figures], options: Options) -> list[Table]:
    """The arms, and what else is measured."""
    from hb_tta.experiments.mumu import is_judged, judged_table, others_table

    there = {name: its for name, its in measured.items() if its}
    judged = {name: its for name, its in there.items() if is_judged(its)}
    others = {name: its for name, its in there.items() if name not in judged}
    made = [judged_table(judged)] if judged else []
    made += [others_table(others)] if others else []
    sample = f"Ours: {options.family.name}, {scenes(options)} scenes an arm, a picture each; "
    notes = (f"{sample}read by the family's reader; 95 % intervals over scenes.",)
    return [replace(table, notes=(*notes, *table.notes)) for table in made]


def _curves(measured: Mapping[str, Figures], title: str) -> list[Drawing]:
    from hb_tta.experiments.mumu_study import NAMES
    from hb_tta.report.drawing import curves

    by_tokens = {
        n.removeprefix("tokens "): its for n, its in measured.items() if n.startswith("tokens ")
    }
    if len(by_tokens) < 2:
        return []
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in NAMES:
        for place, its in enumerate(by_tokens.values()):
            values = [value for value in its[name] if value >= 0]
            if values:
                lines.setdefault(name, []).append((place, 100 * sum(values) / len(values)))
    svg = curves(lines, "tokens an image", "right, %", list(by_tokens))
    return [Drawing(f"{title}: what is right", svg)]


def _tokens_of(options: Options) -> list[str]:
    return [f"tokens {number}" for number in token_counts(options)]


def _by(name: str) -> Claims:
    """A function of mumu_findings.py, which takes torch."""

    def found(measured: Mapping[str, Figures], options: Options) -> Sequence[Finding]:
        from hb_tta.experiments.paper import mumu_findings

        return getattr(mumu_findings, name)(measured)

    return found


def _tokens_help(measured: Mapping[str, Figures], options: Options) -> Sequence[Finding]:
    from hb_tta.experiments.paper.mumu_findings import tokens_help

    return tokens_help(measured, trained_tokens(options))


def _both_bases(options: Options) -> list[str]:
    """Where there is another base, or it may be trained.

    Raises:
        UserError: neither.
    """
    its = fine_tuned.trainings(options)
    if fine_tuned.lora_of(options) is None and not (its and options.train):
        raise no_other_base(options)
    return [SAME, *(f"{TUNED_BASE}: {arm}" for arm in (SAME, CONTROL))]


FIGURE_1 = MumuFigure(
    1, "Prompts of text and images, and their pictures",
    measured=lambda _: (WORDS, "words", SAME, CONTROL, "diversity"), claims=_by("crops_are_used"),
).experiment()  # fmt: skip
FIGURE_4 = MumuFigure(
    4, "Pictures in the prompt beside a description alone", rows=beside_words, views=2,
    measured=lambda _: (WORDS, SAME, "conflict"), claims=_by("more_than_words"),
    note="The description is the right one, in the words that the base was trained on.",
).experiment()  # fmt: skip
FIGURE_5 = MumuFigure(
    5, "Tokens an image: more keep more detail", rows=by_tokens, views=2,
    measured=_tokens_of, claims=_tokens_help,
).experiment()  # fmt: skip
FIGURE_6 = MumuFigure(
    6, "One prompt with different subjects", arm="subjects", views=4,
    measured=lambda _: (CONTROL, OTHER, "leak", "leak, pasted", "ground unsaid"),
    claims=_by("harmonises"),
    note="The pictures are cut from scenes of other grounds than the one that is asked for.",
).experiment()  # fmt: skip
FIGURE_7 = MumuFigure(
    7, "Style transfer that works: a thing in another's look", arm=EXCHANGED, wanted=True,
    measured=lambda _: (CONTROL, SAME, EXCHANGED), claims=_by("styles"),
    note="Each word has the other's picture before it: the word says the thing, the picture the "
    "look. Those whose colours the reader finds exchanged.",
).experiment()  # fmt: skip
FIGURE_8 = MumuFigure(
    8, "Style transfer that does not work", arm=EXCHANGED, wanted=False,
    note="The same prompts, those that the reader finds otherwise. The paper's own failure, faces "
    "in abstract styles, needs photographs of people.",
).experiment()  # fmt: skip
FIGURE_9 = MumuFigure(
    9, "MUMU's LoRA on another base", rows=on_bases, views=2,
    measured=_both_bases, claims=_by("moves"), trainings=fine_tuned.trainings,
    note="The other base is the family's generator with Hummingbird's LoRA merged into it.",
).experiment()  # fmt: skip
FIGURE_10 = unbuilt(
    "mumu10", "Faces beside InstantID", "MUMU, figure 10",
    "faces need photographs of consenting people, and InstantID's weights",
)  # fmt: skip
FIGURE_11 = MumuFigure(
    11, "One prompt, six samples", prompts=3, views=6,
    measured=lambda _: (SAME,),
).experiment()  # fmt: skip
FIGURE_12 = MumuFigure(
    12, "A high multimodal CLIP score does not harmonise", arm=OTHER, rows=beside_pasted,
    measured=lambda _: (
        "leak", "leak, pasted", *(f"{kind}: leak" for kind in (AUGMENTED, UNAUGMENTED))
    ),
    claims=_by("misleads"),
    trainings=both_trainings,
).experiment()  # fmt: skip
