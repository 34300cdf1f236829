"""The kinds of training: which class of settings is of which."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hb_tta.training.progress import Console
from hb_tta.training.run import RunFolder
from hb_tta.training.settings import Common
from hb_tta.training.trained import Trained

KINDS = {
    "Settings": "hb_tta.training.rewarded:RewardTraining",
    "MumuSettings": "hb_tta.training.mumu.training:MumuTraining",
}
"""Class of settings → the training that they are of."""

ESTIMATES = {
    "Settings": "hb_tta.training.estimate:estimate",
    "MumuSettings": "hb_tta.training.mumu.estimate:estimate",
}
"""Class of settings → what such a training would take."""


def prepare(
    settings: Common, run: RunFolder, accelerator: Accelerator, console: Console
) -> Trained:
    """The training that settings are of, its models loaded.

    Raises:
        UserError: the data or the weights cannot be used, or the folder holds another run.
    """
    return _named(KINDS, settings)(settings, run, accelerator, console)


def estimate(settings: Common, out: Path | None = None) -> dict[str, Any]:
    """What a training would take, as plain JSON: no weights, no data needed.

    Args:
        settings: of a recipe.
        out: a run's folder; if it holds steps of this training, their speed counts.

    Raises:
        UserError: the models' sizes cannot be known.
    """
    return _named(ESTIMATES, settings)(settings, out)


def _named(places: dict[str, str], settings: Common) -> Any:
    module, _, name = places[type(settings).__name__].partition(":")
    return getattr(import_module(module), name)
