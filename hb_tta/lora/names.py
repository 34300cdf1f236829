"""How the formats name a UNet's layers, told by white lists of words.

diffusers' and PEFT's names are paths, "down_blocks.1.attentions.0.….to_q". kohya's are the same
with "_" in place of ".", or, of SDXL, those of Stability's own code, "input_blocks_4_1_….to_q".
"""

from __future__ import annotations

import re

# What a UNet has below its top, as far as LoRAs change it; the last line: diffusers of before 0.15.
_WORDS = (
    "down_blocks", "mid_block", "up_blocks", "attentions", "resnets", "motion_modules",
    "downsamplers", "upsamplers", "transformer_blocks", "attn1", "attn2", "ff", "net", "proj",
    "to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "conv", "conv1", "conv2", "conv_in",
    "conv_out", "conv_shortcut", "time_emb_proj", "time_embedding", "add_embedding", "linear_1",
    "linear_2", "query", "key", "value", "proj_attn",
)  # fmt: skip
_TOPS = frozenset(
    {
        "add_embedding", "add_time_proj", "class_embedding", "conv_in", "conv_out", "down_blocks",
        "encoder_hid_proj", "mid_block", "position_net", "time_embedding", "up_blocks",
    }
)  # fmt: skip
_WORD = re.compile("|".join([*sorted(_WORDS, key=len, reverse=True), r"\d+"]), re.ASCII)
_PATH = re.compile(r"\w+(?:\.\w+)*", re.ASCII)

# Stability's names of SDXL's layers: blocks of two ResNets with attention, and a resampler.
_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}
_INPUT = re.compile(r"input_blocks_([1-8])_([01])_(\w+)", re.ASCII)
_MIDDLE = re.compile(r"middle_block_([012])_(\w+)", re.ASCII)
_OUTPUT = re.compile(r"output_blocks_([0-8])_([012])_(\w+)", re.ASCII)


def is_unet_path(module: str) -> bool:
    """Whether it is the path of a UNet's layer rather than a text encoder's or another model's."""
    return bool(_PATH.fullmatch(module)) and module.split(".")[0] in _TOPS


def kohya_name(module: str) -> str | None:
    """A layer's path with "_" for "."; None where that could not be told back."""
    name = module.replace(".", "_")
    return name if _dotted(name) == module else None


def kohya_path(name: str) -> str | None:
    """The path of the layer that kohya calls so, without its ``lora_unet_``; None: not known."""
    return _OUTSIDE.get(name) or _sdxl_path(name) or _dotted(name)


def _dotted(name: str) -> str | None:
    words, place = [], 0
    while True:
        found = _WORD.match(name, place)
        if not found:
            return None
        words.append(found[0])
        place = found.end()
        if place == len(name):
            break
        if name[place] != "_":
            return None
        place += 1
    path = ".".join(words)
    return path if is_unet_path(path) else None


def _sdxl_path(name: str) -> str | None:
    if found := _INPUT.fullmatch(name):
        number, kind, rest = int(found[1]) - 1, int(found[2]), found[3]
        if number % 3 == 2:
            block = f"down_blocks.{number // 3}.downsamplers.0.conv"
            return block if (kind, rest) == (0, "op") else None
        return _inner(f"down_blocks.{number // 3}", kind, number % 3, rest, number >= 3)
    if found := _MIDDLE.fullmatch(name):
        place = int(found[1])
        return _inner("mid_block", place % 2, place // 2, found[2], True)
    if found := _OUTPUT.fullmatch(name):
        number, kind, rest = int(found[1]), int(found[2]), found[3]
        block = f"up_blocks.{number // 3}"
        if kind == 2:
            is_last = number in (2, 5) and rest == "conv"
            return f"{block}.upsamplers.0.conv" if is_last else None
        return _inner(block, kind, number % 3, rest, number < 6)
    return None


def _inner(block: str, kind: int, layer: int, rest: str, attends: bool) -> str | None:
    """A layer of a ResNet (kind 0) or of attention (kind 1)."""
    if kind == 0:
        return f"{block}.resnets.{layer}.{_RESNET[rest]}" if rest in _RESNET else None
    inside = _dotted(f"down_blocks_{rest}") if attends else None  # the words are those of a path
    return inside and f"{block}.attentions.{layer}.{inside.removeprefix('down_blocks.')}"
