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


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation, on any device, into a ``UserError``.

    Args:
        what: what did not fit, as in "64 views of 8 images".
        remedy: what to do about it.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(f"{what} do not fit into memory: {remedy}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the CPU's allocator has no class of its own
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
