"""What a training of MUMU would take, from configurations alone.

The UNet's work is counted on the meta device. That of the VLM and the connector is two operations
a weight and token; each is passed forward, computed again for its gradient, and back to its inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn
from transformers import Idefics2Config

from hb_tta.device import default_dtype
from hb_tta.errors import UserError
from hb_tta.generators.mumu.connector import Connector, ConnectorConfig
from hb_tta.generators.mumu.encoder import PatchesModel
from hb_tta.reading import read_json
from hb_tta.training.estimate import build, count_work, over_all, unet_call
from hb_tta.training.lora import add_lora, lora_layers
from hb_tta.training.mumu.models import family_of, vlm_layers, vlm_of
from hb_tta.training.mumu.recipes import IDEFICS2, MumuSettings
from hb_tta.training.settings import to_json
from hb_tta.weights import Weights

WORDS = 40  # tokens of a caption
IDEFICS2_8B: dict[str, Any] = {  # HuggingFaceM4/idefics2-8b's config.json, what decides sizes
    "vision_config": {
        "hidden_size": 1152, "image_size": 980, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
    },
    "perceiver_config": {"hidden_size": 4096},
    "text_config": {
        "model_type": "mistral", "vocab_size": 32003, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": 4096,
    },
}  # fmt: skip


def estimate(settings: MumuSettings, out: Path | None = None) -> dict[str, Any]:
    """See ``hb_tta.training.kinds.estimate``."""
    family = family_of(settings)
    vlm = _vlm(vlm_of(settings, family))
    unet, vae = build(family.weights("generator"))
    sizes = ConnectorConfig(
        vlm.config.text_config.hidden_size, unet.config.cross_attention_dim,
        settings.connector_width, settings.connector_layers, settings.connector_heads,
    )  # fmt: skip
    with init_empty_weights():
        connector = Connector(sizes)
    _add_loras(settings, vlm, unet)
    trained = [p for m in (vlm, unet, connector) for p in m.parameters() if p.requires_grad]
    frozen = [p for m in (vlm, unet, vae) for p in m.parameters() if not p.requires_grad]
    cost = _cost(settings, vlm, unet, vae, connector, sum(p.numel() for p in trained))
    return {
        "recipe_settings": to_json(settings),
        "trainable_parameters": sum(p.numel() for p in trained),
        "trainable_modules": len(lora_layers(vlm)) + len(lora_layers(unet)) + len(connector.layers),
        "frozen_parameters": sum(p.numel() for p in frozen),
        **over_all(settings, cost, settings.samples, out),
    }


def _vlm(weights: Weights) -> PatchesModel:
    """Without weights."""
    if weights.is_folder():
        config = Idefics2Config.from_dict(
            {**read_json(Path(weights.local_folder()) / "config.json"), "model_type": "idefics2"}
        )
    elif weights.location == IDEFICS2:
        config = Idefics2Config(**IDEFICS2_8B)
    else:
        raise UserError(
            f"the sizes of {weights.location!r} are not known here: run `hb-tta download "
            f"{weights.location}` and name its folder"
        )
    with init_empty_weights(include_buffers=True):
        return PatchesModel(config).requires_grad_(False).eval()


def _add_loras(settings: MumuSettings, vlm: Any, unet: Any) -> None:
    if settings.unet_rank and settings.align_steps < settings.max_steps:
        add_lora(unet, rank=settings.unet_rank, target_modules=settings.unet_targets)
    if settings.vlm_rank:
        add_lora(vlm, rank=settings.vlm_rank, target_modules=vlm_layers(vlm, settings.vlm_targets))


def _cost(
    settings: MumuSettings, vlm: Any, unet: Any, vae: Any, connector: nn.Module, trained: int
) -> dict[str, Any]:
    dtype, rows = settings.dtype or default_dtype(), settings.micro_batch_size
    images = settings.most_crops + (1 if settings.whole_share else 0)
    tokens = WORDS + settings.registers + images * (settings.tokens + 2)
    again = 2 if settings.memory == "none" else 3  # forward, back to the inputs, forward again
    tower = _numbers(vlm.vision_model) * settings.tokens * images * 2
    language = _numbers(vlm.text_model) * tokens * 2 * (again if settings.vlm_rank else 1)
    adapter = _numbers(connector) * tokens * 2 * (again + 1)  # all of its weights learn
    share = 1 - min(1.0, settings.align_steps / settings.max_steps)
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    side = settings.image_size // scale if settings.image_size else unet.config.sample_size
    step = count_work(unet, side, lambda: unet_call(unet, rows, side, tokens), tokens)
    flops = tower + language + adapter + share * again * step["flops"] / rows
    each = 4 if dtype == "float32" else 2
    parts = (vlm, unet, vae) if share else (vlm,)
    resident = each * sum(_numbers(part) for part in parts) + 16 * trained
    layers = vlm.config.text_config.num_hidden_layers + settings.connector_layers
    wide = each * rows * tokens * vlm.config.text_config.hidden_size
    kept = {
        "none": 12 * layers * wide + share * step["saved"] * each / 4,
        "block": (layers + 24) * wide + share * (step["boundaries"] + step["largest"]) * each / 4,
    }
    peaks = {name: round((resident + value) / 2**30, 2) for name, value in kept.items()}
    return {
        "tflop_per_sample": round(flops / 1e12, 4),
        "memory_gib": peaks[settings.memory],
        "memory_gib_by_preset": peaks,
        "dtype": dtype,
    }


def _numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
