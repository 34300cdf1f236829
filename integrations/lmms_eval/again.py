"""The command line that a run of lmms-eval was started with, as far as its files tell."""

from __future__ import annotations

import re
import shlex
from typing import Any

from hb_tta import spelling
from hb_tta.integrations.lmms_eval.folders import SamplesFile

_OURS = re.compile(r"(?:^|,)hb_(\w+)=([^,]*)")
_NOT_FLAGS = ("method", "augment", "spec", "shard")


def augment_settings(model_args: str) -> dict[str, str]:
    """What ``--augment`` and ``--augment_args`` put into lmms-eval's ``model_args``."""
    return dict(_OURS.findall(model_args))


def without_ours(model_args: str) -> str:
    """The answering model's own part of ``model_args``."""
    return _OURS.sub("", model_args).removeprefix(",")


def making_again(file: SamplesFile, store: str | None) -> str | None:
    """The command that evaluates again, which makes the views that the store lacks.

    None where the results file, which has the settings, is missing.
    """
    config = file.config
    arguments = str(config.get("model_args") or "")
    ours = augment_settings(arguments)
    if not ours:
        return None
    settings: dict[str, Any] = file.augment_settings or {"method": ours["augment"], **ours}
    # What older runs did not say was as the paper's preset has it.
    given = {"preset": "paper"} | {k: it for k, it in settings.items() if k not in _NOT_FLAGS}
    if store is not None:
        given["store"] = store
    parts = ["lmms-eval", "--model", str(config.get("model")), "--tasks", file.task]
    if own := without_ours(arguments):
        parts += ["--model_args", own]
    for name in ("limit", "offset", "device"):
        if config.get(name):
            parts += [f"--{name}", _written(config[name])]
    parts += ["--augment", settings["method"], spelling.ARGS, spelling.written(given)]
    return shlex.join([*parts, "--log_samples", "--output_path", str(file.path.parent.parent)])


def _written(value: object) -> str:
    """A limit of 40 questions is 40.0 in lmms-eval's files, and a share of them below 1."""
    whole = isinstance(value, float) and value.is_integer() and value >= 1
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]
