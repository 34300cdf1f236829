"""Where models run if nobody says so, found out without importing torch; and their memory's end.

The number format belongs to the store's key, and a call that the store can answer imports no
torch: hence the look through NVIDIA's management library. (It starts no CUDA context, so a later
fork can still use the GPU.)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata

from hb_tta.errors import UserError, choose_from

DTYPES = ("float32", "bfloat16", "float16")


def default_device() -> str:
    """The device's name: "cuda" where torch can use an NVIDIA GPU, else "cpu"."""
    return "cuda" if _visible_gpu() and not _torch_is_cpu_build() else "cpu"


def check_device(device: str | None) -> None:
    """Raises UserError where a device is not this machine's."""
    if device is not None and device.startswith("cuda") and default_device() == "cpu":
        raise UserError(f"device {device!r} is not to be had: torch finds no NVIDIA GPU")


def default_dtype(device: str | None = None) -> str:
    """The number format for a device: float32 on a CPU, bfloat16 on a GPU.

    bfloat16 rather than float16: it has float32's range, so SDXL's VAE, which overflows in float16
    and then gives black images, can decode in it.
    """
    return "bfloat16" if (device or default_device()).startswith("cuda") else "float32"


def check_dtype(dtype: str) -> None:
    """Raises UserError unless ``dtype`` is one of ``DTYPES``."""
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not known{choose_from(dtype, DTYPES)}")


_NO_ROOM = ("allocate memory", "bad_alloc", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: torch, C++ and the system say it in many ways."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, without importing it
        or (isinstance(error, RuntimeError | OSError) and _says_no_room(str(error)))
    )


def _says_no_room(text: str) -> bool:
    return any(words in text for words in _NO_ROOM)


def check_memory(error: BaseException, what: str) -> None:
    """Raises UserError where an error says that memory is short.

    Args:
        error: of whatever kind.
        what: what did not fit, as in "the weights 'org/name'".
    """
    if is_out_of_memory(error):
        raise UserError(
            f"{what} do not fit into memory: close other programs, take a machine with more, or "
            "a smaller model"
        ) from error


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation, on any device, into a ``UserError``.

    Args:
        what: what did not fit, as in "64 views of 8 images".
        remedy: what to do about it.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{what} do not fit into memory: {remedy}") from error


@cache
def _visible_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    count = ctypes.c_uint(0)
    try:
        nvml = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        ready = nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return False
    return ready and count.value > 0


@cache
def _torch_is_cpu_build() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return True
