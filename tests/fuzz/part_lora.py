"""LoRAs in every format: read as PEFT and safetensors themselves read them, or refused."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors import SafetensorError, safe_open

from fuzz import Part, Trial
from fuzz.mutating import edited, hostile_texts, hostile_values, mutated, text_of
from hb_tta.lora import Lora, read_lora, write_lora
from hb_tta.lora.parts import Part as Tensor
from hb_tta.lora.parts import file_of
from hb_tta.lora.read import CONFIG_FILE, DIFFUSERS_FILE, METADATA, PEFT_PREFIX, WEIGHTS_FILE
from hb_tta.lora.write import KOHYA_FILE

GOLDEN = Path(__file__).parents[1] / "golden" / "hummingbird_pipeline" / "lora_unet"
CONFIG = json.loads((GOLDEN / CONFIG_FILE).read_text())
ODD_NAMES = (
    "base_model.model.conv_in.lora_A.weight", "lora_te1_text_model.lora_down.weight",
    "text_encoder.a.lora_A.weight", "unet.mid_block.lora.down.weight", "unet.", "lora_unet_",
    "lora_unet_input_blocks_4_1_proj_in.lora_down.weight", ".alpha", "unet.a.dora_scale",
)  # fmt: skip
ODD_SETTINGS = (
    ("use_rslora", True), ("use_dora", True), ("init_lora_weights", "pissa"), ("bias", "all"),
    ("alpha_pattern", {"to_q": 1}), ("rank_pattern", {"to_q": 4}), ("fan_in_fan_out", True),
    ("alpha_pattern", {"(a+)+$": 1}), ("target_modules", r"(\w+\.?)+!"), ("lora_alpha", 3.5),
    ("layers_to_transform", [0]), ("modules_to_save", ["conv_in"]), ("target_modules", ["to_q"]),
    ("alora_invocation_tokens", [1]), ("exclude_modules", ["to_q"]), ("r", 4), ("r", True),
)  # fmt: skip


@cache
def small() -> Lora:
    """A few layers of the golden LoRA: files of some kB."""
    lora, _ = read_lora(GOLDEN)
    modules = lora.modules[:3]
    parts = {key: it for key, it in lora.parts.items() if key.split(".lora_")[0] in modules}
    return Lora(parts, {module: lora.alphas[module] for module in modules})


@cache
def sound() -> dict[str, tuple[str, bytes]]:
    """Format → the name of its file of weights and what is in it."""
    found, folder = {}, Path(mkdtemp(prefix="fuzz-lora-"))
    names = {"peft": WEIGHTS_FILE, "diffusers": DIFFUSERS_FILE, "kohya": KOHYA_FILE}
    for form, name in names.items():
        write_lora(small(), folder, form)
        found[form] = name, (folder / name).read_bytes()
    shutil.rmtree(folder)
    return found


@st.composite
def configs(draw: DrawFn) -> bytes:
    config = {**CONFIG, "target_modules": small().modules}
    if draw(st.booleans()):
        config |= dict(draw(st.lists(st.sampled_from(ODD_SETTINGS), min_size=1, max_size=2)))
    elif draw(st.booleans()):
        config = draw(edited(config))
    else:
        return draw(mutated(json.dumps(config).encode()))
    return text_of(config).encode("utf-8", "surrogatepass")


@st.composite
def odd_tensors(draw: DrawFn, form: str) -> bytes:
    """The file with some tensors under other names, of other shapes, types or values."""
    prefix = PEFT_PREFIX if form == "peft" else "unet."
    parts = {prefix + key: part for key, part in small().parts.items()}
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(parts)))
        part = parts.pop(key)
        match draw(st.sampled_from(("name", "shape", "value", "gone", "both"))):
            case "name" | "both":
                new = draw(st.one_of(st.sampled_from(ODD_NAMES), hostile_texts()))
                parts[new.encode("utf-8", "replace").decode()] = part
            case "shape":
                parts[key] = Tensor(part.dtype, (*part.shape[::-1],), part.data)
            case "value":
                bits = draw(st.sampled_from((b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\0\0\0\0")))
                parts[key] = Tensor(part.dtype, part.shape, bits + bytes(part.data[4:]))
        if not parts:
            break
    metadata = {}
    if form == "diffusers":
        said = {f"unet.{key}": it for key, it in CONFIG.items()}
        metadata[METADATA] = json.dumps(said | {"unet.target_modules": small().modules})
    return file_of(parts, metadata)


@st.composite
def headers(draw: DrawFn) -> bytes:
    """diffusers' file with other settings in its header."""
    said = {f"unet.{key}": it for key, it in CONFIG.items()}
    said = {"unet.target_modules": small().modules, **said}
    text = text_of(draw(st.one_of(edited(said), hostile_values())))
    parts = {f"unet.{key}": part for key, part in small().parts.items()}
    return file_of(parts, {METADATA: text.encode("utf-8", "replace").decode()})


@st.composite
def folders(draw: DrawFn) -> dict[str, bytes]:
    """Files by name."""
    form = draw(st.sampled_from(("peft", "peft", "diffusers", "kohya")))
    name, whole = sound()[form]
    config = {**CONFIG, "target_modules": small().modules}
    files = {CONFIG_FILE: json.dumps(config).encode()} if form == "peft" else {}
    if form == "peft" and draw(st.booleans()):
        return {CONFIG_FILE: draw(configs()), name: whole}
    if form != "kohya" and draw(st.booleans()):
        return files | {name: draw(odd_tensors(form))}
    if form == "diffusers" and draw(st.booleans()):
        return {name: draw(headers())}
    return files | {name: draw(mutated(whole))}


def lay(files: dict[str, bytes], folder: Path) -> Trial:
    place = folder / "lora"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)

    def run() -> tuple[Lora, str, dict[str, Lora]]:
        lora, form = read_lora(place)
        written = {
            other: read_lora(write_lora(lora, folder / other, other))[0]
            for other in ("peft", "diffusers")
        }
        return lora, form, written

    def wrong(returned: tuple[Lora, str, dict[str, Lora]]) -> str | None:
        lora, form, written = returned
        for other, again in written.items():
            if (again.parts, again.alphas) != (lora.parts, lora.alphas):
                return f"it comes back from {other} as another"
        return _unlike_the_file(place, lora) or (
            _unlike_peft(place, lora) if form == "peft" else None
        )

    return Trial(run, wrong)


def _unlike_the_file(place: Path, lora: Lora) -> str | None:
    """Every number must be a tensor of the file, and no tensor may be left over."""
    [file] = place.glob("*.safetensors")
    try:
        with safe_open(file, "pt") as opened:
            tensors = [opened.get_tensor(key) for key in opened.keys()]  # noqa: SIM118
    except SafetensorError as error:
        return f"safetensors cannot read it: {error}"
    if not all(bool(one.isfinite().all()) for one in tensors):
        return "it holds numbers that are not finite"
    numbers = sum(one.numel() for one in tensors if one.dim())
    return None if numbers == lora.parameters else f"{numbers} numbers are {lora.parameters}"


def _unlike_peft(place: Path, lora: Lora) -> str | None:
    """Ranks and scales as PEFT makes them of the same configuration."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    written = json.loads((place / CONFIG_FILE).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    if isinstance(written["target_modules"], str):
        written["target_modules"] = lora.modules
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = LoraConfig.from_peft_type(**written)
        except (TypeError, ValueError):
            return None  # what says nothing here, such as false for an object, PEFT may refuse
    changed = (
        config.use_dora, config.use_rslora, config.lora_bias, config.bias != "none",
        config.modules_to_save, config.layers_to_transform, config.exclude_modules,
        config.fan_in_fan_out, config.layer_replication, config.target_parameters,
    )  # fmt: skip
    if any(changed):
        return f"PEFT makes another of it: {changed}"
    alphas, ranks = dict(config.alpha_pattern or {}), dict(config.rank_pattern or {})
    for module, scale in lora.scales().items():
        alpha = alphas.get(get_pattern_key(alphas, module), config.lora_alpha)
        rank = ranks.get(get_pattern_key(ranks, module), config.r)
        if rank != lora.ranks[module] or not math.isclose(alpha / rank, scale):
            return f"{module} has scale {scale}, by PEFT {alpha}/{rank}"
    return None


def warm() -> None:
    import peft  # noqa: F401
    import torch  # noqa: F401

    sound()


def inputs() -> SearchStrategy[Any]:
    return folders()


PART = Part("lora", count=2000, inputs=st.deferred(inputs), lay=lay, warm=warm)
