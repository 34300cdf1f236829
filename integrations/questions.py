"""The images in what a harness gives its model, and the same with other images.

A model's input is a list of images, chat messages, or anything else of nested lists and
dictionaries; it is walked as such, so nothing else about a harness is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from hb_tta.errors import UserError

VARIATIONS = "The pictures that follow are variations of what is shown above."
"""What tells a model which of many pictures it is asked about."""


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


def without_images(tree: Any) -> Any:
    """A copy of a model's input that shows nothing: lists lose the images and the image parts."""
    if isinstance(tree, Mapping):
        return {key: without_images(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(without_images(value) for value in tree if not _is_picture(value))
    return tree


def with_more(messages: Any, others: Sequence[Image], words: str) -> Any:
    """A copy of chat messages with ``words``, if there are any, and ``others`` behind their last
    image."""
    last = max(n for n, message in enumerate(messages) if any(map(_is_picture, _parts(message))))
    parts = _parts(messages[last])
    behind = 1 + max(place for place, part in enumerate(parts) if _is_picture(part))
    said = [{"type": "text", "text": words}] if words else []
    more = [*said, *({"type": "image", "url": one} for one in others)]
    changed = {**messages[last], "content": [*parts[:behind], *more, *parts[behind:]]}
    return [*messages[:last], changed, *messages[last + 1 :]]


def _parts(message: Any) -> list[Any]:
    content = message["content"]
    return content if isinstance(content, list) else []


def with_prompt(messages: Any, change: Callable[[str], str]) -> Any:
    """A copy of chat messages with the last one's words changed.

    Raises:
        UserError: the words are in several parts, as between pictures, or there are none.
    """
    *before, last = messages
    parts = [part for part in last["content"] if isinstance(part, Mapping) and "text" in part]
    if len(parts) != 1:
        raise UserError(
            f"a prompt of {len(parts)} text parts cannot be put in other words: leave out "
            "paraphrases and combine=describe"
        )
    content = [{**p, "text": change(p["text"])} if p is parts[0] else p for p in last["content"]]
    return [*before, {**last, "content": content}]


def _is_picture(tree: Any) -> bool:
    """An image, or a chat message's part that holds one."""
    return isinstance(tree, Image) or (isinstance(tree, Mapping) and tree.get("type") == "image")


def _is_image_file(tree: Any) -> bool:
    """A chat message's part that names an image by its path."""
    return (
        isinstance(tree, Mapping)
        and tree.get("type") == "image"
        and isinstance(tree.get("url"), str | bytes)
    )
