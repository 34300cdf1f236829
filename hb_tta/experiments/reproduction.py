"""An experiment: one table or figure of a paper as a plan of runs and a function of their results.

    Experiment(
        name="table1", title="…", source="Hummingbird, Table 1",
        needs=…,   what it takes: weights, data, and so many views and answers
        plan=…,    the runs; each keeps its result, so the same command again goes on
        show=…,    the runs' results → tables, pictures, and what they say of the paper's claims
    )

A module of hb_tta/experiments/paper holds one or a few that share their runs; registry.py has the
names. Importing such a module imports no torch: `--list` reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError
from hb_tta.experiments.plan import PlannedRun
from hb_tta.families import Family
from hb_tta.metrics import PairedTest
from hb_tta.report.cells import CLEAR, Table
from hb_tta.store import content_key

if TYPE_CHECKING:
    from hb_tta.report.contact_sheet import Panel
    from hb_tta.weights import Weights


@dataclass(frozen=True)
class Options:
    """What a person asked for.

    Attributes:
        out: the folder of results.
        family: whose models, data sets and training recipes.
        methods: names of ``list_methods()`` for the rows; None: the paper's and other packages'.
        limit: images a category, tasks or images of a part; None: the experiment's own.
        views: generated ones an image; None: the experiment's own.
        seed: of the first view, and of what is drawn.
        split: of benchmarks that have several, "dev" or "sealed".
        quick: the experiment's own numbers are small ones.
        train: LoRAs that are missing are trained.
        skip_missing: a method whose weights are missing is left out.
        store: of views, descriptions and features; None: the usual one.
        device: where the models run.
        data: data set → its folder.
        mllms: folders or hub ids of those that answer; none: the family's.
        settings: of views, by name: what stands behind ``--augment_args``.
        training: ``key=value`` for trainings.
        answers: files of the survey's answers.
        quiet: no progress.
    """

    out: Path
    family: Family
    methods: tuple[str, ...] | None = None
    limit: int | None = None
    views: int | None = None
    seed: int = 0
    split: str = "sealed"
    quick: bool = False
    train: bool = False
    skip_missing: bool = False
    store: str | None = None
    device: str | None = None
    data: Mapping[str, str] = field(default_factory=dict, hash=False)
    mllms: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    training: tuple[str, ...] = ()
    answers: tuple[Path, ...] = ()
    quiet: bool = False

    def number(self, full: int, quick: int) -> int:
        """How many images a category (or tasks a part): what was asked for, else one of these."""
        return self.limit or (quick if self.quick else full)

    @property
    def folder(self) -> Path:
        """Where this family's results are; a family of a folder is named by it and its path."""
        name = self.family.name
        if Path(name).name != name:
            name = f"{Path(name).name}-{content_key({'family': name})[:8]}"
        return self.out / name

    def benchmark(self, kind: str) -> str:
        """The family's data set of a kind: "questions", "relations", "objects".

        Raises:
            UserError: the family has none.
        """
        if kind not in self.family.benchmarks:
            raise UserError(
                f"family {self.family.name!r} names no benchmark of {kind}: take another --family"
            )
        return self.family.benchmarks[kind]

    def seconds(self, what: str) -> float:
        """How long one piece of work takes, where the family's figures were measured."""
        return self.family.seconds.get(what, 0.0)


@dataclass(frozen=True)
class Cost:
    """Pieces of work.

    Attributes:
        views: generated images.
        pictures: that an MLLM is asked about.
        tunings: images or tasks whose prompts are tuned.
        trainings: of a LoRA.
        mumu_trainings: of a MUMU.
        minutes: of everything else.
    """

    views: int = 0
    pictures: int = 0
    tunings: int = 0
    trainings: int = 0
    mumu_trainings: int = 0
    minutes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        names = [one.name for one in fields(Cost)]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def forecast(self, options: Options) -> float:
        """Seconds on the machine that the family's figures are of."""
        parts = ("views", "pictures", "tunings", "trainings", "mumu_trainings")
        return 60 * self.minutes + sum(getattr(self, n) * options.seconds(n) for n in parts)

    def told(self) -> str:
        """In words."""
        units = {"views": "views", "pictures": "pictures asked about", "tunings": "prompts tuned"}
        units |= {"trainings": "trainings", "mumu_trainings": "trainings of a MUMU"}
        counted = [f"{n:,} {unit}" for name, unit in units.items() if (n := getattr(self, name))]
        return ", ".join(counted) or "next to nothing"


@dataclass(frozen=True)
class Needs:
    """What an experiment takes.

    Attributes:
        roles: of the family's models, beside what the methods themselves load.
        methods: whose views it makes.
        data: kinds of benchmarks.
        cost: of the whole, from an empty store.
        weights: further ones, by what they are called.
        also: packages that must be importable, with the line that installs them.
    """

    roles: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    cost: Cost = Cost()
    weights: Mapping[str, Weights] = field(default_factory=dict, hash=False)
    also: Mapping[str, str] = field(default_factory=dict, hash=False)


HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Finding:
    """What the results say of a claim of the paper.

    Attributes:
        claim: in the paper's sense.
        tests: (what is compared, the test); the claim is that every difference is above 0.
        reason: where no test can say it.
        kind: of ``cells.KINDS``, how the differences are written.
        about: which of the papers' claims it belongs to: a key of ``claims.CLAIMS``.
    """

    claim: str
    tests: Sequence[tuple[str, PairedTest]] = ()
    reason: str = ""
    kind: str = "points"
    about: str = ""

    @property
    def verdict(self) -> str:
        """Whether it holds here: see ``verdict``."""
        return verdict([test for _, test in self.tests])


def verdict(tests: Sequence[PairedTest]) -> str:
    """Of differences that should all be above 0: HOLDS where all are, by interval and p.

    FAILS where one is below: by its interval, and by its p-value times the number of comparisons
    (Bonferroni), for among many one is below by chance. Else, and of none, UNDECIDED.
    """
    if any(test.high < 0 and test.p_value * len(tests) < CLEAR for test in tests):
        return FAILS
    sure = all(test.low > 0 and test.p_value < CLEAR for test in tests)
    return HOLDS if tests and sure else UNDECIDED


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other, under a heading."""

    title: str
    panels: Sequence[Panel]
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A curve or a scatter as SVG, under a heading."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """What an experiment shows.

    Attributes:
        tables, galleries, drawings: on a page the drawings stand first, then the tables.
        findings: of the paper's claims.
        files: name → content, beside the page.
        missing: what could not be shown, a sentence each.
    """

    tables: Sequence[Table] = ()
    galleries: Sequence[Gallery] = ()
    drawings: Sequence[Drawing] = ()
    findings: Sequence[Finding] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    missing: Sequence[str] = ()


Results = Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: as it is typed, such as "table1".
        title: what it shows, in a line.
        source: of the paper's numbers.
        needs: what it takes with these options.
        plan: its runs, in order; results are known by their names. A run is asked for when those
            before it are done: what a training leads to comes behind it.
        show: what becomes of them; results of a run that was skipped are not there.
        unbuilt: why it cannot be run; "" where it can.
    """

    name: str
    title: str
    source: str
    needs: Callable[[Options], Needs]
    plan: Callable[[Options], Iterable[PlannedRun]]
    show: Callable[[Results, Options], Shown]
    unbuilt: str = ""


def unbuilt(name: str, title: str, source: str, why: str) -> Experiment:
    """An experiment that is known and cannot be run."""
    return Experiment(name, title, source, lambda _: Needs(), lambda _: (), _nothing, why)


def _nothing(results: Results, options: Options) -> Shown:
    return Shown()


def with_methods(options: Options, *methods: str) -> Options:
    """The same for certain methods, whatever was asked for."""
    return replace(options, methods=methods)
