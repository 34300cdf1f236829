"""What a store's entry is: the key it lies under, and bytes that prove themselves whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hb_tta.reading import parse_json, read_bytes


def content_key(request: Mapping[str, Any]) -> str:
    """The key of what a request makes: the SHA-256 of its canonical JSON, 64 hex digits.

    Canonical JSON has sorted keys, no spaces, ASCII alone, and floats by ``repr``. An integer and
    the float that equals it are different requests: a spec settles its own types. A tuple counts as
    a list.

    Raises:
        TypeError: something in it is not plain JSON (a path, an array, a key that is no string…);
            the message says where. Guessing a string for it would let two requests share a key.
        ValueError: a float is NaN or infinite.
    """
    return hashlib.sha256(_canonical_json(request)).hexdigest()


def _canonical_json(value: Mapping[str, Any]) -> bytes:
    plain = dict(value)
    _check_json(plain, "request")
    text = json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def _check_json(value: object, where: str) -> None:
    # By type, not isinstance: numpy's float64 is a float and an enum may be a string, and what
    # those would be written as is up to the library's version.
    if type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{where} has the key {name!r}, which is no string")
            _check_json(item, f"{where}[{name!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type]
            _check_json(item, f"{where}[{index}]")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"{where} is a {type(value).__name__}, which is not plain JSON: {value!r}")


# The last line of an entry: the payload's length, and the digest of that and of all before the
# line. It has a fixed size, so that it is found from the end.
_FOOTER = "\nhb-tta entry 1 {length:016x} {digest}\n"
_FOOTER_SIZE = len(_FOOTER.format(length=0, digest="0" * 64))


class NewEntry(NamedTuple):
    """An entry to be put into a store: its key, its payload, and plain JSON for people to read."""

    key: str
    payload: bytes
    meta: Mapping[str, Any]


class DamagedEntry(Exception):
    """An entry's bytes are not those that were written, or not those of its key."""


def seal(payload: bytes, manifest: Mapping[str, Any]) -> bytes:
    """The bytes of an entry: the payload, its manifest as a line of JSON, the closing line."""
    body = payload + b"\n" + _canonical_json(manifest)
    return body + _footer(body, len(payload))


def sealed(namespace: str, entry: NewEntry) -> bytes:
    """The bytes of an entry in a namespace."""
    manifest = {"namespace": namespace, "key": entry.key, "meta": dict(entry.meta)}
    return seal(entry.payload, manifest)


def unseal(entry: bytes) -> tuple[bytes, dict[str, Any]]:
    """The payload and the manifest of an entry.

    Raises:
        DamagedEntry: it was cut short, a bit of it changed, or its manifest is none of ours.
    """
    body, footer = entry[:-_FOOTER_SIZE], entry[-_FOOTER_SIZE:]
    try:
        length = int(footer.split()[3], 16)
    except (IndexError, ValueError):
        raise DamagedEntry("its closing line is missing, so it was cut short") from None
    if _footer(body, length) != footer:
        raise DamagedEntry("its bytes do not match their digest")
    try:
        manifest = parse_json(body[length:])
    except ValueError:
        raise DamagedEntry("its manifest is no JSON") from None
    if not isinstance(manifest, dict):
        raise DamagedEntry("its manifest is no JSON object")
    return body[:length], manifest


def _footer(body: bytes, length: int) -> bytes:
    digest = hashlib.sha256(b"%016x" % length)
    digest.update(body)
    return _FOOTER.format(length=length, digest=digest.hexdigest()).encode("ascii")


def load_entry(namespace: str, key: str, path: Path) -> tuple[bytes, dict[str, Any]]:
    """An entry's payload and ``meta`` from its file, which is read once.

    Raises:
        DamagedEntry: its bytes are not those that were written, or not those of this key.
        OSError: it cannot be read.
    """
    return proved(namespace, key, read_bytes(path))


def proved(namespace: str, key: str, entry: bytes) -> tuple[bytes, dict[str, Any]]:
    """An entry's payload and ``meta`` from its bytes.

    Raises:
        DamagedEntry: they are not those that were written, or not those of this key.
    """
    payload, manifest = unseal(entry)
    if (manifest.get("namespace"), manifest.get("key")) != (namespace, key):
        raise DamagedEntry("it is the entry of another key")
    if not isinstance(manifest.get("meta"), dict):
        raise DamagedEntry("its manifest says nothing of how it was made")
    return payload, manifest["meta"]
