"""A trained MUMU on disk: one layout for every scale.

    mumu.json     tokens an image, registers, and the bases that it was trained on
    vlm/          a PEFT LoRA for the VLM that mumu.json names, or the VLM's own weights, or nothing
    connector/    config.json, model.safetensors
    unet_lora/    a PEFT LoRA for the UNet of any Stable Diffusion XL
    processor/    Idefics2's

Only safetensors; ``unet_lora/`` and, beside a named VLM, ``vlm/`` may be absent. What does not fit
together is refused when it is loaded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hb_tta.disk import write_aside
from hb_tta.errors import UserError, shown
from hb_tta.lora import Lora, read_peft, write_lora
from hb_tta.reading import parse_json, read_bytes, user_path
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hb_tta.generators.mumu.connector import Connector
    from hb_tta.generators.mumu.encoder import Encoder

INDEX, FORMAT = "mumu.json", 1
VLM, CONNECTOR, UNET_LORA, PROCESSOR = "vlm", "connector", "unet_lora", "processor"
LORA_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Index:
    """What ``mumu.json`` says.

    Attributes:
        generator: hub id or name of the Stable Diffusion XL that it was trained on.
        vlm: the Idefics2 that the LoRA in ``vlm/``, if any, is for: its hub id, or a folder, told
            from this one ("../mllm_two"); ``None``: ``vlm/`` holds a whole one.
        tokens: an image, where nobody says otherwise.
        registers: end-of-text tokens behind every prompt.
    """

    generator: str
    vlm: str | None = None
    tokens: int = 324
    registers: int = 0


class Parts(NamedTuple):
    """What turns prompts into the UNet's context, and what its folder says of it."""

    told: Index
    encoder: Encoder
    connector: Connector


def read_index(mumu: Weights) -> Index:
    """What a folder's ``mumu.json`` says; no weights are read. Imports no torch.

    Raises:
        UserError: it is no MUMU's folder, or of a later format.
    """
    try:
        written = parse_json(read_bytes(mumu.file(INDEX)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{mumu.location!r} is no MUMU: its {INDEX} cannot be read ({reason}); name the folder "
            "that a training wrote"
        ) from error
    return _index(written, mumu.location)


def vlm_weights(mumu: Weights, index: Index, given: Weights | None = None) -> Weights | None:
    """Where the VLM's own weights are, if they are not in the folder.

    Args:
        given: in place of those that the index names, a copy in a folder for example.

    Raises:
        UserError: some are given and the folder has its own.
    """
    if index.vlm is not None:
        return given or _named_vlm(mumu, index.vlm)
    if given is not None:
        raise UserError(f"{mumu.location!r} holds its own VLM: leave vlm={given.location!r} out")
    return None


def load_parts(mumu: Weights, *, dtype: str, vlm: Weights | None = None) -> Parts:
    """Encoder and connector, on the CPU, frozen, in eval mode.

    Args:
        mumu: a folder or hub repository in this layout.
        dtype: "float32", "bfloat16" or "float16".
        vlm: see ``vlm_weights``.

    Raises:
        UserError: something is missing, damaged, or does not fit the rest.
    """
    import torch

    from hb_tta.generators.mumu.connector import Connector
    from hb_tta.generators.mumu.encoder import Encoder, load_processor, load_vlm

    index, number = read_index(mumu), getattr(torch, dtype)
    elsewhere = vlm_weights(mumu, index, vlm)
    model = load_vlm(elsewhere or part(mumu, VLM), number)
    if elsewhere is not None:
        _add_vlm_lora(model, mumu)
    encoder = Encoder(model, load_processor(part(mumu, PROCESSOR)), index.registers)
    connector = Connector.load(part(mumu, CONNECTOR), number)
    if connector.config.in_features != encoder.width:
        raise UserError(
            f"{mumu.location!r} has a connector for states of {connector.config.in_features} "
            f"numbers, its VLM gives {encoder.width}: they are of different trainings"
        )
    return Parts(index, encoder, connector)


def unet_lora(mumu: Weights) -> str | None:
    """The folder of the UNet's LoRA; ``None``: there is none."""
    return _local(part(mumu, UNET_LORA), LORA_CONFIG)


def part(mumu: Weights, name: str) -> Weights:
    """A subfolder of the layout."""
    inside = f"{mumu.subfolder}/{name}" if mumu.subfolder else name
    return replace(mumu, subfolder=inside)


def save(
    folder: Path,
    index: Index,
    *,
    connector: Connector,
    processor: Any,
    vlm: PreTrainedModel | None = None,
    vlm_lora: Lora | None = None,
    unet_lora: Lora | None = None,
) -> None:
    """Write a trained MUMU; the index comes last, so that a folder with one is whole.

    Args:
        folder: made as needed.
        index: names the VLM's base exactly where ``vlm`` is not given.
        connector, processor: as ``load_parts`` has them.
        vlm: a whole VLM, whose perceiver, if any, is not kept.
        vlm_lora, unet_lora: of what was trained.
    """
    assert (vlm is None) == (index.vlm is not None), "a base by its id, or the weights themselves"
    if vlm is not None:
        vlm.save_pretrained(folder / VLM)
    if vlm_lora is not None:
        write_lora(vlm_lora, folder / VLM, "peft")
    if unet_lora is not None:
        write_lora(unet_lora, folder / UNET_LORA, "peft")
    connector.save(folder / CONNECTOR)
    processor.save_pretrained(folder / PROCESSOR)
    told = json.dumps({"format": FORMAT, **asdict(index)}, indent=2) + "\n"
    write_aside(folder / INDEX, told.encode())


def _named_vlm(mumu: Weights, name: str) -> Weights:
    """By hub id, or by a path from the MUMU's own folder."""
    if name.startswith("../") and mumu.is_folder():
        return Weights(str(Path(user_path(mumu.location), mumu.subfolder or "", name)))
    return Weights(name)


def _add_vlm_lora(model: Any, mumu: Weights) -> None:
    from hb_tta.generators.lora import attach_lora

    folder = _local(part(mumu, VLM), LORA_CONFIG)
    if folder is not None:
        attach_lora(model, read_peft(Path(folder)), folder, whose="the VLM")


def _local(weights: Weights, name: str) -> str | None:
    """The folder of weights, where it holds a file of that name."""
    assert weights.subfolder is not None
    if weights.is_folder() and not Path(user_path(weights.location), weights.subfolder).is_dir():
        return None
    try:
        weights.file(name)
    except FileNotFoundError:
        return None
    return weights.local_folder()


def _index(written: Any, where: str) -> Index:
    names = {field.name for field in fields(Index)}
    if not isinstance(written, dict) or written.get("format") != FORMAT:
        told = written.get("format") if isinstance(written, dict) else written
        raise UserError(
            f"{where!r} has a {INDEX} of format {shown(told)}, this version reads {FORMAT}: "
            "install the version that wrote it"
        )
    said = {name: value for name, value in written.items() if name != "format"}
    kinds = {"generator": (str,), "vlm": (str, type(None)), "tokens": (int,), "registers": (int,)}
    for name, value in said.items():
        if name not in names or type(value) not in kinds[name]:
            raise UserError(f"{where!r} has a {INDEX} with {name}={shown(value)}: fetch it again")
    if names - said.keys() or said["tokens"] < 1 or not 0 <= said["registers"] <= 1024:
        raise UserError(f"{where!r} has a {INDEX} that lacks something or is out of range")
    return Index(**said)
