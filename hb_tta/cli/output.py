"""The folder that ``hb-tta augment`` fills: the views as PNG, and a manifest of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.cli.requests import Failure, Request
from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.store import content_key

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.augment import Augmentation

MANIFEST = "manifest.json"


class Output:
    """Writes views as they come and a manifest of them at the end.

    A view's file is named by its request's index and its seed alone: a name taken from the
    question could tell the answer. A file of the same name is replaced.

    Args:
        folder: made as needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: list[dict[str, Any]] = []
        self._specs: dict[str, dict[str, Any]] = {}

    def add(self, request: Request, augmentation: Augmentation) -> None:
        """Write the views of one request.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        views = []
        for view, seed in zip(augmentation.views, augmentation.seeds, strict=True):
            name = f"{request.index:06d}-seed{seed}.png"
            write_result(self.folder / name, png(view))
            views.append({"seed": seed, "file": name})
        spec_hash = content_key(augmentation.spec)
        self._specs[spec_hash] = augmentation.spec
        self.items.append(
            {
                "index": request.index,
                "image": str(request.image),
                "question": request.question,
                "task": request.task,
                "description": augmentation.description,
                "warnings": augmentation.warnings,
                "spec_hash": spec_hash,
                "views": views,
            }
        )

    def write_manifest(self, failures: Sequence[Failure] = ()) -> Path:
        """Write ``manifest.json``: an item a request, every spec under its hash, the failures."""
        manifest = {
            "items": self.items,
            "specs": self._specs,
            "failures": [{"index": f.index, "reason": f.reason} for f in failures],
        }
        path = self.folder / MANIFEST
        write_result(path, json.dumps(manifest, indent=2).encode())
        return path


def write_result(path: Path, data: bytes) -> None:
    """Write a file that a person asked for with ``--out``.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_aside(path, data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): mend that or name another "
            "place with --out; the store keeps the views, so they are not generated again"
        ) from error


def png(image: Image) -> bytes:
    """The image as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
