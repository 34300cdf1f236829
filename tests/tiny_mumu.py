"""Tiny random MUMUs of the real classes: Idefics2, a connector, LoRAs, in the layouts of the hub.

Everything is drawn from a seed; the UNet is the golden pipeline's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from PIL import Image
from sdxl_folders import PIPELINE
from tiny_models import make_tokenizer
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)

from hb_tta.generators.lora import ADAPTER, parts_of
from hb_tta.generators.mumu.connector import Connector, ConnectorConfig
from hb_tta.generators.mumu.folder import Index, save
from hb_tta.lora import Lora
from hb_tta.lora.plain import DOWN

WIDTH, CONTEXT = 32, 64  # of the language model; of the golden UNet's cross-attention


def make_processor() -> Idefics2Processor:
    """As the hub has it: it would resize to 378 and more, and say 64 tokens an image."""
    pictures = Idefics2ImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    tokenizer = make_tokenizer(
        image_token="<image>", image_boundary_token="<fake_token_around_image>"
    )
    return Idefics2Processor(pictures, tokenizer)


def vlm_config(processor: Any, patch: int = 14, side: int = 980) -> Idefics2Config:
    """Idefics2-8B's layout: its patches, grid and kinds of layers, of few and narrow ones."""
    tokenizer = processor.tokenizer
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Idefics2Config(
        vision_config=dict(
            hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            image_size=side, patch_size=patch,
        ),
        perceiver_config=dict(
            hidden_size=WIDTH, resampler_n_latents=64, resampler_depth=1, resampler_n_heads=2,
            resampler_head_dim=16, num_key_value_heads=1,
        ),
        text_config=dict(
            model_type="mistral", hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer),
            max_position_embeddings=8192, sliding_window=None, **special,
        ),
        image_token_id=processor.image_token_id, **special,
    )  # fmt: skip


def save_idefics2(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """A whole Idefics2 with its perceiver, its head and its processor, as a hub's repository."""
    processor = make_processor()
    processor.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics2ForConditionalGeneration(vlm_config(processor, **sizes))
        _spread(model)
    model.save_pretrained(folder)
    return folder


def save_mumu(
    folder: Path,
    idefics2: Path,
    *,
    whole: bool = False,
    seed: int = 0,
    tokens: int = 4,
    **index: Any,
) -> Path:
    """A MUMU as a training writes it: of a base with LoRAs, or with a VLM of its own."""
    from hb_tta.generators.mumu.encoder import load_vlm
    from hb_tta.weights import Weights

    vlm = load_vlm(Weights(str(idefics2)), torch.float32)
    unet = UNet2DConditionModel.from_pretrained(PIPELINE / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ConnectorConfig(WIDTH, CONTEXT, width=48, layers=2, heads=4)
        connector = Connector(config)
        _spread(connector)
        save(
            folder,
            Index("somebody/sdxl", None if whole else str(idefics2), tokens=tokens, **index),
            connector=connector,
            processor=make_processor(),
            vlm=vlm if whole else None,
            vlm_lora=None if whole else random_lora(vlm, ["q_proj", "gate_proj"]),
            unet_lora=random_lora(unet, ["to_q", "to_v"]),
        )
    return folder


def random_lora(model: Any, names: list[str], rank: int = 2, alpha: float = 4.0) -> Lora:
    """A LoRA of a model whose every part says something."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    inject_adapter_in_model(config, model, ADAPTER)
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    parts = parts_of({name: 0.1 * torch.randn_like(value) for name, value in state.items()})
    modules = [name.removesuffix(DOWN) for name in parts if name.endswith(DOWN)]
    return Lora(parts, dict.fromkeys(modules, alpha), tuple(names))


def picture(seed: int, width: int = 40, height: int = 24) -> Image.Image:
    """Noise in tiles of 8×8 pixels."""
    tiles = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(tiles).resize((width, height), Image.Resampling.NEAREST)


def _spread(model: torch.nn.Module) -> None:
    """Weights far enough from zero that different prompts give different states."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)


def save_owlvit(folder: Path, *, seed: int = 0) -> Path:
    """A detector of phrases that finds boxes of every phrase where the threshold lets it."""
    tokenizer = make_tokenizer()  # whose texts begin with no 0, which would mask them
    tokenizer.model_max_length = 16
    pictures = OwlViTImageProcessor(size={"height": 32, "width": 32})
    OwlViTProcessor(pictures, tokenizer).save_pretrained(folder)
    sizes = dict(
        hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
    )  # fmt: skip
    config = OwlViTConfig(
        text_config=dict(
            **sizes, vocab_size=len(tokenizer), max_position_embeddings=16,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        vision_config=dict(**sizes, image_size=32, patch_size=8),
        projection_dim=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OwlViTForObjectDetection(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
