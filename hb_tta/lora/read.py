"""Reading a LoRA of a UNet in any of its formats, exactly or not at all.

What is lost easily is the scale alpha/r, and which layers are meant. What a file does not say is
not guessed, and what is not understood is refused by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError, shown
from hb_tta.lora.config import Config, read_config
from hb_tta.lora.names import is_unet_path, kohya_path
from hb_tta.lora.parts import Part, read_parts
from hb_tta.lora.plain import DOWN, UP, Lora, check_whole, named_by
from hb_tta.reading import parse_json, read_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # what load_lora_weights looks for in a folder
PEFT_PREFIX = "base_model.model."  # what PeftModel.save_pretrained puts before every key
METADATA = "lora_adapter_metadata"  # diffusers' key in the file's header
UNET = "unet."
KOHYA = "lora_unet_"

_TEXT = ("text_encoder", "text_model.", "lora_te", "te.", "te1.", "te2.")
_ENDINGS = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora.down.weight": DOWN,  # of diffusers' own training scripts
    ".lora.up.weight": UP,
}
_PROCESSOR = re.compile(  # of diffusers before 0.20
    r"(?P<attention>[\w.]+)\.processor\.(?P<name>to_(?:q|k|v|out))_lora\.(?P<part>down|up)\.weight"
)


def read_lora(path: Path, alpha: float | None = None) -> tuple[Lora, str]:
    """A LoRA and the format that it lies in: "peft", "diffusers" or "kohya".

    Args:
        path: PEFT's folder, a folder with diffusers' file or with one other .safetensors file, or
            such a file.
        alpha: of a file that does not say it.

    Raises:
        UserError: it is none of them, or damaged, or says what is not understood, or has lost its
            scale.
    """
    try:
        if (path / CONFIG_FILE).is_file():
            _check_unsaid(alpha, path)
            return _read_peft(path), "peft"
        file = _only_file(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    parts, metadata = read_parts(file)
    _check_no_text(parts, file)
    if any(key.startswith(KOHYA) for key in parts):
        return _read_kohya(file, parts, alpha), "kohya"
    if any(key.startswith(UNET) for key in parts):
        return _read_diffusers(file, parts, metadata, alpha), "diffusers"
    raise UserError(
        f"{str(file)!r} is no LoRA in diffusers' or kohya's naming: its first tensor is "
        f"{shown(min(parts))}; PEFT's comes as a folder with {CONFIG_FILE}"
    )


def read_peft(folder: Path) -> Lora:
    """A LoRA of any model, as PEFT's ``save_pretrained`` writes it.

    Raises:
        UserError: it is missing, damaged or no plain LoRA.
    """
    try:
        return _read_peft(folder, of_unet=False)
    except OSError as error:
        raise UserError(f"{str(folder)!r} cannot be read ({error.strerror})") from error


def _check_unsaid(alpha: float | None, path: Path) -> None:
    if alpha is not None:
        raise UserError(f"{str(path)!r} says its scale itself: leave --alpha out")


def _only_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no LoRA at {str(path)!r}: name PEFT's folder or a file")
        return path
    files = [path / DIFFUSERS_FILE]
    if not files[0].is_file():
        files = [file for file in sorted(path.glob("*.safetensors")) if file.is_file()]
    if len(files) != 1 or files[0].name == WEIGHTS_FILE:
        many = "several LoRAs: name one of the files" if len(files) > 1 else "no LoRA"
        raise UserError(
            f"{str(path)!r} holds {many}; it has neither {CONFIG_FILE} nor {DIFFUSERS_FILE}"
        )
    return files[0]


def _check_no_text(parts: Mapping[str, Part], file: Path) -> None:
    text = [key for key in parts if key.startswith(_TEXT)]
    if text:
        raise UserError(
            f"{str(file)!r} also changes a text encoder ({len(text)} tensors, such as "
            f"{shown(min(text))}): only a LoRA of the UNet alone can be used"
        )


# ── PEFT ─────────────────────────────────────────────────────────────────────────────────────────


def _read_peft(folder: Path, *, of_unet: bool = True) -> Lora:
    config = read_config(_json(folder / CONFIG_FILE), str(folder / CONFIG_FILE))
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(
            f"{str(folder)!r} has no {WEIGHTS_FILE}: pickled weights are never read, save the "
            "LoRA again with safe_serialization=True"
        )
    parts, _ = read_parts(folder / WEIGHTS_FILE)
    plain = {key.removeprefix(PEFT_PREFIX): part for key, part in parts.items()}
    for key in plain:
        if not key.endswith((DOWN, UP)):
            raise UserError(f"{str(folder)!r} holds {shown(key)}, which is no part of a plain LoRA")
    return _configured(plain, config, str(folder), of_unet=of_unet)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read ({reason}): fetch the LoRA again") from error


def _configured(
    plain: dict[str, Part], config: Config, where: str, *, of_unet: bool = True
) -> Lora:
    """The LoRA of tensors and their configuration, which must say the same."""
    modules = {key.removesuffix(DOWN).removesuffix(UP) for key in plain}
    if of_unet:
        _check_paths(modules, where)
    alphas = {module: config.alpha_of(module) for module in modules}
    lora = check_whole(Lora(plain, alphas, config.target_modules), where)
    for module, rank in lora.ranks.items():
        if rank != config.rank_of(module):
            raise UserError(
                f"{where} says r={config.rank_of(module)} of {shown(module)}, its tensors have "
                f"r={rank}: it is damaged"
            )
        if config.target_modules and not named_by(module, config.target_modules):
            raise UserError(
                f"{where} has tensors of {shown(module)}, which its target_modules do not name: "
                "it is damaged"
            )
    return lora


def _check_paths(modules: set[str], where: str) -> None:
    others = [module for module in modules if not is_unet_path(module)]
    if others:
        raise UserError(
            f"{where} changes {shown(min(others))} ({len(others)} layers of the kind), which is no "
            "layer of a UNet: only a LoRA of the UNet alone can be used"
        )


# ── diffusers ────────────────────────────────────────────────────────────────────────────────────


def _read_diffusers(
    file: Path, parts: Mapping[str, Part], metadata: Mapping[str, str], alpha: float | None
) -> Lora:
    plain: dict[str, Part] = {}
    alphas: dict[str, float] = {}
    for key, part in parts.items():
        module, kind = _diffusers_key(key)
        if kind == "alpha":
            alphas[module] = _alpha(part, key, file)
        elif kind is None or module + kind in plain:
            raise UserError(f"{str(file)!r} holds {shown(key)}: only a plain LoRA can be read")
        else:
            plain[module + kind] = part
    if METADATA in metadata:
        if alphas:
            raise UserError(f"{str(file)!r} says its scale twice, in its header and in alphas")
        _check_unsaid(alpha, file)
        return _configured(plain, _header_config(file, metadata[METADATA]), str(file))
    return _unconfigured(plain, alphas, alpha, file)


def _diffusers_key(key: str) -> tuple[str, str | None]:
    """The layer that a tensor belongs to, and what it is of it; None: not known."""
    if not key.startswith(UNET):
        return key, None
    name = key.removeprefix(UNET)
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), kind
    if name.endswith(".alpha"):
        return name.removesuffix(".alpha"), "alpha"
    if found := _PROCESSOR.fullmatch(name):
        layer = "to_out.0" if found["name"] == "to_out" else found["name"]
        return f"{found['attention']}.{layer}", DOWN if found["part"] == "down" else UP
    return name, None


def _header_config(file: Path, text: str) -> Config:
    where = f"{str(file)!r}, in its header,"
    try:
        written = parse_json(text)
    except ValueError:
        raise UserError(f"{where} has a {METADATA} that is no JSON: fetch it again") from None
    if not isinstance(written, dict):
        raise UserError(f"{where} has a {METADATA} that is no JSON object: fetch it again")
    for key in written:
        if not key.startswith(UNET):
            raise UserError(
                f"{where} speaks of {shown(key)}: only a LoRA of the UNet alone can be used"
            )
    own = {key.removeprefix(UNET): value for key, value in written.items()}
    return read_config({"peft_type": "LORA"} | own, where)


# ── kohya ────────────────────────────────────────────────────────────────────────────────────────


def _read_kohya(file: Path, parts: Mapping[str, Part], alpha: float | None) -> Lora:
    kinds = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": "alpha"}
    plain: dict[str, Part] = {}
    alphas: dict[str, float] = {}
    for key, part in parts.items():
        name, _, ending = key.removeprefix(KOHYA).partition(".")
        module, kind = kohya_path(name), kinds.get(ending)
        if not key.startswith(KOHYA) or module is None or kind is None or module + kind in plain:
            raise UserError(
                f"{str(file)!r} holds {shown(key)}, which is no part of a plain LoRA of a UNet "
                "that is known here"
            )
        if kind == "alpha":
            alphas[module] = _alpha(part, key, file)
        else:
            plain[module + kind] = part
    return _unconfigured(plain, alphas, alpha, file)


def _alpha(part: Part, key: str, file: Path) -> float:
    if part.size != 1:
        raise UserError(
            f"{str(file)!r} has {shown(key)} of the shape {part.shape}: it must be a number"
        )
    return part.number()


def _unconfigured(
    plain: dict[str, Part], alphas: dict[str, float], alpha: float | None, file: Path
) -> Lora:
    """A LoRA whose file says nothing of the rule that its layers were chosen by."""
    modules = {key.removesuffix(DOWN).removesuffix(UP) for key in plain}
    _check_paths(modules | alphas.keys(), str(file))
    if strays := alphas.keys() - modules:
        raise UserError(f"{str(file)!r} has an alpha of {shown(min(strays))} and no tensors of it")
    without = modules - alphas.keys()
    if not without:
        _check_unsaid(alpha, file)
    if without and (alpha is None or not math.isfinite(alpha)):
        raise UserError(
            f"{str(file)!r} has lost its scale (no alpha of {shown(min(without))}): say it with "
            "--alpha (trainers that write none mostly took alpha = rank), or convert the LoRA "
            "from PEFT's folder again"
        )
    return check_whole(Lora(plain, dict.fromkeys(without, alpha or 0.0) | alphas), str(file))
