"""Tensors of a safetensors file as bytes with a shape, checked at reading. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from hb_tta.errors import UserError, shown
from hb_tta.reading import read_bytes

_BITS: Mapping[str, np.dtype] = {
    "F64": np.dtype("<u8"),
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
}
_EXPONENT = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What numbers a LoRA may have, by safetensors' names."""


@dataclass(frozen=True)
class Part:
    """One tensor.

    Attributes:
        dtype: one of ``DTYPES``.
        shape: of the tensor.
        data: its numbers, little-endian, the last dimension fastest.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def is_finite(self) -> bool:
        """Whether no number is infinite or none: those have all bits of the exponent set."""
        exponent = _BITS[self.dtype].type(_EXPONENT[self.dtype])
        return not bool(((self._bits() & exponent) == exponent).any())

    def number(self) -> float:
        """The value of a tensor of one."""
        bits = self._bits()
        if self.dtype == "BF16":  # the upper half of a float32
            return float((bits.astype("<u4") << 16).view("<f4")[0])
        return float(bits.view(DTYPES[self.dtype])[0])

    def _bits(self) -> np.ndarray:
        return np.frombuffer(self.data, _BITS[self.dtype])


def read_parts(path: Path) -> tuple[dict[str, Part], dict[str, str]]:
    """A file's tensors by name, all of them finite and of a float dtype; and its metadata.

    Raises:
        UserError: it is damaged or no safetensors file, or holds something else.
    """
    try:
        data = read_bytes(path)
        raw = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{str(path)!r} is damaged or no safetensors file ({reason}): fetch it again"
        ) from error
    if not raw:
        raise UserError(f"{str(path)!r} holds no tensors: fetch it again")
    parts = {name: _part(path, name, about) for name, about in raw}
    return parts, header.get("__metadata__") or {}


def _part(path: Path, name: str, about: Mapping) -> Part:
    if about["dtype"] not in DTYPES:
        raise UserError(
            f"{str(path)!r} holds {shown(name)} in {about['dtype']}: a LoRA's tensors are "
            f"{', '.join(DTYPES.values())}; save it again in one of them"
        )
    part = Part(about["dtype"], tuple(about["shape"]), about["data"])
    if not part.size:
        raise UserError(f"{str(path)!r} holds {shown(name)} without a number in it: it is damaged")
    if not part.is_finite():
        raise UserError(
            f"{str(path)!r} holds {shown(name)} with numbers that are not finite: its training "
            "went wrong; take an earlier save"
        )
    return part


def file_of(parts: Mapping[str, Part], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file of parts: the header's length, the header as JSON, the numbers."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    order = sorted(parts, key=lambda name: (-_BITS[parts[name].dtype].itemsize, name))
    end = 0
    for name in order:
        begin, end = end, end + len(parts[name].data)
        shape = list(parts[name].shape)
        header[name] = {"dtype": parts[name].dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(parts[n].data for n in order)])
