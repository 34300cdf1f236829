"""Imports point one way: between the three folders, between the layers of hb_tta, in no circle."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_graph import AT_ONCE, BY_NAME, LATER, Graph, Import, circles, imports_of, read_graph
from test_package import FOLDERS

ROOT = Path(__file__).parents[1]

# From the ground up: a part imports parts of the lines above its own, and none beside it.
LAYERS = (
    ("errors", "progress", "reading"),
    ("disk", "network", "device", "seen"),
    ("locks", "packed_index"),
    ("file_index",),
    ("context", "images", "metrics", "processors", "hub_files", "idefics2"),
    ("weights",),
    ("detect", "families", "lora", "plugins", "presets", "spelling"),
    ("describe", "generators", "pocket", "rewards", "shards", "store", "tta"),
    ("datasets", "views"),
    ("augment", "sharing"),
    ("mumu", "settings"),
    ("cluster",),
    ("report",),
    ("serve", "tpt"),
    ("training", "integrations"),
    ("experiments",),
    ("cli",),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
UPPER = ("training", "integrations")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(ROOT, FOLDERS)


def part_of(module: str) -> str:
    """The layer's name for a module; the package itself only hands out what its parts have."""
    return module.split(".")[1] if "." in module else "cli"


def test_every_part_has_its_layer(graph):
    assert {part_of(module) for module in graph} <= set(HEIGHT)


def test_layers_use_what_lies_below(graph):
    wrong = [
        f"{module} imports {target}"
        for module, found in graph.items()
        for target, _ in found
        if part_of(module) != part_of(target) and HEIGHT[part_of(module)] <= HEIGHT[part_of(target)]
    ]
    assert wrong == []


def test_only_commands_and_experiments_use_training_and_integrations_and_lazily(graph):
    found = [
        (part_of(module), one)
        for module, its in graph.items()
        for one in its
        if part_of(one.target) in UPPER and part_of(one.target) != part_of(module)
    ]
    assert {part for part, _ in found} <= {"cli", "experiments"}
    assert all(one.when != AT_ONCE for _, one in found) and found


def test_no_module_is_reached_from_itself(graph):
    assert circles(graph) == []


SOURCE = """
import os, hb_tta.disk
from typing import TYPE_CHECKING
from hb_tta import errors
from hb_tta.errors import UserError
if TYPE_CHECKING:
    from hb_tta.store import Store
COMMANDS = {"train": "hb_tta.training.train:main"}
class Late:
    import hb_tta.images
    def run(self):
        from hb_tta.training import train
from .entries import seal
from .. import weights
"""


def test_what_counts_as_an_import():
    parts = "disk errors images store store.entries training training.train weights".split()
    modules = dict.fromkeys(["hb_tta", *(f"hb_tta.{one}" for one in parts)])
    found = imports_of(SOURCE, "hb_tta.store", modules)
    assert found == [
        Import("hb_tta.disk", AT_ONCE),
        Import("hb_tta.errors", AT_ONCE),
        Import("hb_tta.errors", AT_ONCE),
        Import("hb_tta.store", LATER),
        Import("hb_tta.training.train", BY_NAME),
        Import("hb_tta.images", AT_ONCE),
        Import("hb_tta.training.train", LATER),
        Import("hb_tta.store.entries", AT_ONCE),
        Import("hb_tta.weights", AT_ONCE),
    ]


def test_circles_are_seen():
    ring = {"a": "b", "b": "c", "c": "b", "d": "d"}
    graph = {module: [Import(target, LATER)] for module, target in ring.items()}
    assert circles(graph) == [["b", "c"], ["d"]]
