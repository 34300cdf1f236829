"""The folder of a training: its settings, its metrics and its bad rows.

Every file is whole or absent, and the checkpoint is one file, so a process that is killed at any
moment leaves the last good state; what was logged after it is dropped when the run goes on.

    adapter_config.json, adapter_model.safetensors   the last LoRA, in PEFT's format
    best/                                            the one with the best held-out reward
    checkpoint.safetensors                           see checkpoints.py: where the run goes on
    run.json, metrics.jsonl, bad_records.jsonl       settings; a line a step or evaluation; bad rows
    samples/, convergence.png, tensorboard/hb-tta/   to look at
    .cache/                                          descriptions and embeddings; may be deleted
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.reading import read_bytes
from hb_tta.training.checkpoints import CHECKPOINT
from hb_tta.training.logged import read_rows, read_settings
from hb_tta.training.settings import Common, to_json

ADAPTER = "adapter_model.safetensors"
CACHE = ".cache"  # hidden: what lies there is no part of the LoRA's fingerprint
SETTINGS, METRICS, BAD = "run.json", "metrics.jsonl", "bad_records.jsonl"


class RunFolder:
    """A folder that holds one training.

    Args:
        folder: made as needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: list[dict[str, Any]] = []

    def claim(self, settings: Common, models: dict[str, Any]) -> None:
        """Writes what the run is: from here on the folder is this run's alone.

        Args:
            models: fingerprints of what the run trains on and with.
        """
        now = {"settings": to_json(settings), "models": models}
        write_aside(self.folder / SETTINGS, (json.dumps(now, indent=2) + "\n").encode())

    def check_settings(self, settings: Common, models: dict[str, Any]) -> None:
        """That the folder holds no other run; settings that are ``free`` may differ.

        A run that ended before its first checkpoint left nothing to lose, and claims nothing.

        Args:
            models: see ``claim``.

        Raises:
            UserError: it does.
        """
        path = self.folder / SETTINGS
        now = {"settings": to_json(settings), "models": models}
        began = any((self.folder / name).exists() for name in (CHECKPOINT, ADAPTER))
        if path.exists() and began:
            old = read_settings(path)
            for key, value in now["settings"].items():
                if key not in settings.free and old["settings"].get(key) != value:
                    raise UserError(
                        f"{self.folder} holds a run with {key}={old['settings'].get(key)!r}, now "
                        f"it is {value!r}: give another --out, or the same settings"
                    )
            for key, value in models.items():
                if old["models"].get(key) != value:
                    raise UserError(
                        f"{self.folder} holds a run with a different {key}: its content has "
                        "changed since; give another --out, or what it began with"
                    )

    def load_metrics(self, step: int) -> None:
        """Reads the lines up to a step and drops the later ones; none at all before the first."""
        path = self.folder / METRICS
        rows, damaged = read_rows(path)
        if damaged > 1:  # one is the last line of a killed process
            kept = path.with_name(f"{path.name}.damaged")
            write_aside(kept, read_bytes(path))
            warnings.warn(
                f"{path}: damaged lines, which are left out: {damaged}; the file as it was is now "
                f"{kept.name}",
                HbTtaWarning,
                stacklevel=2,
            )
        self.metrics = [row for row in rows if step and row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in self.metrics)
        write_aside(path, text.encode())

    def log(self, row: dict[str, Any]) -> None:
        """Adds a line to the metrics."""
        self.metrics.append(row)
        with open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def evaluations(self) -> list[dict[str, Any]]:
        """The held-out rows so far."""
        return [row for row in self.metrics if "held_out" in row]

    def list_bad(self, reasons: Iterable[str]) -> None:
        """Writes the list of rows that could not be used."""
        text = "".join(json.dumps({"reason": reason}) + "\n" for reason in reasons)
        write_aside(self.folder / BAD, text.encode())
