"""A LoRA's three formats, exactly: PEFT's folder, diffusers' file, kohya's file (ComfyUI).

What is lost easily is the scale alpha/r: diffusers' file without its metadata works with scale 1,
and kohya's with alpha in the place of 32 as the rank. Here every format carries it, and reading
refuses what does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, tensor

from hb_tta.disk import write_aside
from hb_tta.errors import UserError, choose_from
from hb_tta.generators.lora import CONFIG_FILE, PEFT_PREFIX, WEIGHTS_FILE
from hb_tta.training.lora import lora_config

FORMATS = ("peft", "diffusers", "kohya")
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # what load_lora_weights looks for in a folder
KOHYA_FILE = "hummingbird_kohya.safetensors"
_METADATA = "lora_adapter_metadata"  # diffusers' key in the file's header
_UNET = "unet."
_KOHYA = "lora_unet_"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Lora:
    """A plain LoRA.

    Attributes:
        tensors: "<module>.lora_A.weight" (r, in) and "<module>.lora_B.weight" (out, r).
        alpha: every module's; its scale is alpha/r.
        target_modules: the names that the modules were chosen by.
    """

    tensors: Mapping[str, Tensor]
    alpha: float
    target_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        downs = {key.removesuffix(_DOWN) for key in self.tensors if key.endswith(_DOWN)}
        ups = {key.removesuffix(_UP) for key in self.tensors if key.endswith(_UP)}
        if not downs or downs != ups or len(self.tensors) != 2 * len(downs):
            raise UserError(
                f"that is no whole LoRA: {len(downs)} modules have a down part, {len(ups)} an up "
                f"part, of {len(self.tensors)} tensors"
            )
        ranks = {t.shape[0] for key, t in self.tensors.items() if key.endswith(_DOWN)}
        if len(ranks) != 1:
            raise UserError(f"the LoRA has several ranks ({sorted(ranks)}): only one can be kept")

    @property
    def rank(self) -> int:
        """r."""
        return next(t.shape[0] for key, t in self.tensors.items() if key.endswith(_DOWN))

    @property
    def scale(self) -> float:
        """alpha/r."""
        return self.alpha / self.rank

    @property
    def modules(self) -> list[str]:
        """The paths of the layers that it changes."""
        return sorted(key.removesuffix(_DOWN) for key in self.tensors if key.endswith(_DOWN))

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(t.numel() for t in self.tensors.values())


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


def read_lora(path: Path) -> tuple[Lora, str]:
    """A LoRA and the format that it lies in.

    Args:
        path: PEFT's folder, a folder with diffusers' or kohya's file, or such a file.

    Raises:
        UserError: it is none of them, damaged, or has lost its scale.
    """
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        return _read_peft(path), "peft"
    if path.is_dir():
        named = [path / name for name in (DIFFUSERS_FILE, KOHYA_FILE) if (path / name).is_file()]
        if not named:
            raise UserError(
                f"{str(path)!r} holds no LoRA: it has neither {CONFIG_FILE} nor {DIFFUSERS_FILE}"
            )
        path = named[0]
    if not path.is_file():
        raise UserError(f"there is no LoRA at {str(path)!r}: name PEFT's folder or a file")
    tensors, metadata = _read_file(path)
    if any(key.startswith(_KOHYA) for key in tensors):
        return _read_kohya(path, tensors), "kohya"
    if any(key.startswith(_UNET) for key in tensors):
        return _read_diffusers(path, tensors, metadata), "diffusers"
    raise UserError(
        f"{str(path)!r} is no LoRA in diffusers' or kohya's naming: its first tensor is "
        f"{min(tensors)!r}; PEFT's comes as a folder with {CONFIG_FILE}"
    )


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}): fetch it again") from error
    if not tensors:
        raise UserError(f"{str(path)!r} holds no tensors")
    return tensors, metadata


def _read_peft(folder: Path) -> Lora:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        alpha, rank = float(config["lora_alpha"]), config["r"]
        targets = config["target_modules"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder / CONFIG_FILE)!r} is no LoRA's: {error}") from error
    for variant in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
        if config.get(variant):
            raise UserError(f"{str(folder)!r} sets {variant}: only a plain LoRA can be converted")
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"{str(folder)!r} has no {WEIGHTS_FILE}: pickles are never read")
    tensors, _ = _read_file(folder / WEIGHTS_FILE)
    plain = {key.removeprefix(PEFT_PREFIX): part for key, part in tensors.items()}
    lora = Lora(plain, alpha, tuple([targets] if isinstance(targets, str) else targets))
    _check_rank(folder, lora, rank)
    return lora


def _check_rank(path: Path, lora: Lora, rank: int) -> None:
    if rank != lora.rank:
        raise UserError(
            f"{str(path)!r} says r={rank}, its tensors have r={lora.rank}: it is damaged"
        )


def _read_diffusers(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Lora:
    written = {
        key.removeprefix(_UNET): value
        for key, value in json.loads(metadata.get(_METADATA, "{}")).items()
    }
    if "lora_alpha" not in written:
        raise UserError(
            f"{str(path)!r} has lost its scale (no {_METADATA} in its header): convert the LoRA "
            "from PEFT's folder again"
        )
    plain = {key.removeprefix(_UNET): part for key, part in tensors.items()}
    lora = Lora(plain, float(written["lora_alpha"]), tuple(written["target_modules"]))
    _check_rank(path, lora, written["r"])
    return lora


def _read_kohya(path: Path, tensors: dict[str, Tensor]) -> Lora:
    alphas = {float(part) for key, part in tensors.items() if key.endswith(".alpha")}
    if len(alphas) != 1:
        found = f"several ({sorted(alphas)})" if alphas else "none"
        raise UserError(f"{str(path)!r} must have one alpha, it has {found}: its scale is unknown")
    plain = {}
    for key, part in tensors.items():
        module, _, kind = key.removeprefix(_KOHYA).partition(".")
        if kind == "lora_down.weight":
            plain[_dotted(module) + _DOWN] = part
        elif kind == "lora_up.weight":
            plain[_dotted(module) + _UP] = part
        elif kind != "alpha":
            raise UserError(f"{str(path)!r} holds {key!r}: only a plain LoRA can be converted")
    # A file of this kind says nothing of the rule that its modules were chosen by: by their whole
    # paths they are those and no others ("to_out.0" ends in "0", as half of a UNet's layers do).
    modules = {key.removesuffix(_DOWN) for key in plain if key.endswith(_DOWN)}
    return Lora(plain, alphas.pop(), tuple(sorted(modules)))


_COMPOUND = re.compile(
    r"\b(down|up|mid|transformer|single_transformer)\.(blocks?)\b"
    r"|\bto\.(q|k|v|out)\b|\bproj\.(in|out)\b|\btime\.emb\.proj\b|\bconv\.(in|out|shortcut)\b"
    r"|\btime\.embedding\b|\badd\.embedding\b|\blinear\.(1|2)\b"
)


def _dotted(module: str) -> str:
    """ "down_blocks_1_attentions_0_…_to_q" as the module's path."""
    return _COMPOUND.sub(lambda found: found[0].replace(".", "_"), module.replace("_", "."))


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────


def write_lora(lora: Lora, folder: Path, form: str) -> Path:
    """Writes a LoRA into a folder.

    Args:
        form: "peft": for this package and PEFT; "diffusers": for ``load_lora_weights``; "kohya":
            for ComfyUI and sd-scripts.

    Returns:
        The folder or file to give to who uses it.

    Raises:
        UserError: there is no such format.
    """
    if form not in FORMATS:
        raise UserError(f"there is no LoRA format {form!r}{choose_from(form, FORMATS)}")
    plain = {key: part.contiguous() for key, part in lora.tensors.items()}
    if form == "peft":
        keyed = {PEFT_PREFIX + key: part for key, part in plain.items()}
        write_aside(folder / WEIGHTS_FILE, save(keyed, {"format": "pt"}))
        write_aside(folder / CONFIG_FILE, _json(_peft_config(lora)))
        return folder
    if form == "diffusers":
        metadata = {_UNET + key: value for key, value in _peft_config(lora).items()}
        header = {"format": "pt", _METADATA: json.dumps(metadata, sort_keys=True)}
        path = folder / DIFFUSERS_FILE
        write_aside(path, save({_UNET + key: part for key, part in plain.items()}, header))
        return path
    path = folder / KOHYA_FILE
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(lora.alpha),
    }
    write_aside(path, save(_kohya(lora, plain), header))
    return path


def _kohya(lora: Lora, plain: dict[str, Tensor]) -> dict[str, Tensor]:
    keyed = {}
    for module in lora.modules:
        name = _KOHYA + module.replace(".", "_")
        if _dotted(name.removeprefix(_KOHYA)) != module:
            raise UserError(f"kohya's naming cannot tell the module {module!r}: use another format")
        keyed[f"{name}.lora_down.weight"] = plain[module + _DOWN]
        keyed[f"{name}.lora_up.weight"] = plain[module + _UP]
        keyed[f"{name}.alpha"] = tensor(lora.alpha)
    return keyed


def _peft_config(lora: Lora) -> dict[str, Any]:
    """What PEFT's ``save_pretrained`` writes of a configuration."""
    config = lora_config(lora.rank, lora.alpha, lora.target_modules).to_dict()
    config["inference_mode"] = True
    return {key: _plain(value) for key, value in config.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple):
        return sorted(value)
    return value.value if hasattr(value, "value") else value


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
