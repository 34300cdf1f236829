"""Weights that are not on this machine, and the methods that are left out for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hb_tta.errors import UserError
from hb_tta.experiments.methods import methods_of, weights_of
from hb_tta.experiments.reproduction import Options
from hb_tta.weights import Weights


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


def lacking_methods(methods: Iterable[str], options: Options) -> Iterator[Missing]:
    """What lacks of methods' weights."""
    for method in methods:
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
    return {one.method for one in lacking_methods(methods_of(options), options)}


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
