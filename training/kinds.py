"""The kinds of training: which class of settings is of which."""

from __future__ import annotations

from importlib import import_module

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


def prepare(
    settings: Common, run: RunFolder, accelerator: Accelerator, console: Console
) -> Trained:
    """The training that settings are of, its models loaded.

    Raises:
        UserError: the data or the weights cannot be used, or the folder holds another run.
    """
    module, _, name = KINDS[type(settings).__name__].partition(":")
    return getattr(import_module(module), name)(settings, run, accelerator, console)
