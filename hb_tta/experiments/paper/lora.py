"""LoRAs that tables compare: trained by a recipe with some changes, and kept with the results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.disk import write_aside
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Cost, Options
from hb_tta.store import content_key

if TYPE_CHECKING:
    from hb_tta.training.recipes import Settings

QUICK = (
    *("max_steps=20", "decay_steps=20", "warmup_steps=2", "samples=320", "held_out=32"),
    *("evaluate_steps=20", "save_steps=10", "evaluate_seeds=2", "sample_contexts=2"),
)
"""Of a quick run: enough to run through, too little to learn much."""
QUICK_SHARE = 0.1  # of a whole training's time
DONE = "done.json"


@dataclass(frozen=True)
class Training:
    """A LoRA.

    Attributes:
        label: of the row.
        kind: of benchmark: the family has a recipe for each.
        changes: ``key=value`` on the recipe.
        describer: the role of who describes the data.
        quick_changes: of a quick run.
    """

    label: str
    kind: str = "questions"
    changes: tuple[str, ...] = ()
    describer: str = "mllm"
    quick_changes: tuple[str, ...] = QUICK

    def settings(self, options: Options) -> Settings:
        """Of the training.

        Raises:
            UserError: a setting is none, or a value is not of its kind.
        """
        from hb_tta.training.recipes import get_recipe, with_changes

        recipe = get_recipe(options.family.recipes[self.kind])
        quick = self.quick_changes if options.quick else ()
        family = (f"family={options.family.name}",)
        data = options.data.get(f"{self.kind} training") or options.data.get(recipe.data)
        named = () if data is None else (f"data={data}", f"data_format={recipe.data}")
        mllm = () if self.describer == "mllm" else (self._mllm(options),)
        return with_changes(
            recipe, [*family, *quick, *named, *mllm, *self.changes, *options.training]
        )

    def _mllm(self, options: Options) -> str:
        return f"mllm={options.family.weights(self.describer).location}"

    def folder(self, options: Options) -> Path:
        """Where it is trained: one folder for equal settings."""
        from hb_tta.training.recipes import to_json

        key = content_key({"training": to_json(self.settings(options))})[:8]
        name = "".join(c if c.isalnum() else "_" for c in self.label.lower())
        return options.folder / "trainings" / f"{name}-{key}"

    def lora(self, options: Options) -> Path | None:
        """The LoRA with the best held-out rewards; None until it is trained."""
        folder = self.folder(options)
        if not (folder / DONE).exists():
            return None
        return folder / "best" if (folder / "best").is_dir() else folder

    def train(self, options: Options) -> dict[str, Any]:
        """What the training says at its end; one that was stopped goes on."""
        folder = self.folder(options)
        if (folder / DONE).exists():
            return json.loads((folder / DONE).read_text())
        from hb_tta.training.train import train

        result = train(self.settings(options), folder, quiet=options.quiet)
        told = {name: result[name] for name in ("step", "ended", "first", "last")}
        write_aside(folder / DONE, json.dumps(told, default=str).encode())
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        return told


def tuned(label: str, role: str = "mllm", *changes: str) -> Training:
    """On descriptions by an MLLM, as it writes them of a question and its answer.

    Args:
        role: of the MLLM; its name is in the label where it is not the first.
    """
    name = label if role == "mllm" else f"{label}, {role}"
    return Training(name, changes=("prompt=task", *changes), describer=role)


def with_short_trainings(options: Options) -> Options:
    """A quick run trains where that is a matter of minutes; whole trainings are asked for."""
    each = QUICK_SHARE * options.seconds("trainings")
    return replace(options, train=options.train or (options.quick and 0 < each < 1800))


def trainings_of(trainings: Sequence[Training], options: Options) -> Iterator[PlannedRun]:
    """A run each, of those that are there or may be made."""
    for one in trainings:
        if options.train or one.lora(options) is not None:
            seconds = cost_of([one], options).forecast(options)
            yield PlannedRun(
                f"training {one.label}",
                lambda one=one: one.train(options),  # type: ignore[misc]
                seconds,
            )


def untrained(trainings: Sequence[Training], options: Options) -> list[str]:
    """A sentence for those that are not there and may not be made."""
    lacking = [one.label for one in trainings if one.lora(options) is None]
    if not lacking or options.train:
        return []
    return [f"not trained yet: {', '.join(lacking)}; give --train"]


def cost_of(trainings: Sequence[Training], options: Options) -> Cost:
    """Of those that are not there; nothing where they may not be made."""
    count = sum(one.lora(options) is None for one in trainings) if options.train else 0
    if not options.quick:
        return Cost(trainings=count)
    return Cost(minutes=count * QUICK_SHARE * options.seconds("trainings") / 60)
