"""Tables 2 and 3: test-time prompt tuning of a CLIP on relations and on objects.

The same features answer by TPT and by what needs no tuning (the mean, ZERO, MTA, prototypes, TDA).
How many views are trusted is chosen on the dev split, where a benchmark has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.experiments.gains import gains_of
from hb_tta.experiments.lacking import skipped_methods
from hb_tta.experiments.methods import REAL, TUNED, Arm, cost_of_views, methods_of
from hb_tta.experiments.numbers import TABLE_2 as NUMBERS_2
from hb_tta.experiments.numbers import TABLE_3 as NUMBERS_3
from hb_tta.experiments.numbers import Numbers, paper_note
from hb_tta.experiments.paper.lora import (
    Training,
    by_own_lora,
    cost_of,
    own_trainings,
    trainings_of,
    untrained,
)
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Experiment,
    Finding,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.metrics import PairedTest
from hb_tta.report.cells import Cell, Table, could_have_shown
from hb_tta.report.parts import SHOWN, SHOWN_NOTE
from hb_tta.tpt import table as figures

if TYPE_CHECKING:
    from hb_tta.tpt.models import Clip
    from hb_tta.tpt.views import ViewFeatures
    from hb_tta.weights import Weights

SELECTIONS = (0.25, 0.5, 1.0)
"""Shares of the views that are tried on dev."""
HAVE_DEV = ("pocket_objects_all", "pocket_hoi")
BASES = ("zero-shot", "tpt")  # what the real image alone is answered by: the first that is there


def load(kind: str, options: Options, limit: int | None) -> list[Any]:
    """The parts of the family's benchmark of "relations" or "objects".

    Raises:
        UserError: data are missing.
    """
    from hb_tta.datasets import IMAGENET, load_tasks

    name = options.benchmark(kind)
    if name != "imagenet":
        data = options.data.get(name)
        return load_tasks(name, data=data, split=options.split, limit=limit)
    return [
        task
        for variant in IMAGENET
        for task in load_tasks(variant, data=_folder(variant, options), limit=limit)
    ]


def _folder(variant: str, options: Options) -> str | None:
    """A variant's own folder, or the one of its name inside ImageNet's."""
    whole = options.data.get("imagenet")
    inside = None if whole is None else str(Path(whole, variant))
    return inside if variant == "imagenet" else options.data.get(variant, inside)


@dataclass(frozen=True)
class Tuning:
    """A table of prompt tuning.

    Attributes:
        kind: of benchmark.
        views: generated ones an image, where nobody says.
        full, quick: images or tasks of a part.
        numbers, columns: the paper's, and which of ours they stand for.
        base: the row that the paper's gains are over.
    """

    name: str
    title: str
    kind: str
    views: int
    full: int
    quick: int
    numbers: Numbers
    base: str

    def training(self) -> Training:
        """The LoRA of this benchmark."""
        return Training(f"{self.kind} LoRA", self.kind)

    def arms(self, options: Options) -> list[Arm]:
        """The real image alone, then a row a method; Hummingbird by this benchmark's LoRA."""
        return by_own_lora(self.training(), options)

    def limit(self, options: Options) -> int:
        """Images or tasks of each part."""
        return options.number(self.full, self.quick)

    def needs(self, options: Options) -> Needs:
        """The CLIP, the methods, the data."""
        parts = 5 if self.kind == "objects" else 4
        images = self.limit(options) * parts * (1 if self.kind == "objects" else 12)
        n = options.views or self.views
        methods = methods_of(options)
        arms = [Arm(name, name) for name in methods]
        cost = cost_of_views(arms, images, n, options)
        cost += Cost(tunings=self.limit(options) * parts * (1 + len(methods)))
        return Needs(
            roles=("clip",),
            methods=tuple(methods),
            data=(self.kind,),
            cost=cost + cost_of(own_trainings(self.training(), options), options),
        )

    def plan(self, options: Options) -> Iterator[PlannedRun]:
        """The LoRA, the share of trusted views, and a run a row."""
        yield from trainings_of(own_trainings(self.training(), options), options)
        chosen: dict[str, float | None] = {}

        def choose() -> float | None:
            chosen["selection"] = self.chosen(options)
            return chosen["selection"]

        yield PlannedRun("selection", choose)
        for arm in self.arms(options):
            yield PlannedRun(
                arm.label,
                lambda arm=arm: self.evaluated(arm, options, chosen["selection"]),  # type: ignore[misc]
                self._seconds(arm, options),
                arm.method or "",
            )

    def _seconds(self, arm: Arm, options: Options) -> float:
        alone = replace(options, methods=(arm.method,) if arm.method else (), train=False)
        return self.needs(alone).cost.forecast(options)

    def chosen(self, options: Options) -> float | None:
        """The share of views by which TPT is best on dev, over all rows; None: the filter's own."""
        if self.kind != "objects" or options.benchmark(self.kind) not in HAVE_DEV:
            return None
        dev = replace(options, split="dev", limit=max(1, self.limit(options) // 2))
        scores = {share: 0.0 for share in SELECTIONS}
        skipped = skipped_methods(options)
        for arm in [one for one in self.arms(options)[1:] if one.method not in skipped]:
            for share in SELECTIONS:
                first = self.evaluated(arm, dev, share, parts=1)
                scores[share] += first[0]["methods"]["tpt"]["accuracy"]["estimate"]
        return max(scores, key=lambda share: (scores[share], -share))

    def evaluated(
        self, arm: Arm, options: Options, selection: float | None, parts: int | None = None
    ) -> list[dict[str, Any]]:
        """Every way to answer, on each part; features and answers are kept in the store."""
        from hb_tta.tpt.evaluate import TptSettings, evaluate_classification, evaluate_few_shot

        settings = TptSettings(selection=selection, query_views=False, seed=options.seed)
        views = _features(arm, options, options.views or self.views)
        tasks = load(self.kind, options, self.limit(options))[:parts]
        evaluate = evaluate_classification if self.kind == "objects" else evaluate_few_shot
        told = False if options.quiet else None
        return [evaluate(task, views, settings, progress=told) for task in tasks]

    def show(self, results: Results, options: Options) -> Shown:
        """A row a way to answer and a method."""
        found = {a.label: results[a.label] for a in self.arms(options) if a.label in results}
        if REAL not in found:
            return Shown()
        table, tested, gains = self._table(found, results["selection"], options)
        own = own_trainings(self.training(), options)
        missing = untrained(own, options) if TUNED in found else []
        drawings = gains_of(f"Table {self.name.removeprefix('table')}, average", gains)
        return Shown([table], (), drawings, self._findings(tested), missing=missing)

    def _table(
        self, found: Mapping[str, list[dict[str, Any]]], selection: float | None, options: Options
    ) -> tuple[Table, dict[str, dict[str, Any]], dict[str, list[tuple[str, PairedTest | None]]]]:
        """The table; by rule and row its entries, and its gain over the real image alone."""
        tasks = [result["task"] for result in found[REAL]]
        by_rule: dict[str, dict[str, figures.Entries]] = {}
        for label, results in found.items():
            for result in results:
                for rule, entry in result["methods"].items():
                    row = by_rule.setdefault(rule, {}).setdefault(label, {})
                    row[result["task"]] = entry | {"samples": result["samples"]}
        base = by_rule[next(name for name in BASES if name in by_rule)][REAL]
        order = ["tpt", *(rule for rule in by_rule if rule not in ("tpt", "zero-shot"))]
        rows: list[list[Cell | str]] = []
        tested: dict[str, dict[str, Any]] = {}
        gains: dict[str, list[tuple[str, PairedTest | None]]] = {}
        for rule in order:
            for label, entries in by_rule[rule].items():
                its = base if label == REAL and rule == "tpt" else entries
                test = None if its is base else figures.gain(its, base, tasks)
                numbers = self.numbers if rule == "tpt" else {}
                rows.append([rule, label, *_row(its, test, tasks, numbers, label)])
                tested.setdefault(rule, {})[label] = its
                gains.setdefault(rule, []).append((label, test))
        table = Table(
            ["", "", *tasks, "average", f"gain over {REAL}", SHOWN],
            rows,
            f"Table {self.name.removeprefix('table')}. {self.title}",
            self._notes(found, selection, options),
            heads=2,
        )
        return table, tested, gains

    def _notes(self, found: Any, selection: float | None, options: Options) -> list[str]:
        one = found[REAL][0]
        share = "the filter's own share" if selection is None else f"{100 * selection:.0f} %"
        on_dev = "" if selection is None else ", chosen on dev"
        return [
            f"Ours: {options.family.name}, {one['samples']} samples of each part, "
            f"{options.views or self.views} generated views an image, of which and of the image "
            f"itself {share} are trusted{on_dev}; no crops. Top-1 accuracy, percent; {SHOWN_NOTE}"
        ]

    def _findings(self, tested: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
        rows = tested["tpt"]
        if TUNED not in rows:
            return []
        tasks = list(rows[TUNED])
        tests = [
            (f"against {label}", test)
            for label, its in rows.items()
            if label != TUNED and (test := figures.gain(rows[TUNED], its, tasks)) is not None
        ]
        claim = f"{self.name}: Hummingbird is best in {self.title.lower()}"
        return [Finding(claim, tests, about="tpt")]

    def experiment(self) -> Experiment:
        """As the registry has it."""
        source = f"Hummingbird, table {self.name.removeprefix('table')}"
        return Experiment(self.name, self.title, source, self.needs, self.plan, self.show)


def _row(
    entries: figures.Entries,
    test: PairedTest | None,
    tasks: Sequence[str],
    numbers: Numbers,
    label: str,
) -> list[Cell | str]:
    found: list[Cell | str] = []
    for place, task in enumerate(tasks):
        cell = figures.cell(entries.get(task), gains=False)
        note = paper_note(numbers, label, place)
        noted = "\n".join(filter(None, (note, cell.note))) if isinstance(cell, Cell) else ""
        found.append(replace(cell, note=noted) if isinstance(cell, Cell) else cell)
    average = figures.average(entries, tasks)
    note = paper_note(numbers, label, len(tasks))
    found.append(replace(average, note=note) if isinstance(average, Cell) else average)
    if test is None:
        return [*found, "", ""]
    return [*found, Cell.difference(test, REAL), could_have_shown(test)]


def _features(arm: Arm, options: Options, n: int) -> ViewFeatures:
    from hb_tta.store import open_store
    from hb_tta.tpt.views import ViewFeatures

    store = open_store(options.store)
    settings = arm.views(options, n)
    return ViewFeatures(
        _clip(options.family.weights("clip"), options.device),
        store,
        augmenter=None if settings is None else settings.augmenter(store=store),
        generated=0 if settings is None else n,
        seed=options.seed,
    )


@lru_cache(maxsize=1)
def _clip(weights: Weights, device: str | None) -> Clip:
    from hb_tta.tpt.models import load_clip

    return load_clip(weights, device=device)


TABLE_2 = Tuning(
    "table2", "Human-object relations by prompt tuning", "relations", 1, 16, 4, NUMBERS_2,
    "RandAugment",
).experiment()  # fmt: skip
TABLE_3 = Tuning(
    "table3", "Objects and their variants by prompt tuning", "objects", 4, 60, 8, NUMBERS_3, REAL
).experiment()
