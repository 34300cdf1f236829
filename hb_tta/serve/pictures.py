"""The images of a request: ``data:`` addresses, and remote ones where they are allowed."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.serve.limits import MB, Limits, Share
from hb_tta.serve.refusal import Refused
from hb_tta.serve.remote import Remote

if TYPE_CHECKING:
    from PIL.Image import Image

_DATA = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w-]+=[\w.+-]+)*;base64,", re.IGNORECASE)


def read_picture(address: str, remote: Remote, limits: Limits, share: Share) -> Image:
    """An RGB image.

    Args:
        address: of an image, as clients write it.
        remote: fetches what is elsewhere.
        share: what the pixels count for.

    Raises:
        Refused: it is too large, none, or may not be fetched.
    """
    data = _data(address, limits) if address[:5].lower() == "data:" else remote.fetch(address)
    try:
        image = load_image(data, limits.megapixels * 1_000_000)
    except UserError as error:
        too_large = "pixels: make it smaller" in str(error)
        raise Refused(413 if too_large else 400, str(error)) from None
    share.add(3 * image.width * image.height)
    return image


def _data(address: str, limits: Limits) -> bytes:
    head = _DATA.match(address[:200])
    if head is None:
        raise Refused(400, "an image's data: address does not begin data:image/png;base64,")
    most = limits.image_mb * MB
    if (len(address) - head.end()) * 3 // 4 > most + 3:
        raise Refused(413, f"an image has more than {limits.image_mb} MB: send a smaller one")
    try:
        return base64.b64decode(address[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "an image's data: address is no base64: encode it again") from None
