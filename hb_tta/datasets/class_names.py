"""Files that name classes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from hb_tta.errors import UserError
from hb_tta.reading import parse_json, read_text

FILES = ("LOC_synset_mapping.txt", "classes.txt")
"""Names of a data set's own list, in its folder: a line a class of folder, blank, names."""


def class_names_file(path: str | PathLike[str]) -> dict[str, str] | list[str]:
    """Class names from JSON (an object or a list) or from a text of one name a line.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        text = read_text(path)
        names = parse_json(text) if text.lstrip()[:1] in ("{", "[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"no class names can be read from {path}: {error}") from error
    if isinstance(names, list):
        names = [name.strip() if isinstance(name, str) else name for name in names]
        names = [name for name in names if name != ""]
    values = list(names.values()) if isinstance(names, dict) else names
    if not values or not all(isinstance(value, str) for value in values):
        raise UserError(f"{path} holds no class names: write one a line, or a JSON object or list")
    return names


def names_in(folder: Path) -> dict[str, str]:
    """Folder → class name by the list that a data set's folder holds; empty where it holds none.

    Only that folder is looked at: a list that lies higher is another data set's. Of several names
    of a class, with commas between them, the first counts.
    """
    for file in FILES:
        if (folder / file).is_file():
            lines = read_text(folder / file).split("\n")
            pairs = (line.partition(" ") for line in lines if line.strip())
            return {key: named.split(",")[0].strip() for key, _, named in pairs}
    return {}
