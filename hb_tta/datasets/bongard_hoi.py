"""Bongard-HOI (Jiang et al. 2022): few-shot tasks to score, and its positive images to train on.

Its files are lists of [negatives, positives, annotation], an item of the first two being an object
with im_path, sub_class, act_class and obj_class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from hb_tta.datasets.files import files_below
from hb_tta.datasets.samples import Example, FewShot, HoiImage, HoiTask, example, subset
from hb_tta.errors import UserError, shown
from hb_tta.reading import read_json

BONGARD_SPLITS = {
    "seen act., seen obj.": "bongard_hoi_test_seen_obj_seen_act.json",
    "unseen act., seen obj.": "bongard_hoi_test_seen_obj_unseen_act.json",
    "seen act., unseen obj.": "bongard_hoi_test_unseen_obj_seen_act.json",
    "unseen act., unseen obj.": "bongard_hoi_test_unseen_obj_unseen_act.json",
}
TRAINING_FILE = "bongard_hoi_train.json"
AGENT = "person"
_PLACES = ((), ("hake",), ("hake", "images"), ("images",))
"""Where im_path starts from, in the folder of the images; the first where nothing is found."""


class Annotation(NamedTuple):
    """One item: where its image lies, and what it says, with blanks for "_"."""

    image: str
    agent: str
    action: str
    object: str


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
        content = _read(Path(file))
        taken = subset(len(content), limit)
        tasks = [_task(content[place], place, Path(images)) for place in taken]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{file} cannot be read as tasks of Bongard-HOI: {error!r}") from error
    return FewShot(name, tasks, len(content))


def _task(task: list, number: int, root: Path) -> HoiTask:
    negatives, positives = task[0], task[1]
    for kind, rows in (("positive", positives), ("negative", negatives)):
        if len(rows) < 2:
            raise UserError(f"task {number} has no {kind} support beside its query: repair it")
    sides = [[_image(row, 0, root) for row in positives]]
    sides += [[_image(row, 1, root) for row in negatives]]
    supports = tuple(image for side in sides for image in side[:-1])
    return HoiTask(supports, tuple(side[-1] for side in sides))


def _image(row: Mapping[str, Any], label: int, root: Path) -> HoiImage:
    told = _annotation(row)
    return HoiImage(_find(root, told.image), label, told.agent, told.action, told.object)


class BongardExamples:
    """Bongard-HOI's training annotations: every positive image of every problem, once.

    Args:
        root: holds, at any depth, ``bongard_hoi_train.json``, and the images that it names.

    Raises:
        UserError: no folder is given, or it lacks the annotations, or they are something else.
    """

    def __init__(self, root: Path | None) -> None:
        if root is None:
            raise UserError(
                "Bongard-HOI is on no hub: fetch it as its authors say, and give its folder with "
                "--data FOLDER"
            )
        self.root = root
        files = [file for file in files_below(root) if file.name == TRAINING_FILE]
        if not files:
            raise UserError(f"{str(root)!r} has no {TRAINING_FILE}: fetch the annotations")
        try:
            items = [item for problem in _read(files[0]) for item in problem[1]]
            self._rows = list(dict.fromkeys(_annotation(item) for item in items))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(
                f"{files[0]} cannot be read as Bongard-HOI's annotations ({error!r}): fetch it "
                "again"
            ) from error

    def fingerprint(self) -> Any:
        """Of the rows."""
        return {"bongard-hoi": hashlib.sha256(json.dumps(self._rows).encode()).hexdigest()}

    def size(self) -> int:
        """The number of images, once a concept."""
        return len(self._rows)

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        for number, row in enumerate(self._rows[start:stop], start):
            yield f"row {number}", row

    def example(self, row: Annotation) -> Example:
        """See ``Examples``."""
        return example(
            _find(self.root, row.image), f"{row.agent} | {row.object}", "hoi", row.action or None
        )


def _read(file: Path) -> list[Any]:
    return read_json(file)


def _annotation(row: Mapping[str, Any]) -> Annotation:
    """An image without an action has null in its place: nothing is said of it then."""
    told = (row.get("sub_class") or AGENT, row["act_class"] or "", row["obj_class"] or "")
    if not all(isinstance(text, str) for text in (row["im_path"], *told)):
        raise TypeError(f"an item is no annotation: {shown(row)}")
    return Annotation(row["im_path"], *(text.replace("_", " ").strip() for text in told))


def _find(root: Path, name: str) -> Path:
    parts = [part for part in Path(name).parts if part not in (".", "/")]
    places = [root.joinpath(*prefix, *named) for named in _named(parts) for prefix in _PLACES]
    return next((place for place in places if place.is_file()), places[0])


def _named(parts: list[str]) -> list[list[str]]:
    """The path, and the same in the other half of the pictures: some files that the annotations
    put into train lie in val, and the authors' own loader looks in both."""
    other = {"train": "val", "val": "train"}
    places = [place for place, part in enumerate(parts) if part in other]
    swapped = [[*parts[:at], other[parts[at]], *parts[at + 1 :]] for at in places]
    return [parts, *swapped]
