"""Merging the inputs of one ``generate`` call a view into those of one call for all views.

Rows are view-major: all rows of view 0, then those of view 1. Only what is known to merge is merged
(the tables below): whatever is not makes ``merge`` give up, and the views are decoded in
lock-step instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# A position a token: padded on the left to the longest view.
WORDS = ("input_ids", "inputs_embeds", "attention_mask")
TOKENS = (*WORDS, "token_type_ids", "mm_token_type_ids")
# One or more lines an image (a row, a tile, a patch): joined one view after the other.
IMAGES = (
    "pixel_values",
    "pixel_values_videos",
    "image_grid_thw",
    "video_grid_thw",
    "second_per_grid_ts",
    "image_sizes",
    "image_flags",
    "num_patches",
    "batch_num_images",
)


class Merged(NamedTuple):
    """What one call for all views gets.

    Attributes:
        inputs: the model's inputs, of all views.
        padding: how many positions were put before each view's first token.
    """

    inputs: dict[str, Any]
    padding: list[int]


def merge(views: Sequence[Mapping[str, Any]], pad_token_id: int) -> Merged | None:
    """The views' inputs as one batch, or None where they cannot be merged.

    Args:
        views: the model's inputs of one view each: the same names, but for those of the images in a
            row without a picture; tensors on one device.
        pad_token_id: stands where the attention mask is 0.
    """
    names = list({name: None for view in views for name in view})
    if any(name not in IMAGES and name not in view for name in names for view in views):
        return None
    views = _with_masks([dict(view) for view in views])
    lengths = [_length(view) for view in views]
    merged: dict[str, Any] = {}
    for name in names:
        # A row without a picture has no lines of its own among those of the images.
        values = [view[name] for view in views if name in view]
        if name in IMAGES:
            values = [value for value in values if value is not None] or [None]
        if all(value is None for value in values):
            merged[name] = None
            continue
        if name in TOKENS:
            fill = pad_token_id if name == "input_ids" else 0
            value: Any = _join_tokens(values, lengths, fill)
        elif name in IMAGES:
            value = _join_images(values, tiled=name == "pixel_values" and "image_sizes" in names)
        else:
            value = values[0] if all(is_equal(values[0], other) for other in values[1:]) else None
        if value is None:
            return None
        merged[name] = value
    return Merged(merged, [max(lengths) - length for length in lengths])


def prompt_length(inputs: Mapping[str, Any]) -> int:
    """How many positions ``generate`` gives back before the new tokens: none for embeddings."""
    ids = inputs.get("input_ids")
    return 0 if ids is None else ids.shape[1]


def _length(view: Mapping[str, Any]) -> int:
    tokens = view.get("input_ids")
    tokens = view.get("inputs_embeds") if tokens is None else tokens
    return 0 if tokens is None else tokens.shape[1]


def _with_masks(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Views of different lengths need a mask to tell the padding."""
    if len({_length(view) for view in views}) > 1:
        for view in views:
            if view.get("attention_mask") is None:
                tokens = view.get("input_ids")
                tokens = view["inputs_embeds"] if tokens is None else tokens
                shape = tokens.shape[:2]
                view["attention_mask"] = torch.ones(shape, dtype=torch.long, device=tokens.device)
    return views


def _join_tokens(values: list[Any], lengths: list[int], fill: int) -> Tensor | None:
    if not all(isinstance(value, Tensor) for value in values):
        return None
    if any(value.shape[1:2] != (length,) for value, length in zip(values, lengths, strict=True)):
        return None  # not a position a token
    longest = max(lengths)
    padded = []
    for value in values:
        shape = (value.shape[0], longest - value.shape[1], *value.shape[2:])
        padded.append(torch.cat([value.new_full(shape, fill), value], dim=1))
    return torch.cat(padded) if len({value.dtype for value in values}) == 1 else None


def _join_images(values: list[Any], *, tiled: bool) -> Any:
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    if not all(isinstance(value, Tensor) for value in values):
        return None
    if tiled and values[0].ndim == 5:
        values = _pad_tiles(values)
    if len({(value.shape[1:], value.dtype) for value in values}) > 1:
        return None
    return torch.cat(values)


def _pad_tiles(values: list[Tensor]) -> list[Tensor]:
    """LLaVA-NeXT's (images, tiles, C, H, W): how many tiles count is told by the image's size."""
    most = max(value.shape[1] for value in values)
    return [
        torch.cat(
            [value, value.new_zeros(value.shape[0], most - value.shape[1], *value.shape[2:])], dim=1
        )
        for value in values
    ]


def is_equal(one: Any, other: Any) -> bool:
    """Whether two values are the same setting; tensors are inputs of a view, and never are."""
    if one is other:
        return not isinstance(one, Tensor)
    if type(one) is not type(other) or _holds_tensors(one):
        return False
    return bool(one == other)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensors(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensors(item) for item in value)
    return isinstance(value, Tensor)
