"""The images in what a harness gives its model, and the same with other images.

A model's input is a list of images, chat messages, or anything else of nested lists and
dictionaries; it is walked as such, so nothing else about a harness is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from PIL.Image import Image


def images(tree: Any) -> Iterator[Any]:
    """The images of a model's input, in order: Pillow images, and what image parts point to."""
    if isinstance(tree, Image):
        yield tree
    elif _is_image_file(tree):
        yield tree["url"]
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from images(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from images(value)


def with_images(tree: Any, others: Iterator[Image]) -> Any:
    """A copy of a model's input with the next of ``others`` in each image's place."""
    if isinstance(tree, Image):
        return next(others)
    if _is_image_file(tree):
        return {**tree, "url": next(others)}
    if isinstance(tree, Mapping):
        return {key: with_images(value, others) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(with_images(value, others) for value in tree)
    return tree


def _is_image_file(tree: Any) -> bool:
    """A chat message's part that names an image by its path."""
    return (
        isinstance(tree, Mapping)
        and tree.get("type") == "image"
        and isinstance(tree.get("url"), str | bytes)
    )
