"""LoRAs that tables compare: trained by a recipe with some changes, and kept with the results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.disk import write_aside
from hb_tta.experiments.methods import LABELS, REAL, Arm, methods_of
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import Cost, Options
from hb_tta.store import content_key

if TYPE_CHECKING:
    from hb_tta.training.recipes import Settings
    from hb_tta.weights import Weights

QUICK = (
    *("max_steps=20", "decay_steps=20", "warmup_steps=2", "samples=320", "held_out=32"),
    *("evaluate_steps=20", "save_steps=10", "evaluate_seeds=2", "sample_contexts=2"),
)
"""Of a quick run: enough to run through, too little to learn much."""
QUICK_SHARE, MUMU_SHARE = 0.1, 0.01  # of a whole training's time
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
        data = self._data(recipe.data, options)
        named = () if data is None else (f"data={data}", f"data_format={recipe.data}")
        mllm = () if self.describer == "mllm" else (self._mllm(options),)
        asked = [one for one in options.training if is_setting(one, type(recipe))]
        return with_changes(recipe, [*family, *quick, *named, *mllm, *self.changes, *asked])

    def _data(self, name: str | None, options: Options) -> str | None:
        """Where it is trained: of objects never where the table's test images lie."""
        own = options.data.get(f"{self.kind} training")
        return own if own is not None or self.kind == "objects" else options.data.get(name or "")

    def _mllm(self, options: Options) -> str:
        return f"mllm={options.family.weights(self.describer).location}"

    def folder(self, options: Options) -> Path:
        """Where it is trained: one folder for equal settings and equal models."""
        from hb_tta.training.recipes import to_json

        decided_by = {
            "training": to_json(self.settings(options)),
            "models": {role: _named(options.family.weights(role)) for role in self._loads(options)},
        }
        key = content_key(decided_by)[:8]
        name = "".join(c if c.isalnum() else "_" for c in self.label.lower())
        return options.folder / "trainings" / f"{name}-{key}"

    def _loads(self, options: Options) -> list[str]:
        """Roles of the family that it is trained with."""
        rewarded = ("image_encoder", "clip", "evaluator", self.describer)
        roles = ("generator", *(("mllm_two",) if self.kind == "mumu" else rewarded))
        return [role for role in roles if role in options.family.roles]

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


def _named(weights: Weights) -> str:
    """Weights by their content, where they are on this machine."""
    return weights.fingerprint() if weights.is_here() else weights.location


def is_setting(change: str, kind: type) -> bool:
    """Whether a text ``key=value`` changes a setting of a kind of training."""
    from hb_tta.training.settings import hints

    return change.partition("=")[0].strip().partition(".")[0] in hints(kind)


def check_changes(options: Options) -> None:
    """Refuse ``--train-set`` where no training of the family has the setting.

    Raises:
        UserError: so it is.
    """
    from hb_tta.training.recipes import get_recipe, with_changes

    recipes = [get_recipe(name) for name in options.family.recipes.values()]
    for recipe in recipes:
        with_changes(recipe, [one for one in options.training if is_setting(one, type(recipe))])
    nobodys = [
        one for one in options.training if not any(is_setting(one, type(r)) for r in recipes)
    ]
    with_changes(recipes[0], nobodys)  # which refuses them


def tuned(label: str, role: str = "mllm", *changes: str) -> Training:
    """On descriptions by an MLLM, as it writes them of a question and its answer.

    Args:
        role: of the MLLM; its name is in the label where it is not the first.
    """
    name = label if role == "mllm" else f"{label}, {role}"
    return Training(name, changes=("prompt=task", *changes), describer=role)


def own_trainings(training: Training, options: Options) -> list[Training]:
    """A benchmark's own LoRA, where Hummingbird is asked for and nobody names another."""
    wanted = "hummingbird" in methods_of(options) and "lora" not in options.settings
    return [training] if wanted else []


def by_own_lora(training: Training, options: Options) -> list[Arm]:
    """The real image alone, then a row a method; Hummingbird by its benchmark's LoRA."""
    lora = next((one.lora(options) for one in own_trainings(training, options)), None)
    own = () if lora is None else (("lora", str(lora)),)
    rows = [
        Arm(LABELS.get(name, name), name, own if name == "hummingbird" else ())
        for name in methods_of(options)
    ]
    return [Arm(REAL), *rows]


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
    lacking = [one for one in trainings if options.train and one.lora(options) is None]
    mumus = sum(one.kind == "mumu" for one in lacking)
    loras = len(lacking) - mumus
    if not options.quick:
        return Cost(trainings=loras, mumu_trainings=mumus)
    seconds = QUICK_SHARE * options.seconds("trainings") * loras
    return Cost(minutes=(seconds + MUMU_SHARE * options.seconds("mumu_trainings") * mumus) / 60)
