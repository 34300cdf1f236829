"""Benchmarks as samples: ImageNet and its variants, image folders, Bongard-HOI, the pocket tasks.

Loading is deterministic and mutates nothing. Labels and annotations come with the samples; what a
model may see of them is decided by whoever runs the task (``hb_tta.tpt.evaluate``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL.Image import Image

from hb_tta.errors import UserError
from hb_tta.pocket import hoi as pocket_hoi_tasks
from hb_tta.pocket import objects as pocket_object_tasks

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"))
_WNID = re.compile(r"n\d{8}")
_SUBSET_SEED = 0


class LabelledImage(NamedTuple):
    """An image (a file, or pixels) and the index of its class."""

    image: Path | Image
    label: int


@dataclass(frozen=True)
class Classification:
    """A classification task.

    Attributes:
        name: of the task.
        class_names: what the labels count.
        images: the samples; ``total`` where not all are taken.
        total: how many samples the whole task has.
    """

    name: str
    class_names: tuple[str, ...]
    images: Sequence[LabelledImage]
    total: int


class HoiImage(NamedTuple):
    """An image of a few-shot task with its annotation; label 0 is positive, 1 negative."""

    image: Path | Image
    label: int
    agent: str
    action: str
    object: str


@dataclass(frozen=True)
class HoiTask:
    """Supports, whose annotations are inputs, and queries, whose labels are for scoring alone."""

    supports: tuple[HoiImage, ...]
    queries: tuple[HoiImage, ...]


@dataclass(frozen=True)
class FewShot:
    """Few-shot tasks of one split; ``total`` where not all are taken."""

    name: str
    tasks: Sequence[HoiTask]
    total: int


def _taken(number: int, limit: int | None) -> list[int]:
    """Indices of a subset: always the same one, drawn from all, in order."""
    if limit is None or limit >= number:
        return list(range(number))
    chosen = np.random.default_rng(_SUBSET_SEED).permutation(number)[:limit]
    return sorted(chosen.tolist())


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────


def image_folder(
    root: str | PathLike[str],
    names: Mapping[str, str] | Sequence[str] | None = None,
    *,
    limit: int | None = None,
    name: str = "folder",
) -> Classification:
    """A task from one folder a class.

    Args:
        root: holds the classes' folders.
        names: folder → class name. A list will do where folders are called 0, 1, 2, …, which are
            its indices. None: the folders' own names.
        limit: take a fixed random subset of so many images.

    Raises:
        UserError: folders and names do not match, or a class has no image.
    """
    files = _class_files(Path(root))
    mapping = _mapping(list(files), names, Path(root))
    missing = [folder for folder in mapping if folder not in files]
    surplus = [folder for folder in files if folder not in mapping]
    if missing or surplus:
        odd = f"no folder of {missing[0]!r}" if missing else f"a folder {surplus[0]!r} without name"
        raise UserError(
            f"{root} has {odd} ({len(missing)} classes are missing, {len(surplus)} unknown): "
            "give the whole data set, or names that match its folders"
        )
    images = [
        LabelledImage(file, label) for label, folder in enumerate(mapping) for file in files[folder]
    ]
    taken = [images[place] for place in _taken(len(images), limit)]
    return Classification(name, tuple(mapping.values()), taken, len(images))


def _class_files(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: name the one that holds the classes' folders")
    files: dict[str, list[Path]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        found = [f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES]
        files[folder.name] = sorted(found)
        if not found:
            raise UserError(f"the class folder {folder} holds no image: fill it or remove it")
    if not files:
        raise UserError(f"{root} holds no class folders: name the folder above the classes'")
    return files


def _mapping(
    folders: list[str], names: Mapping[str, str] | Sequence[str] | None, root: Path
) -> dict[str, str]:
    """Folder → class name, in the order of the labels."""
    if names is None:
        return {folder: folder for folder in folders}
    if isinstance(names, Mapping):
        return dict(names)
    if set(folders) == set(names):
        return {name: name for name in names}
    if all(folder.isdecimal() for folder in folders):
        return {str(index): name for index, name in enumerate(names)}
    raise UserError(
        f"{len(names)} names in a list do not say which of the {len(folders)} folders of {root} "
        'each belongs to: give a JSON object {"folder": "name", …}'
    )


def class_names_file(path: str | PathLike[str]) -> dict[str, str] | list[str]:
    """Class names from JSON (an object or a list) or from a text of one name a line.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip()[:1] in ("{", "[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"no class names can be read from {path}: {error}") from error
    if isinstance(names, list):
        names = [name.strip() if isinstance(name, str) else name for name in names]
        names = [name for name in names if name != ""]
    values = list(names.values()) if isinstance(names, dict) else names
    if not values or not all(isinstance(value, str) for value in values):
        raise UserError(f"{path} holds no class names: write one a line, or a JSON object or list")
    return names


# ── ImageNet ─────────────────────────────────────────────────────────────────────────────────────

# Which of the 1000 classes each has; the lists are timm's.
IMAGENET = {
    "imagenet": "imagenet_synsets.txt",
    "imagenet-a": "imagenet_a_synsets.txt",
    "imagenet-v2": "imagenet_synsets.txt",
    "imagenet-r": "imagenet_r_synsets.txt",
    "imagenet-sketch": "imagenet_synsets.txt",
}


def imagenet(name: str, root: str | PathLike[str], *, limit: int | None = None) -> Classification:
    """ImageNet's validation set or a variant, from one folder a class.

    Folders are called by WordNet id (n01440764), or by number as ImageNet-V2's are; a number means
    that class, not its place among the folders in alphabetical order. Names are those of CLIP's
    authors, of the variant's own classes alone.

    Raises:
        UserError: a class is missing or unknown.
    """
    wnids = _synsets("imagenet_synsets.txt")
    known = dict(zip(wnids, _imagenet_names(), strict=True))
    own = set(_synsets(IMAGENET[name]))
    names = {wnid: known[wnid] for wnid in wnids if wnid in own}
    folders = list(_class_files(Path(root)))
    if all(folder.isdecimal() for folder in folders):
        numbers = {wnid: str(index) for index, wnid in enumerate(wnids)}
        names = {numbers[wnid]: spoken for wnid, spoken in names.items()}
    elif not all(_WNID.fullmatch(folder) for folder in folders):
        raise UserError(
            f"the folders of {root} are called {folders[0]!r}, …: ImageNet's are called by WordNet "
            "id (n01440764) or by number"
        )
    return image_folder(root, names, limit=limit, name=name)


def _synsets(file: str) -> list[str]:
    text = resources.files("timm.data").joinpath("_info", file).read_text()
    return text.split()


def _imagenet_names() -> Sequence[str]:
    from open_clip import IMAGENET_CLASSNAMES

    return IMAGENET_CLASSNAMES


# ── Bongard-HOI ──────────────────────────────────────────────────────────────────────────────────

BONGARD_SPLITS = {
    "seen act., seen obj.": "bongard_hoi_test_seen_obj_seen_act.json",
    "unseen act., seen obj.": "bongard_hoi_test_seen_obj_unseen_act.json",
    "seen act., unseen obj.": "bongard_hoi_test_unseen_obj_seen_act.json",
    "unseen act., unseen obj.": "bongard_hoi_test_unseen_obj_unseen_act.json",
}
AGENT = "person"


def bongard_hoi(
    file: str | PathLike[str],
    images: str | PathLike[str],
    *,
    limit: int | None = None,
    name: str = "bongard-hoi",
) -> FewShot:
    """One split of Bongard-HOI from its JSON file.

    A task is a list: negatives first, positives second, an annotation last. The last image of
    either list is its query, as in TPT's code; nothing is shuffled.

    Args:
        file: the split's JSON.
        images: the folder that ``im_path`` starts from.

    Raises:
        UserError: the file is no such list, or a task has no positive or no negative support.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        taken = _taken(len(content), limit)
        tasks = [_bongard_task(content[place], place, Path(images)) for place in taken]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{file} cannot be read as tasks of Bongard-HOI: {error!r}") from error
    return FewShot(name, tasks, len(content))


def _bongard_task(task: list, number: int, root: Path) -> HoiTask:
    negatives, positives = task[0], task[1]
    for kind, rows in (("positive", positives), ("negative", negatives)):
        if len(rows) < 2:
            raise UserError(f"task {number} has no {kind} support beside its query: repair it")
    sides = [[_bongard_image(row, 0, root) for row in positives]]
    sides += [[_bongard_image(row, 1, root) for row in negatives]]
    supports = tuple(image for side in sides for image in side[:-1])
    return HoiTask(supports, tuple(side[-1] for side in sides))


def _bongard_image(row: Mapping[str, str], label: int, root: Path) -> HoiImage:
    spoken = {key: row[key].replace("_", " ") for key in ("act_class", "obj_class")}
    return HoiImage(root / row["im_path"], label, AGENT, spoken["act_class"], spoken["obj_class"])


# ── By name ──────────────────────────────────────────────────────────────────────────────────────

OBJECT_TASKS = tuple(pocket_object_tasks.VARIANTS)
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
        return [_pocket_objects(name, split, limit)]
    if name == "pocket_hoi":
        return [_pocket_hoi(variant, split, limit) for variant in pocket_hoi_tasks.VARIANTS]
    if name not in TASKS:
        raise UserError(f"task {name!r} is not known: choose from {', '.join((*TASKS, *ALIASES))}")
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


_POCKET_SIZES = {"objects": 500, "hoi": 200}


def _pocket_objects(name: str, split: str, limit: int | None) -> Classification:
    size = _POCKET_SIZES["objects"]
    samples = pocket_object_tasks.pocket_objects(name, split, size if limit is None else limit)
    images = [LabelledImage(sample.image, sample.label) for sample in samples]
    names = pocket_object_tasks.CLASSES
    return Classification(f"{name} ({split})", names, images, max(size, len(images)))


def _pocket_hoi(variant: str, split: str, limit: int | None) -> FewShot:
    size = _POCKET_SIZES["hoi"]
    made = pocket_hoi_tasks.pocket_hoi(variant, split, size if limit is None else limit)

    def image(sample: pocket_hoi_tasks.HoiSample, shape: str) -> HoiImage:
        return HoiImage(sample.image, sample.label, pocket_hoi_tasks.AGENT, sample.action, shape)

    tasks = [
        HoiTask(
            tuple(image(sample, task.object) for sample in task.supports),
            tuple(image(sample, task.object) for sample in task.queries),
        )
        for task in made
    ]
    return FewShot(f"pocket_hoi {variant} ({split})", tasks, max(size, len(tasks)))
