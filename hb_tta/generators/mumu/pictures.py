"""A prompt's pictures as the model sees them: square on black, cut out of their surroundings.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hb_tta.errors import UserError
from hb_tta.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, GAP = 128, 8  # pixels of a prompt's picture on a page

MASK = ".mask.png"
"""How the name of a mask ends that lies beside an image: ``man.mask.png`` beside ``man.jpg``."""


def squared(image: Image) -> Image:
    """An RGB image in the middle of the smallest square, on black: never squashed (section 5)."""
    from PIL import Image as images

    side = max(image.size)
    if image.size == (side, side):
        return image
    square = images.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def cut_out(image: Image, mask: Image) -> Image:
    """An object without its surroundings, of which the model would take over details (section 7).

    Args:
        image: RGB.
        mask: mode "L", of the same size: 255 on the object, 0 elsewhere.

    Returns:
        The mask's bounding box, black where the mask is.

    Raises:
        UserError: the mask has another size, or covers nothing.
    """
    from PIL import Image as images

    if mask.size != image.size:
        raise UserError(
            f"the mask is {mask.width}×{mask.height} and its image {image.width}×{image.height}: "
            "give one of the same size"
        )
    box = mask.getbbox()
    if box is None:
        raise UserError("the mask covers nothing: make it white on the object, black elsewhere")
    return images.composite(image, images.new("RGB", image.size), mask).crop(box)


def load_cut_out(path: Path) -> Image:
    """An object from its file: by the image's own transparency, or by a mask beside it.

    Raises:
        UserError: the image cannot be read, has neither, or the mask covers nothing.
    """
    from PIL import Image as images

    image = load_image(path)
    beside = path.with_name(path.stem + MASK)
    if beside.is_file():
        return cut_out(image, load_image(beside).convert("L"))
    with images.open(path) as file:
        if not file.has_transparency_data:
            raise UserError(
                f"{str(path)!r} has no transparency, and there is no mask {beside.name!r} beside "
                "it: give either, or leave the cut-out away"
            )
        rgba = file.convert("RGBA")
    return cut_out(rgba.convert("RGB"), rgba.getchannel("A"))


def beside(pictures: Sequence[Image]) -> Image:
    """A prompt's pictures in a row on white, as pages show them; of none, a white square."""
    from PIL import Image as images

    width = max(1, len(pictures)) * (SIDE + GAP) - GAP
    row = images.new("RGB", (width, SIDE), "white")
    for place, picture in enumerate(pictures):
        scale = SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        left = place * (SIDE + GAP) + (SIDE - size[0]) // 2
        row.paste(picture.resize(size), (left, (SIDE - size[1]) // 2))
    return row
