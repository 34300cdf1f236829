"""The images of a page: each embedded once, small enough for hundreds of questions."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.reading import read_bytes
from hb_tta.report.records import Picture
from hb_tta.store import AnyStore

SMALL = 128  # pixels; images up to this are embedded as they are, and enlarged with crisp edges
LARGEST = 320  # pixels; longest side of an embedded image
_QUALITY = 85  # of JPEG, for what is not small


class Album:
    """Finds images and embeds them.

    Attributes:
        addresses: the ``data:`` addresses of all that was found, in order.

    Args:
        store: where the views are.
    """

    def __init__(self, store: AnyStore) -> None:
        self.addresses: list[str] = []
        self._store = store
        self._embedded: dict[Picture, str | None] = {}
        self._places: dict[Picture, int | None] = {}
        self._of_address: dict[str, int] = {}

    def load(self, pictures: Iterable[Picture]) -> None:
        """Embed many at once: Pillow decodes and encodes outside Python's lock."""
        wanted = list(dict.fromkeys(pictures))
        with ThreadPoolExecutor() as pool:
            self._embedded.update(zip(wanted, pool.map(self._embed, wanted), strict=True))

    def place(self, picture: Picture) -> int | None:
        """The image's place in ``addresses``; None where it is gone or damaged."""
        if picture not in self._places:
            if picture not in self._embedded:
                self.load([picture])
            address = self._embedded.pop(picture)
            self._places[picture] = None if address is None else self._put(address)
        return self._places[picture]

    def first(self, pictures: Iterable[Picture]) -> int | None:
        """The place of the first of several pictures that is there."""
        return next((p for p in map(self.place, pictures) if p is not None), None)

    def _put(self, address: str) -> int:
        if address not in self._of_address:
            self._of_address[address] = len(self.addresses)
            self.addresses.append(address)
        return self._of_address[address]

    def _embed(self, picture: Picture) -> str | None:
        try:
            data = self._bytes(picture)
            return None if data is None else data_uri(data)
        except (UserError, OSError):  # no image, or not to be read: shown as missing
            return None

    def _bytes(self, picture: Picture) -> bytes | None:
        if picture.file is not None:
            return read_bytes(picture.file) if picture.file.is_file() else None
        found = None if picture.key is None else self._store.read("views", picture.key)
        return None if found is None else found[0]


def data_uri(data: bytes) -> str:
    """An image file's bytes as a ``data:`` address: small ones as PNG, others shrunk, as JPEG.

    Raises:
        UserError: they are no image.
    """
    image = load_image(data)
    small = max(image.size) <= SMALL
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    if small:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=_QUALITY)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
