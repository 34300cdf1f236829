"""Where lmms-eval and our plugin put the files of a run.

<output_path>/<model>/<date>_samples_<task>.jsonl     a line a question (--log_samples)
<output_path>/<model>/<date>_results.json             the run's settings; may be missing
<output_path>/hb_tta/<run_name>/<task>.jsonl          what each view said; images/ beside it
<output_path>/hb_tta/<run_name>/settings.json         what --augment and --augment_args were
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError

PLUGIN_FOLDER = "hb_tta"
SETTINGS_FILE = "settings.json"
_MARK = "_samples_"


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
        """The results file; {} where there is none.

        Raises:
            UserError: it is damaged.
        """
        path = self.path.with_name(f"{self.date}_results.json")
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): evaluate again") from error
        return found if isinstance(found, dict) else {}

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
                found = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and isinstance(found.get("method"), str):
                return found
        return None

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
    found = sorted(source.rglob(f"*{_MARK}*.jsonl"))
    if not found:
        raise UserError(f"{source} holds no samples file: evaluate with lmms-eval's --log_samples")
    return found
