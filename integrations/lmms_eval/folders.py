"""Where lmms-eval and our plugin put the files of a run.

<output_path>/<model>/<date>_samples_<task>.jsonl     a line a question (--log_samples)
<output_path>/<model>/<date>_results.json             the run's settings; may be missing
<output_path>/hb_tta/<run_name>/<task>.jsonl          what each view said; images/ beside it
<output_path>/hb_tta/<run_name>/settings.json         what --augment and --augment_args were
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.lines import read_object

PLUGIN_FOLDER = "hb_tta"
SETTINGS_FILE = "settings.json"
_MARK = "_samples_"

# What a results file is relied on for, and the kinds of value that it may have.
_SHAPE: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "config/model": (str,),
    "config/model_args": (str, dict),
    "config/limit": (int, float, str),
    "config/offset": (int, float, str),
    "config/device": (str,),
    "model_name_sanitized": (str,),
    "model_name": (str,),
    "results": (dict,),
    "configs": (dict,),
    "higher_is_better": (dict,),
}


def run_name(model_args: str) -> str:
    """The name of a run's folder: a hash of the ``model_args`` that its results file has."""
    return hashlib.sha256(model_args.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SamplesFile:
    """A samples file and what lies around it.

    Attributes:
        path: of the samples file.
    """

    path: Path

    @property
    def date(self) -> str:
        """When the run was; runs of one model sort by it."""
        return self.path.name.partition(_MARK)[0]

    @property
    def task(self) -> str:
        """The task's name."""
        return self.path.stem.partition(_MARK)[2] or self.path.stem

    @cached_property
    def results(self) -> dict[str, Any]:
        """The results file, its shape checked; {} where there is none.

        Raises:
            UserError: it is damaged.
        """
        path = self.path.with_name(f"{self.date}_results.json")
        if not path.is_file():
            return {}
        found = read_object(path)
        for name, kinds in _SHAPE.items():
            *outer, inner = name.split("/")
            around = found
            for one in outer:
                around = around.get(one) or {}
            if not isinstance(around.get(inner), (*kinds, type(None))):
                kind = type(around[inner]).__name__
                raise UserError(f"{path} is damaged ({name} is of type {kind}): evaluate again")
        return found

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings; {} where they are not known."""
        return self.results.get("config") or {}

    @property
    def model(self) -> str | None:
        """The answering model's name."""
        return self.results.get("model_name_sanitized") or self.results.get("model_name")

    @property
    def augment_settings(self) -> dict[str, Any] | None:
        """The method and its ``--augment_args``; None where they are not known."""
        if not isinstance(self.config.get("model_args"), str):
            return None
        for folder in self.plugin_folders():
            try:
                found = read_object(folder / SETTINGS_FILE)
            except UserError:
                continue
            if isinstance(found.get("method"), str):
                return found
        return None

    # What the results file says of the task.

    @property
    def aggregates(self) -> dict[str, Any]:
        """lmms-eval's own figures: "metric,filter" → number."""
        return self._of_task("results")

    @property
    def metrics(self) -> list[str]:
        """The metrics that the task declares, in its order."""
        listed = self._settings.get("metric_list")
        about = listed if isinstance(listed, list) else []
        names = [one.get("metric") for one in about if isinstance(one, dict)]
        return [name for name in names if isinstance(name, str)]

    @property
    def filters(self) -> list[str]:
        """The names of the filters of an answer; each gives every question a line of its own."""
        listed = self._settings.get("filter_list")
        about = listed if isinstance(listed, list) else []
        names = [one.get("name") for one in about if isinstance(one, dict)]
        return [name for name in names if isinstance(name, str)] or ["none"]

    @property
    def score_key(self) -> str:
        """Where a metric that is a dictionary has its number."""
        found = self._settings.get("score_key")
        return found if isinstance(found, str) else "score"

    @property
    def cluster_key(self) -> str | None:
        """Where it has what questions share, in tasks that say so."""
        found = self._settings.get("cluster_key")
        return found if isinstance(found, str) else None

    def is_lower_better(self, metric: str) -> bool:
        """Whether the task says so of a metric."""
        return self._of_task("higher_is_better").get(metric) is False

    @property
    def _settings(self) -> dict[str, Any]:
        return self._of_task("configs")

    def _of_task(self, part: str) -> dict[str, Any]:
        found = (self.results.get(part) or {}).get(self.task)
        return found if isinstance(found, dict) else {}

    def plugin_folders(self) -> list[Path]:
        """The plugin's folders of this run; where its settings are not known, those of all runs."""
        parents = (self.path.parent.parent, self.path.parent)
        roots = [parent / PLUGIN_FOLDER for parent in parents]
        arguments = self.config.get("model_args")
        if isinstance(arguments, str):
            return [root / run_name(arguments) for root in roots]
        return [folder for root in roots if root.is_dir() for folder in sorted(root.iterdir())]


def find_samples(sources: list[str]) -> Iterator[SamplesFile]:
    """Every samples file in the folders and among the files that a person names, once each.

    Raises:
        UserError: there is none, or no such folder.
    """
    seen: set[Path] = set()
    for source in sources:
        for path in _samples_of(Path(source)):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield SamplesFile(path)


def _samples_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source} is no folder: give what stood behind lmms-eval's --output_path")
    found = sorted(path for path in source.rglob(f"*{_MARK}*.jsonl") if path.is_file())
    if not found:
        raise UserError(f"{source} holds no samples file: evaluate with lmms-eval's --log_samples")
    return found
