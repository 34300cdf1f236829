"""Tables 5, 6 and 7: what the rewards, the prompt template and the evaluator bring in training.

Each row is a LoRA that was trained in that way, shown to MME's questions as in table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hb_tta.experiments.methods import Arm
from hb_tta.experiments.numbers import TABLE_5 as NUMBERS_5
from hb_tta.experiments.numbers import TABLE_6 as NUMBERS_6
from hb_tta.experiments.numbers import TABLE_7 as NUMBERS_7
from hb_tta.experiments.numbers import Numbers
from hb_tta.experiments.paper.lora import Training, cost_of, trainings_of, tuned, untrained
from hb_tta.experiments.paper.mme import Asked, accuracy_gains, asked_by, mme_table, test_between
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Experiment, Finding, Needs, Options, Results, Shown
from hb_tta.report.scores import Scored
from hb_tta.weights import Weights

NONE = "none"


@dataclass(frozen=True)
class Row:
    """A training, and how its views are described.

    Attributes:
        training: None: the generator as it is.
        describer: its role.
        generic: whether descriptions are captions of everything.
    """

    label: str
    training: Training | None
    describer: str = "mllm"
    generic: bool = False

    def arm(self, options: Options) -> Arm | None:
        """Its views; None until it is trained."""
        lora = None if self.training is None else self.training.lora(options)
        if self.training is not None and lora is None:
            return None
        describer = options.family.weights(self.describer).location
        settings = (("lora", None if lora is None else str(lora)), ("describer", describer))
        return Arm(self.label, "hummingbird", settings, self.generic)


@dataclass(frozen=True)
class Ablation:
    """A table of trainings.

    Attributes:
        rows: of a family's describers (roles): describer → rows, the base last.
        numbers: the paper's.
        mllms: how many of the family's MLLMs answer, a block each.
        claims: (what is claimed, the row that is better, the one that is worse, what about).
    """

    name: str
    title: str
    rows: Callable[[list[str]], Mapping[str, list[Row]]]
    numbers: Mapping[str, Numbers]
    claims: tuple[tuple[str, str, str, str], ...]
    mllms: int = 1

    def of(self, options: Options) -> Mapping[str, list[Row]]:
        """The rows by describer."""
        roles = [role for role in ("mllm", "mllm_two") if role in options.family.roles]
        return self.rows(roles)

    def trainings(self, options: Options) -> list[Training]:
        """Each once."""
        its = [row.training for rows in self.of(options).values() for row in rows]
        return list(dict.fromkeys(one for one in its if one is not None))

    def asked(self, describer: str, options: Options) -> Asked:
        """Those arms whose LoRAs are there."""
        arms = [row.arm(options) for row in self.of(options)[describer]]
        trained = [arm for arm in arms if arm is not None]
        return asked_by(options, trained, mllms=self.mllms, full=60, quick=8)

    def needs(self, options: Options) -> Needs:
        """The trainings, and the answers to their views."""
        trainings = self.trainings(options)
        cost = cost_of(trainings, options)
        answer: dict[str, Weights] = {}
        for describer, rows in self.of(options).items():
            its = self.asked(describer, options)
            all_rows = asked_by(options, [Arm(row.label, "hummingbird") for row in rows])
            answer.update(its.mllms)
            cost += Asked(all_rows.arms, its.mllms, its.full, its.quick, its.categories).cost(
                options
            )
        roles = tuple(dict.fromkeys(["evaluator", "clip", *self.of(options)]))
        return Needs(
            roles=roles, methods=("hummingbird",), data=("questions",), cost=cost, weights=answer
        )

    def plan(self, options: Options) -> Iterator[PlannedRun]:
        """The trainings, then each describer's arms as they are trained."""
        yield from trainings_of(self.trainings(options), options)
        for describer in self.of(options):
            for run in self.asked(describer, options).plan(options):
                yield PlannedRun(f"{describer}: {run.name}", run.do, run.seconds, run.needs)

    def show(self, results: Results, options: Options) -> Shown:
        """A row a training, in blocks by describer and by who answers."""
        scored: dict[str, list[Scored]] = {}
        describers = list(self.of(options))
        for describer in describers:
            start = f"{describer}: "
            own = {n[len(start) :]: its for n, its in results.items() if n.startswith(start)}
            by_mllm = self.asked(describer, options).scored(own, options)
            for mllm, one in by_mllm.items():
                # Who describes and who answers are said where there are several.
                named = [describer] * (len(describers) > 1) + [mllm] * (len(by_mllm) > 1)
                scored[", answers by ".join(named) or mllm] = one
        findings = [f for block, its in scored.items() for f in self._findings(block, its)]
        missing = untrained(self.trainings(options), options)
        if not scored:
            return Shown(missing=missing)
        its = self.asked(describers[0], options)
        number = f"Table {self.name.removeprefix('table')}"
        table = mme_table(scored, self.numbers, its, options, f"{number}. {self.title}")
        drawings = accuracy_gains(number, scored)
        return Shown([table], drawings=drawings, findings=findings, missing=missing)

    def _findings(self, block: str, scored: list[Scored]) -> list[Finding]:
        by_label = {one.run.name: one for one in scored}
        found = []
        for claim, better, worse, about in self.claims:
            lacks = [name for name in (better, worse) if name not in by_label]
            test = None if lacks else test_between(by_label[better], by_label[worse])
            told = f"table {self.name.removeprefix('table')}, {block}: {claim}"
            tests = [] if test is None else [(f"{better} − {worse}", test)]
            reason = f"{' and '.join(lacks)}: not trained" if lacks else ""
            found.append(Finding(told, tests, reason, about=about))
        return found

    def experiment(self) -> Experiment:
        """As the registry has it."""
        source = f"Hummingbird, table {self.name.removeprefix('table')}"
        return Experiment(self.name, self.title, source, self.needs, self.plan, self.show)


def _rewards(roles: list[str]) -> dict[str, list[Row]]:
    return {
        role: [
            Row("both", tuned("both rewards", role), role),
            Row("global alone", tuned("global alone", role, "rewards.fine_grained=0"), role),
            Row("fine-grained alone", tuned("fine alone", role, "rewards.global=0"), role),
            Row(NONE, None, role),
        ]
        for role in roles
    }


def _prompts(roles: list[str]) -> dict[str, list[Row]]:
    generic = Training("generic prompt", changes=("prompt=generic",))
    return {
        "mllm": [
            Row("designed prompt", tuned("both rewards")),
            Row("generic prompt", generic, generic=True),
        ]
    }


def _evaluators(roles: list[str]) -> dict[str, list[Row]]:
    clip = tuned("CLIP evaluator", "mllm", "judge=none", "rewards=clip_text:1")
    return {"mllm": [Row("BLIP-2 evaluator", tuned("both rewards")), Row("CLIP evaluator", clip)]}


TABLE_5 = Ablation(
    "table5",
    "Ablation of the rewards and of the describer",
    _rewards,
    NUMBERS_5,
    (
        ("tuning helps", "both", NONE, "tuning"),
        ("the fine-grained reward helps", "both", "global alone", "rewards"),
        ("the global reward helps", "both", "fine-grained alone", "rewards"),
    ),
).experiment()
TABLE_6 = Ablation(
    "table6",
    "The designed prompt template beside a generic one, in training and evaluation",
    _prompts,
    NUMBERS_6,
    (("the designed prompt is better", "designed prompt", "generic prompt", "prompt"),),
    mllms=2,
).experiment()
TABLE_7 = Ablation(
    "table7",
    "BLIP-2 as the evaluator of the training beside CLIP",
    _evaluators,
    NUMBERS_7,
    (("BLIP-2's rewards are better", "BLIP-2 evaluator", "CLIP evaluator", "evaluator"),),
    mllms=2,
).experiment()
