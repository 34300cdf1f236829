"""What an experiment would lack, looked for before hours are spent: weights, data, packages.

Nothing is fetched and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hb_tta.datasets.questions import CATEGORIES, MORE, load_questions
from hb_tta.errors import UserError
from hb_tta.experiments.methods import methods_of, weights_of
from hb_tta.experiments.reproduction import Experiment, Needs, Options
from hb_tta.weights import Weights

NAMED = ("mumu",)
"""Roles that the command line fills."""


@dataclass(frozen=True)
class Missing:
    """Something that is not there.

    Attributes:
        what: it is.
        remedy: what to do about it.
        method: whose it is alone; "": the experiment cannot be run without it.
    """

    what: str
    remedy: str
    method: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def missing(experiment: Experiment, options: Options) -> list[Missing]:
    """What lacks, of the experiment and of each method.

    Raises:
        UserError: a method is unknown.
    """
    if experiment.unbuilt:
        return [Missing(experiment.name, experiment.unbuilt)]
    try:
        needs = experiment.needs(options)
    except UserError as error:
        if experiment.name and "there is no method" in str(error):
            raise
        return [Missing(experiment.name, str(error))]
    return [*_models(needs, options), *_methods(needs, options), *_data(needs, options),
            *_packages(needs)]  # fmt: skip


def _models(needs: Needs, options: Options) -> Iterator[Missing]:
    named = dict(needs.weights)
    for role in needs.roles:
        if role in options.family.roles:
            named[role] = options.family.weights(role)
        else:
            yield Missing(f"family {options.family.name} has no {role}", _remedy(role))
    for name, weights in named.items():
        if lacks := lack(weights):
            yield Missing(f"the {name}, {weights.location}", lacks)


def _remedy(role: str) -> str:
    named = f"--{role} DIR" if role in NAMED else "name one"
    return f"take another family, or {named}"


def _methods(needs: Needs, options: Options) -> Iterator[Missing]:
    for method in needs.methods:
        try:
            found = weights_of(method, options)
        except UserError as error:
            yield Missing(method, str(error), method)
            continue
        for name, weights in found.items():
            if lacks := lack(weights):
                yield Missing(f"{method}'s {name}, {weights.location}", lacks, method)


def skipped_methods(options: Options) -> set[str]:
    """Those of the rows whose weights are missing, where they may be left out."""
    if not options.skip_missing:
        return set()
    return {one.method for one in _methods(Needs(methods=tuple(methods_of(options))), options)}


def lack(weights: Weights) -> str:
    """What to do about weights that are not on this machine; "" of those that are."""
    try:
        if weights.is_folder():
            return "" if _has_model(Path(weights.local_folder())) else "the folder holds no model"
    except UserError as error:
        return str(error)
    snapshot = _snapshot(weights)
    if snapshot is not None and _has_model(snapshot / (weights.subfolder or "")):
        return ""
    return f"`hb-tta download {weights.location}`, or name a folder"


def _snapshot(weights: Weights) -> Path | None:
    from huggingface_hub import errors, snapshot_download

    try:
        revision = weights.revision or "main"
        return Path(snapshot_download(weights.location, revision=revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        return None


def _has_model(folder: Path) -> bool:
    return any(folder.rglob("*.safetensors"))


def _data(needs: Needs, options: Options) -> Iterator[Missing]:
    for kind in needs.data:
        try:
            if kind in ("questions", "more questions"):
                _look_at_questions(kind, options)
            elif kind == "prompts":
                _look_at_prompts(options)
            else:
                _look_at_tasks(kind, options)
        except UserError as error:
            yield Missing(f"the {kind} of {options.family.name}", str(error))


def _look_at_questions(kind: str, options: Options) -> None:
    name = options.benchmark("questions")
    categories = CATEGORIES if kind == "questions" else tuple(MORE[name].values())
    load_questions(name, categories, data=options.data.get(name), split=options.split, limit=1)


def _look_at_prompts(options: Options) -> None:
    from hb_tta.experiments.paper.mumu_prompts import prompts_of

    prompts_of(options, "words", 1)


def _look_at_tasks(kind: str, options: Options) -> None:
    from hb_tta.experiments.paper.tuning import load

    load(kind, options, limit=1)


def _packages(needs: Needs) -> Iterator[Missing]:
    for package, line in needs.also.items():
        if find_spec(package) is None:
            yield Missing(f"the package {package}", line)
