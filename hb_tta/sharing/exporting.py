"""A store → a folder of shards with a card, to be put wherever data sets are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.errors import UserError, choose_from
from hb_tta.families import get_family, list_families
from hb_tta.sharing import card
from hb_tta.sharing.entries import FORMAT, INDEX, Container, Exported, SharedEntry
from hb_tta.sharing.tables import Tables
from hb_tta.sharing.tars import Tars
from hb_tta.store import Store, TieredStore
from hb_tta.views.proof import SHARED, method_of, models_of
from hb_tta.weights import Weights, names_of

CONTAINERS: dict[str, type[Tars] | type[Tables]] = {"webdataset": Tars, "parquet": Tables}


def export(
    store: Store | TieredStore,
    folder: Path,
    *,
    format: str = "webdataset",
    method: str | None = None,
) -> Exported:
    """Write a set of the store's views, and of the descriptions and scores that go with them.

    Args:
        store: it is only read.
        folder: new or empty.
        format: of ``CONTAINERS``.
        method: whose views, with what belongs to them; ``None``: all.

    Raises:
        UserError: the folder holds something or cannot be written, there is nothing to export, or
            a name is not known.
    """
    if format not in CONTAINERS:
        raise UserError(f"--format {format!r} is not known{choose_from(format, CONTAINERS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} is not empty: name a new folder for the set")
    container: Container = CONTAINERS[format]()
    done = Exported()
    chosen = _Chosen(store, method)
    try:
        for namespace in SHARED:
            entries = chosen.entries(namespace, done)
            _write_shards(container, folder / namespace, namespace, entries)
        if not done.entries["views"]:
            raise UserError(_nothing(store, method))
        used = _fingerprints(done.models)
        known = {n: it for n, it in store.known_weights().items() if it in used}
        done.weights = {**known, **names_of(used, _of_families())}
        _write_about(folder, format, container.suffix, done)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): remove what is there, mend "
            "that and export again; the store is as it was"
        ) from error
    return done


class _Chosen:
    """Which entries go along: of a method its views, what they show and how they were judged."""

    def __init__(self, store: Store | TieredStore, method: str | None) -> None:
        self._store, self._method = store, method
        self._views: set[bytes] = set()
        self._pixels: set[str] = set()
        if method is not None:
            for key, _, meta in self._read("views", Exported()):
                if method_of(meta) == method:
                    self._views.add(bytes.fromhex(key))
                    self._pixels.add(str(meta.get("pixels")))

    def entries(self, namespace: str, done: Exported) -> Iterator[SharedEntry]:
        """Those of a namespace, counted as they go."""
        for key, payload, meta in self._read(namespace, done):
            if self._goes_along(namespace, key, meta):
                done.entries[namespace] += 1
                done.models.update(models_of(meta))
                if namespace == "views":
                    done.methods[method_of(meta) or "unknown"] += 1
                yield SharedEntry.of(namespace, key, payload, meta)

    def _read(self, namespace: str, done: Exported) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        for entry in self._store.entries(namespace):
            found = self._store.read(namespace, entry.key)
            if found is None:
                done.damaged += 1
            else:
                yield entry.key, *found

    def _goes_along(self, namespace: str, key: str, meta: Mapping[str, Any]) -> bool:
        if self._method is None:
            return True
        if namespace == "views":
            return bytes.fromhex(key) in self._views
        if "view" in meta:
            return bytes.fromhex(str(meta["view"])) in self._views
        return meta.get("pixels") in self._pixels


def _write_shards(
    container: Container, folder: Path, namespace: str, entries: Iterator[SharedEntry]
) -> None:
    """Shards of a namespace, each whole under its name or not there."""
    number = 0
    while (first := next(entries, None)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{namespace}-{number:05d}{container.suffix}"
        aside = path.with_name(f".{path.name}.part")
        try:
            container.write(aside, namespace, chain([first], entries))
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        number += 1


def _write_about(folder: Path, format: str, suffix: str, done: Exported) -> None:
    """The card, and last of all the index: without it a set is not whole."""
    write_aside(folder / "README.md", card.text(format, suffix, done).encode())
    index = {
        "format": FORMAT,
        "container": format,
        "entries": dict(done.entries),
        "weights": done.weights,
    }
    write_aside(folder / INDEX, json.dumps(index, indent=1).encode())


def _fingerprints(models: Mapping[str, Any]) -> set[str]:
    """All texts in the JSON of models that stand for weights."""
    found: set[str] = set()
    for model in models:
        values = list(json.loads(model).values())
        while values:
            value = values.pop()
            if isinstance(value, dict):
                values += value.values()
            elif isinstance(value, str) and value.startswith(("sha256:", "hub:")):
                found.add(value)
    return found


def _of_families() -> list[Weights]:
    """All weights that have a name in the package."""
    families = map(get_family, list_families())
    return sorted({one for family in families for one in family.roles.values()})


def _nothing(store: Store | TieredStore, method: str | None) -> str:
    what = "views" if method is None else f"views of {method}"
    return f"the store {store.root} holds no {what}: name another store with --store"
