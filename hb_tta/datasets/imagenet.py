"""ImageNet and its variants: which classes each has, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from hb_tta.datasets.folders import FolderExamples, class_files, image_folder
from hb_tta.datasets.hub import HubExamples, as_file
from hb_tta.datasets.samples import Classification, Example, Examples, example
from hb_tta.errors import UserError

# Which of the 1000 classes each has; the lists are timm's.
IMAGENET = {
    "imagenet": "imagenet_synsets.txt",
    "imagenet-a": "imagenet_a_synsets.txt",
    "imagenet-v2": "imagenet_synsets.txt",
    "imagenet-r": "imagenet_r_synsets.txt",
    "imagenet-sketch": "imagenet_synsets.txt",
}
_WNID = re.compile(r"n\d{8}")


def imagenet(name: str, root: str | PathLike[str], *, limit: int | None = None) -> Classification:
    """ImageNet's validation set or a variant, from one folder a class.

    Folders are called by WordNet id (n01440764), or by number as ImageNet-V2's are; a number means
    that class, not its place among the folders in alphabetical order. Names are those of CLIP's
    authors, of the variant's own classes alone.

    Raises:
        UserError: a class is missing or unknown.
    """
    own = set(_synsets(IMAGENET[name]))
    names = {wnid: spoken for wnid, spoken in class_names().items() if wnid in own}
    folders = list(class_files(Path(root)))
    if all(folder.isdecimal() for folder in folders):
        numbers = {wnid: str(index) for index, wnid in enumerate(class_names())}
        names = {numbers[wnid]: spoken for wnid, spoken in names.items()}
    elif not all(_WNID.fullmatch(folder) for folder in folders):
        raise UserError(
            f"the folders of {root} are called {folders[0]!r}, …: ImageNet's are called by WordNet "
            "id (n01440764) or by number"
        )
    return image_folder(root, names, limit=limit, name=name)


def imagenet_examples(root: Path | None) -> Examples:
    """ImageNet-1k's training split, in class folders or from the hub.

    The ground truth is the class's name: of the list in the folder, else of CLIP's authors for
    WordNet ids; of the hub, the data set's own.
    """
    return HubImageNet() if root is None else FolderExamples(root, class_names())


class HubImageNet(HubExamples):
    """The hub's ImageNet-1k, whose labels are numbers."""

    def __init__(self) -> None:
        super().__init__("ILSVRC/imagenet-1k", None, None, "train", self._read)

    def _read(self, row: dict[str, Any]) -> Example:
        names = self.stream.features["label"]
        return example(
            as_file(row["image"]), "", "object", names.int2str(row["label"]).split(",")[0]
        )


def class_names() -> dict[str, str]:
    """WordNet id → name, by CLIP's authors, of the 1000 classes in their order."""
    return dict(zip(_synsets("imagenet_synsets.txt"), _imagenet_names(), strict=True))


def _synsets(file: str) -> list[str]:
    text = resources.files("timm.data").joinpath("_info", file).read_text()
    return text.split()


def _imagenet_names() -> Sequence[str]:
    from open_clip import IMAGENET_CLASSNAMES

    return IMAGENET_CLASSNAMES
