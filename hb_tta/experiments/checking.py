"""What an experiment would lack, looked for before hours are spent: weights, data, packages.

Nothing is fetched and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from hb_tta.datasets.questions import CATEGORIES, MORE, load_questions
from hb_tta.errors import UserError
from hb_tta.experiments.lacking import Missing, lack, lacking_methods
from hb_tta.experiments.reproduction import Experiment, Needs, Options

NAMED = ("mumu",)
"""Roles that the command line fills."""


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
    return [
        *_models(needs, options),
        *lacking_methods(needs.methods, options),
        *_data(needs, options),
        *_packages(needs),
    ]


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
