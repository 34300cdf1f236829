"""WebDataset: tar files, in which the files of one sample have one name and stand together.

A view is ``<key>.png`` or ``<key>.webp`` with ``<key>.json``, what is told of it; a description or
a score is ``<key>.json`` alone, with its payload in it.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hb_tta.reading import parse_json
from hb_tta.sharing.entries import LARGEST, SHARD_BYTES, Damage, SharedEntry

_NAME = re.compile(r"([0-9a-f]{64})\.(png|webp|json)")


class Tars:
    """See ``Container``."""

    suffix = ".tar"

    def write(self, path: Path, namespace: str, entries: Iterator[SharedEntry]) -> int:
        """See ``Container.write``."""
        count = 0
        with open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for entry in entries:
                told = _told(entry)
                if namespace == "views":
                    kind = "webp" if entry.payload[8:12] == b"WEBP" else "png"
                    _add(tar, f"{entry.key}.{kind}", entry.payload)
                else:
                    told["payload"] = entry.payload.decode()
                _add(tar, f"{entry.key}.json", json.dumps(told).encode())
                count += 1
                if file.tell() >= SHARD_BYTES:
                    break
        return count

    def read(self, path: Path) -> Iterator[SharedEntry | Damage]:
        """See ``Container.read``."""
        pictures: dict[str, bytes] = {}
        try:
            with tarfile.open(path, mode="r|") as tar:
                for member in tar:
                    named = _NAME.fullmatch(member.name)
                    if named is None or not member.isreg() or member.size > LARGEST:
                        yield Damage(f"{path.name}/{member.name[:100]}", "it is no part of a set")
                        continue
                    opened = tar.extractfile(member)
                    data = b"" if opened is None else opened.read()
                    if len(data) != member.size:
                        raise tarfile.ReadError("it ends in the middle of a file")
                    if named[2] != "json":
                        pictures = {named[1]: data}  # its json stands behind it
                        continue
                    yield _entry(path, named[1], data, pictures.pop(named[1], None))
        except (tarfile.TarError, OSError, EOFError) as error:
            yield Damage(path.name, f"it is damaged or cut short ({error})")
        for key in pictures:
            yield Damage(f"{path.name}/{key}", "nothing is told of it")


def _told(entry: SharedEntry) -> dict[str, Any]:
    return {"namespace": entry.namespace, "sha256": entry.sha256, "meta": dict(entry.meta)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _entry(path: Path, key: str, data: bytes, picture: bytes | None) -> SharedEntry | Damage:
    try:
        told = parse_json(data)
        payload = told["payload"].encode() if picture is None else picture
        return SharedEntry(told["namespace"], key, payload, told["meta"], told["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Damage(f"{path.name}/{key}", "what is told of it cannot be read")
