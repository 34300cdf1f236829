"""Every table and figure by the name that is typed."""

from __future__ import annotations

import importlib
from functools import cache

from hb_tta.errors import UserError, choose_from
from hb_tta.experiments.reproduction import Experiment

_PAPER = "hb_tta.experiments.paper"

EXPERIMENTS = {
    "table1": f"{_PAPER}.mme:TABLE_1",
    "table2": f"{_PAPER}.tuning:TABLE_2",
    "table3": f"{_PAPER}.tuning:TABLE_3",
    "table4": f"{_PAPER}.spread:TABLE_4",
    "table5": f"{_PAPER}.trained:TABLE_5",
    "table6": f"{_PAPER}.trained:TABLE_6",
    "table7": f"{_PAPER}.trained:TABLE_7",
    "table8": f"{_PAPER}.mme:TABLE_8",
    "table9": f"{_PAPER}.spread:TABLE_9",
    "table10": f"{_PAPER}.table10:EXPERIMENT",
    "table11": f"{_PAPER}.table11:EXPERIMENT",
    "table12": f"{_PAPER}.fidelity:TABLE_12",
    "figure1g": f"{_PAPER}.fidelity:FIGURE_1G",
    "figure4": f"{_PAPER}.pictures:FIGURE_4",
    "figure5": f"{_PAPER}.pictures:FIGURE_5",
    "figure6": f"{_PAPER}.pictures:FIGURE_6",
    "figure7": f"{_PAPER}.pictures:FIGURE_7",
    "figure10": f"{_PAPER}.pictures:FIGURE_10",
    "figure11": f"{_PAPER}.pictures:FIGURE_11",
    "figure12": f"{_PAPER}.pictures:FIGURE_12",
    "figure13": f"{_PAPER}.pictures:FIGURE_13",
    "figure14": f"{_PAPER}.table10:FIGURE_14",
    "figure15": f"{_PAPER}.spread:FIGURE_15",
    "figure16": f"{_PAPER}.curves:FIGURE_16",
    "figure17": f"{_PAPER}.pictures:FIGURE_17",
    "figure18": f"{_PAPER}.pictures:FIGURE_18",
    **{f"mumu{n}": f"{_PAPER}.mumu:FIGURE_{n}" for n in (1, *range(4, 13))},
}
"""Name → "module:attribute". A test may put a name in and take it out again."""

SITE = "site"
"""All of them as one folder of pages."""


def list_experiments() -> list[str]:
    """The names that ``get_experiment`` knows, in the papers' order."""
    return list(EXPERIMENTS)


@cache
def _load(place: str) -> Experiment:
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)


def get_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UserError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UserError(
            f"there is no table or figure {name!r}{choose_from(name, [*EXPERIMENTS, SITE])}"
        )
    return _load(EXPERIMENTS[name])
