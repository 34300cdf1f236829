"""Writing a LoRA in any of its formats, with its scale and exactly its layers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from hb_tta.disk import write_aside
from hb_tta.errors import UserError, choose_from, shown
from hb_tta.lora.names import kohya_name
from hb_tta.lora.parts import Part, file_of
from hb_tta.lora.plain import DOWN, UP, Lora
from hb_tta.lora.read import (
    CONFIG_FILE,
    DIFFUSERS_FILE,
    KOHYA,
    METADATA,
    PEFT_PREFIX,
    UNET,
    WEIGHTS_FILE,
)

FORMATS = ("peft", "diffusers", "kohya")
KOHYA_FILE = "hummingbird_kohya.safetensors"


def write_lora(lora: Lora, folder: Path, form: str) -> Path:
    """Writes a LoRA into a folder.

    Args:
        form: "peft": for this package and PEFT; "diffusers": for ``load_lora_weights``; "kohya":
            for ComfyUI and sd-scripts.

    Returns:
        The folder or file to give to who uses it.

    Raises:
        UserError: there is no such format, or it has no name for a layer.
    """
    if form not in FORMATS:
        raise UserError(f"there is no LoRA format {form!r}{choose_from(form, FORMATS)}")
    if form == "peft":
        keyed = {PEFT_PREFIX + key: part for key, part in lora.parts.items()}
        write_aside(folder / WEIGHTS_FILE, file_of(keyed, {"format": "pt"}))
        config = json.dumps(_config(lora), indent=2, sort_keys=True) + "\n"
        write_aside(folder / CONFIG_FILE, config.encode())
        return folder
    path = folder / (DIFFUSERS_FILE if form == "diffusers" else KOHYA_FILE)
    write_aside(path, _diffusers(lora) if form == "diffusers" else _kohya(lora))
    return path


def _diffusers(lora: Lora) -> bytes:
    metadata = {UNET + key: value for key, value in _config(lora).items()}
    header = {"format": "pt", METADATA: json.dumps(metadata, sort_keys=True)}
    return file_of({UNET + key: part for key, part in lora.parts.items()}, header)


def _kohya(lora: Lora) -> bytes:
    keyed = {}
    for module in lora.modules:
        name = kohya_name(module)
        if name is None:
            raise UserError(
                f"kohya's naming cannot tell the module {shown(module)}: use another format"
            )
        keyed[f"{KOHYA}{name}.lora_down.weight"] = lora.parts[module + DOWN]
        keyed[f"{KOHYA}{name}.lora_up.weight"] = lora.parts[module + UP]
        alpha = struct.pack("<f", lora.alphas[module])
        keyed[f"{KOHYA}{name}.alpha"] = Part("F32", (), alpha)
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(lora.alpha),
    }
    return file_of(keyed, header)


def _config(lora: Lora) -> dict[str, Any]:
    """PEFT's configuration, with what its ``save_pretrained`` writes of a plain LoRA.

    Layers whose rank or alpha is not that of most are named in patterns.
    """
    ranks, rank, alpha = lora.ranks, lora.rank, lora.alpha
    alphas = {module: _number(own) for module, own in lora.alphas.items() if own != alpha}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(alpha),
        "target_modules": list(lora.target_modules or lora.modules),
        "rank_pattern": {module: own for module, own in ranks.items() if own != rank},
        "alpha_pattern": alphas,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
