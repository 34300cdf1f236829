"""Tensors that are computed once and kept in the store's namespace "features".

A key names content alone: the model's and the generator's fingerprints, the images' digests and
every setting. Files are known again by ``FileIndex``, so a second run decodes no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image
from safetensors.torch import load, save
from torch import Tensor

from hb_tta.errors import UserError
from hb_tta.file_index import FileIndex
from hb_tta.images import load_image, pixel_digest
from hb_tta.store import AnyStore, content_key


def cached_tensors(
    store: AnyStore,
    request: Mapping[str, Any],
    make: Callable[[], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """The tensors of a request, from the store or made now and kept.

    Processes on one store make them once: who comes second waits and reads.

    Args:
        store: where they are kept.
        request: plain JSON that decides them.
        make: computes them, by name.
    """
    key = content_key(request)
    found = store.read("features", key)
    if found is None:
        with store.lock("features", key):
            found = store.read("features", key)
            if found is None:
                tensors = {name: value.cpu().contiguous() for name, value in make().items()}
                found = save(tensors), {"entry": request.get("entry")}
                store.put("features", key, *found)
    return load(found[0])


def image_identities(images: Iterable[Path | Image]) -> list[str]:
    """What stands for images in a key: the digest of a file's bytes, or of the pixels.

    Raises:
        UserError: a file cannot be read.
    """
    index = FileIndex("images.json")
    identities = []
    for image in images:
        if isinstance(image, Image):
            identities.append("pixels:" + pixel_digest(load_image(image)))
            continue
        try:
            identities.append("file:" + index.digest(Path(image)))
        except OSError as error:
            raise UserError(
                f"the image {str(image)!r} cannot be read ({error.strerror}): check the data"
            ) from error
    index.save()
    return identities
