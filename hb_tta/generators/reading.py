"""Where a diffusers pipeline lies, and its index. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from safetensors import SafetensorError

from hb_tta.device import check_memory
from hb_tta.errors import UserError
from hb_tta.network import hub_answers
from hb_tta.reading import parse_json, read_bytes
from hb_tta.weights import Weights

INDEX = "model_index.json"


def read_index(base: Weights, what: str = "a diffusers pipeline") -> dict[str, Any]:
    """A pipeline's model_index.json: "_class_name", and part → [library, class].

    Raises:
        UserError: there is none, or it cannot be read.
    """
    with reading(base, what):
        index = parse_json(read_bytes(base.file(INDEX)))
        if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
            raise ValueError(f"{INDEX} names no pipeline")
    parts = {name: part for name, part in index.items() if isinstance(part, list)}
    return {"_class_name": index["_class_name"], **parts}


def is_sdxl(base: Weights) -> bool:
    """Whether a base's index names a Stable Diffusion XL pipeline.

    Raises:
        UserError: see ``read_index``.
    """
    return read_index(base)["_class_name"].startswith("StableDiffusionXL")


def located(weights: Weights) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds the weights: its first argument and its options.

    A hub id is passed on as it is, at the fingerprint's commit: of a repository with several
    variants (SDXL Base 1.0 has 70 GB of them) only the files in use are fetched.
    """
    if weights.subfolder or weights.is_folder():
        return weights.local_folder(), {}
    return weights.location, {
        "revision": weights.commit(),
        # Else diffusers asks first, and complains.
        "local_files_only": constants.HF_HUB_OFFLINE or not hub_answers(),
    }


@contextmanager
def reading(weights: Weights, what: str) -> Iterator[None]:
    """Turns the libraries' many complaints about files into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, MemoryError, SafetensorError) as error:
        check_memory(error, f"the weights {weights.location!r}")
        reason = " ".join(str(error).split())
        fetched = (
            "" if weights.is_folder() else f" (`hb-tta download {weights.location}` fetches it)"
        )
        raise UserError(
            f"{weights.location!r} cannot be loaded as {what}{fetched}: {reason[:300]}"
        ) from error
