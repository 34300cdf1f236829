"""Tasks to score, by name."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from hb_tta.datasets.bongard_hoi import BONGARD_SPLITS, TRAINING_FILE, bongard_hoi
from hb_tta.datasets.class_names import class_names_file
from hb_tta.datasets.folders import image_folder
from hb_tta.datasets.imagenet import IMAGENET, imagenet
from hb_tta.datasets.pocket import (
    HOI_VARIANTS,
    OBJECT_TASKS,
    pocket_hoi,
    pocket_hoi_training,
    pocket_objects,
)
from hb_tta.datasets.samples import Classification, FewShot, HoiTask
from hb_tta.errors import UserError, choose_from

TASKS = (*OBJECT_TASKS, *IMAGENET, "folder", "pocket_hoi", "bongard-hoi")
ALIASES = {"pocket_objects_all": OBJECT_TASKS}


def load_tasks(
    name: str,
    *,
    data: str | PathLike[str] | None = None,
    class_names: str | PathLike[str] | None = None,
    split: str = "dev",
    limit: int | None = None,
) -> list[Classification | FewShot]:
    """The task of that name, or its parts: four splits of human-object interactions, for example.

    Args:
        name: one of ``TASKS`` or ``ALIASES``.
        data: the folder of classes, or of Bongard-HOI's JSON files and images.
        class_names: a file of names for ``folder``.
        split: of pocket tasks: "dev" or "sealed".
        limit: so many samples of each, a fixed subset; None: all (500 or 200 of pocket tasks).

    Raises:
        UserError: the name is unknown, or data are missing.
    """
    if name in ALIASES:
        return [part for n in ALIASES[name] for part in load_tasks(n, split=split, limit=limit)]
    if name in OBJECT_TASKS:
        return [pocket_objects(name, split, limit)]
    if name == "pocket_hoi":
        return [pocket_hoi(variant, split, limit) for variant in HOI_VARIANTS]
    if name not in TASKS:
        raise UserError(f"task {name!r} is not known{choose_from(name, (*TASKS, *ALIASES))}")
    if data is None:
        raise UserError(f"task {name!r} reads images of yours: name their folder with --data")
    if name in IMAGENET:
        return [imagenet(name, data, limit=limit)]
    if name == "folder":
        names = class_names_file(class_names) if class_names else None
        return [image_folder(data, names, limit=limit, name=Path(data).name)]
    return [
        replace(bongard_hoi(Path(data) / file, data, limit=limit), name=f"bongard-hoi {variant}")
        for variant, file in BONGARD_SPLITS.items()
    ]


def load_training_tasks(
    name: str, *, data: str | PathLike[str] | None = None, limit: int
) -> list[HoiTask]:
    """Few-shot tasks to train on, of a benchmark that has some.

    Args:
        name: "pocket_hoi" or "bongard-hoi".
        data, limit: see ``load_tasks``.

    Raises:
        UserError: the name is another, or data are missing.
    """
    if name == "pocket_hoi":
        return pocket_hoi_training(limit)
    if name != "bongard-hoi":
        known = ("pocket_hoi", "bongard-hoi")
        raise UserError(f"{name!r} has no tasks to train on{choose_from(name, known)}")
    if data is None:
        raise UserError(f"{name} reads images of yours: name their folder with --data")
    return list(bongard_hoi(Path(data) / TRAINING_FILE, data, limit=limit).tasks)
