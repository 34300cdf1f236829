"""Image data sets of one folder a class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hb_tta.datasets.class_names import names_in
from hb_tta.datasets.files import folders_in, images_below, listing_digest
from hb_tta.datasets.samples import Classification, Example, LabelledImage, example, subset
from hb_tta.errors import UserError


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
    files = class_files(Path(root))
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
    taken = [images[place] for place in subset(len(images), limit)]
    return Classification(name, tuple(mapping.values()), taken, len(images))


def class_files(root: Path) -> dict[str, list[Path]]:
    """The images of each class's folder, in the order of the folders' names.

    Raises:
        UserError: there are no class folders, or one holds no image.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: name the one that holds the classes' folders")
    files = {folder.name: images_below(folder) for folder in folders_in(root)}
    for folder, found in files.items():
        if not found:
            raise UserError(
                f"the class folder {root / folder} holds no image: fill it or remove it"
            )
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


class FolderExamples:
    """Images in a folder a class; the ground truth is the class's name.

    Args:
        root: holds the classes' folders.
        names: folder → class name, for folders that the data set's own list (``names_in``) leaves
            out; of others the folder's name is the class's, with blanks for "_".

    Raises:
        UserError: as of ``class_files``.
    """

    def __init__(self, root: Path, names: Mapping[str, str] | None = None) -> None:
        self.root = root
        found = class_files(root)
        _check_depth(root, found)
        self._names = {**(names or {}), **names_in(root)}
        pairs = [(file, folder) for folder, files in found.items() for file in files]
        # Row after row another class, so that a beginning of the data has all of them.
        self._files = sorted(pairs, key=lambda pair: _digest(pair[0].relative_to(root)))

    def fingerprint(self) -> Any:
        """Of the files' names and sizes."""
        return {"folder": listing_digest(self.root)}

    def size(self) -> int:
        """The number of images."""
        return len(self._files)

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        """See ``Examples``."""
        for number, pair in enumerate(self._files[start:stop], start):
            yield f"row {number}", pair

    def example(self, row: tuple[Path, str]) -> Example:
        """See ``Examples``."""
        file, folder = row
        return example(file, "", "object", self._names.get(folder, folder.replace("_", " ")))


def _check_depth(root: Path, files: Mapping[str, list[Path]]) -> None:
    """Raises UserError where the folder given is the one above that of the classes."""
    if len(files) > 1:
        return
    ((folder, found),) = files.items()
    if all(len(file.relative_to(root).parts) > 2 for file in found):
        raise UserError(
            f"{root} holds the one folder {folder!r}, whose images lie deeper: name the folder "
            "that holds the classes' folders"
        )


def _digest(path: Path) -> bytes:
    return hashlib.sha256(str(path).encode()).digest()
