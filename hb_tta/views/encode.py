"""How a view is kept: PNG, or WebP, without loss or with a quality.

Every way but PNG is a part of the generator's spec, and so of the view's key: what is shown to a
model are the pixels that come out of the file again. Without loss they are those of PNG.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

PNG, WEBP = "png", "webp"
UNKNOWN = "is not known: use png, webp (without loss) or webp:QUALITY, 1 to 100"

_EFFORT = 2
"""Of libwebp's 0 to 6 without loss: 4, Pillow's own, takes twice the time for 1 % less room."""


def read_format(value: Any) -> str:
    """``png``, ``webp`` (without loss) or ``webp:QUALITY``, 1 to 100, in one spelling.

    Raises:
        UserError: it is none of them.
    """
    kind, is_there, quality = str(value).partition(":")
    if kind in (PNG, WEBP) and not is_there:
        return kind
    whole = quality.isascii() and quality.isdigit()
    if kind == WEBP and whole and 1 <= int(quality) <= 100:
        return f"{WEBP}:{int(quality)}"
    raise UserError(f"format={shown(value)} {UNKNOWN}")


def encoded(image: Image, format: str = PNG) -> bytes:
    """The bytes that the store keeps of a view.

    Args:
        image: of any mode; RGB is kept.
        format: as ``read_format`` gives it.
    """
    kind, _, quality = format.partition(":")
    how: dict[str, Any] = {"lossless": True, "method": _EFFORT}
    if kind == PNG:
        # Level 1 takes a fifth of the default's time and a tenth more room on photographs.
        how = {"compress_level": 1}
    elif quality:
        how = {"quality": int(quality)}
    file = io.BytesIO()
    image.convert("RGB").save(file, kind.upper(), **how)
    return file.getvalue()
