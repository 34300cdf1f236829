"""Tensors that are computed once and kept in the store's namespace "features".

A key names content alone: the model's and the generator's fingerprints, the images' digests and
every setting. Files are known again by ``FileIndex``, so a second run decodes no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from safetensors.torch import load, save
from torch import Tensor

from hb_tta.errors import UserError
from hb_tta.file_index import FileIndex
from hb_tta.images import load_image, pixel_digest
from hb_tta.store import AnyStore, NewEntry, content_key
from hb_tta.store.fill import fill, read_entries


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


def kept_tensors(
    store: AnyStore,
    requests: Sequence[Mapping[str, Any]],
    make: Callable[[Sequence[int]], Iterable[Mapping[str, Tensor]]],
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """The tensors of many requests, from the store or made in batches now and kept.

    Processes on one store share the work (``fill``).

    Args:
        store: where they are kept.
        requests: plain JSON each, which decides its tensors.
        make: numbers of requests → their tensors by name, in that order.
        batch_size: most requests a call of ``make``.
    """
    keys = [content_key(request) for request in requests]
    numbers = {key: number for number, key in enumerate(keys)}

    def entries(batch: list[str]) -> Iterator[NewEntry]:
        made = make([numbers[key] for key in batch])
        for key, tensors in zip(batch, made, strict=True):
            plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
            yield NewEntry(key, save(plain), {"entry": requests[numbers[key]].get("entry")})

    found: dict[str, dict[str, Tensor]] = {}
    missing = read_entries(store, "features", numbers, load, found)
    if missing:
        fill(store, "features", missing, entries, batch_size=batch_size)
        if read_entries(store, "features", missing, load, found):
            raise UserError(
                "entries vanish as soon as they are made: stop whoever prunes the store"
            )
    return [found[key] for key in keys]


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
