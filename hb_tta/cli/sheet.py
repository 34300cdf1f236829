"""The contact sheet that ``hb-tta augment`` leaves in its folder: the images, their views beside.

The page shows the files themselves, so it stays small and opens no picture to be written; of a
reference that no browser shows, a TIFF for example, it has a thumbnail.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.disk import holds, write_aside
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.reading import read_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.augment import Augmentation
    from hb_tta.cli.requests import Line
    from hb_tta.report.contact_sheet import Linked, Panel

PAGE = "index.html"
THUMBNAIL = 320  # pixels
SHOWN_BY_BROWSERS = frozenset((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"))
MARK = "views by hb-tta"


class Sheet:
    """Collects what the page shows as the views are written.

    Args:
        path: of the page, in the views' folder.
        limit: images on the page; 0: there is no page.
        command: whose views they are.
    """

    def __init__(self, path: Path, limit: int, command: str = "augment") -> None:
        self._path, self._limit, self._command = path, limit, command
        self._panels: list[Panel] = []

    @property
    def full(self) -> bool:
        """Whether the page shows no more."""
        return len(self._panels) >= self._limit

    def add(
        self,
        request: Line[Any],
        image: str,
        augmentation: Augmentation,
        names: list[str],
        dropped: Sequence[bytes] = (),
    ) -> None:
        """The views of one image, by their files' names.

        Args:
            image: the reference's path from the folder.
            names: of the views' files.
            dropped: the candidates that are not shown, as files, as far as they are there.
        """
        if self.full:
            return
        from hb_tta.report.contact_sheet import Dropped, Linked, Panel, Row

        sizes = [image_size(file) for file in augmentation.files]
        views = [Linked(name, size) for name, size in zip(names, sizes, strict=True)]
        if Path(image).suffix.lower() in SHOWN_BY_BROWSERS and not Path(image).is_absolute():
            reference = Linked(image, sizes[0] if sizes else (THUMBNAIL, THUMBNAIL))
        else:
            try:
                reference = thumbnail(load_image(request.image))
            except UserError:  # it was there when the views were made
                return
        others = [
            Dropped(thumbnail(load_image(file)), seed, score)
            for file, (seed, _, score) in zip(dropped, augmentation.dropped, strict=False)
        ]
        row = Row(
            "views",
            views,
            augmentation.seeds,
            augmentation.description,
            augmentation.scores,
            augmentation.real_score,
            others,
        )
        notes = {"warning": "; ".join(augmentation.warnings)} if augmentation.warnings else {}
        row_of = "" if request.called == str(request.image) else f" ({request.called})"
        facts = {"image": Path(image).name + row_of, **notes}
        self._panels.append(Panel(reference, request.question, [row], facts))

    def write(self, images: int) -> None:
        """The page, or none; a page of an earlier run does not stay.

        Args:
            images: how many there are in all.
        """
        if not self._panels:
            with suppress(OSError):
                if MARK in read_text(self._path):
                    self._path.unlink()
            return
        from hb_tta.report.contact_sheet import render

        shown = len(self._panels)
        of = f"the first {shown} of {images} images" if shown < images else f"{shown} images"
        lead = (
            f"At the left {of}, at the right the {MARK} {self._command}; manifest.jsonl says how "
        )
        lead += "each was made."
        page = render(self._panels, title=self._path.parent.resolve().name, subtitle=lead)
        data = page.encode("utf-8", "backslashreplace")
        if not holds(self._path, data):
            write_aside(self._path, data, flush=False)


def thumbnail(image: Image) -> Linked:
    """A small copy inside an address: PNG where it is small already, else JPEG."""
    from hb_tta.report.contact_sheet import SMALL, Linked

    small = max(image.size) <= SMALL
    size = image.size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer, kind = io.BytesIO(), "png" if small else "jpeg"
    image.save(buffer, kind, **({} if small else {"quality": 85}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return Linked(f"data:image/{kind};base64,{data}", size)


def image_size(file: bytes) -> tuple[int, int]:
    """Width and height of a view's file, from its header."""
    from PIL import Image

    with Image.open(io.BytesIO(file), formats=("PNG", "WEBP")) as image:
        return image.size
