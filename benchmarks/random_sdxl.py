"""A pipeline of Stable Diffusion XL's full size with random weights, written as the hub's folder.

Speed does not depend on the values of the weights, so this measures the paper's scale where the
hub cannot be reached. The sizes are those of the public configurations of
stabilityai/stable-diffusion-xl-base-1.0 and laion/CLIP-ViT-bigG-14-laion2B-39B-b160k.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from hb_tta.training.sdxl import SDXL_UNET, SDXL_VAE

TOKENIZER = Path(__file__).parents[1] / "tests/golden/hummingbird_pipeline/pipeline/tokenizer"

TEXT_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
TEXT_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VISION_G: dict[str, Any] = {
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def save_random_sdxl(
    folder: Path,
    *,
    device: str,
    unet: dict[str, Any] = SDXL_UNET,
    vae: dict[str, Any] = SDXL_VAE,
    vision: dict[str, Any] = VISION_G,
) -> Path:
    """Writes the pipeline with its image encoder in bfloat16, about 11 GB at the full size.

    Args:
        folder: to write into.
        device: draws the weights; a GPU takes seconds, a CPU minutes.
        unet, vae, vision: other sizes, for a try on a small machine.
    """
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    marks = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    with torch.device(device):
        models = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT_L, **marks)),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_G, **marks)),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)),
        }
    StableDiffusionXLPipeline(
        **{name: model.to(torch.bfloat16) for name, model in models.items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=scheduler,
        feature_extractor=CLIPImageProcessor(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder
