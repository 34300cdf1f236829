"""Asking without a picture, where a backend says so with an empty list of images.

transformers' processors take None for that, and fail at the list (seen with ``llava_hf``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import ProcessorMixin


@contextmanager
def no_pictures() -> Iterator[None]:
    """While it is entered, an empty list of images is none at all to a processor."""
    original = ProcessorMixin.__call__

    @functools.wraps(original)
    def call(self: Any, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        none = isinstance(images, list) and not images
        return original(self, None if none else images, *args, **kwargs)

    ProcessorMixin.__call__ = call
    try:
        yield
    finally:
        ProcessorMixin.__call__ = original
