"""Tiny random pipelines of the real classes, one for each way in which diffusers takes an image.

Made of the golden pipeline's parts where they fit. Everything is drawn from a seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionImageVariationPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from sdxl_folders import PIPELINE
from tiny_models import make_tokenizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def save_variation(folder: Path) -> Path:
    """As sd-image-variations: no text anywhere."""
    StableDiffusionImageVariationPipeline(
        vae=_golden(AutoencoderKL, "vae"),
        image_encoder=_golden(CLIPVisionModelWithProjection, "image_encoder"),
        unet=_unet(32),
        scheduler=_golden(DDIMScheduler, "scheduler"),
        safety_checker=None,
        feature_extractor=_golden(CLIPImageProcessor, "feature_extractor"),
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sd1(folder: Path) -> Path:
    """As Stable Diffusion 1.4: one text encoder, no pooled embedding."""
    StableDiffusionPipeline(**_sd1(_unet(_text_width()))).save_pretrained(folder)
    return folder


def save_pix2pix(folder: Path) -> Path:
    """As InstructPix2Pix: the image's latents beside the noise."""
    unet = _unet(_text_width(), in_channels=8)
    StableDiffusionInstructPix2PixPipeline(**_sd1(unet)).save_pretrained(folder)
    return folder


def save_klein(folder: Path) -> Path:
    """As FLUX.2 klein: flow matching, the image among the tokens, a Qwen3 that reads the text."""
    torch.manual_seed(0)
    text_encoder, tokenizer = _qwen3(layers=28)  # the pipeline reads layers 9, 18 and 27
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
            sample_size=32,
        ),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=256,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        is_distilled=True,
    ).save_pretrained(folder)
    return folder


def save_z_image(folder: Path) -> Path:
    """As Z-Image: neither the pipeline nor its transformer says how large a view is."""
    torch.manual_seed(0)
    text_encoder, tokenizer = _qwen3(layers=2)
    vae = _golden(AutoencoderKL, "vae")
    vae.register_to_config(shift_factor=0.1)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[1024, 64, 64],
        ),
    ).save_pretrained(folder)
    return folder


def save_qwen_image(folder: Path, *, distilled: bool = False) -> Path:
    """As Qwen-Image: its guidance is ``true_cfg_scale``, unless its transformer is distilled."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16}
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2],
        },
    }  # fmt: skip
    vision = {**sizes, "depth": 1, "num_heads": 2, "out_hidden_size": 16}
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        ),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            guidance_embeds=distilled,
            axes_dims_rope=(8, 4, 4),
        ),
    ).save_pretrained(folder)
    return folder


def save_omnigen(folder: Path) -> Path:
    """As OmniGen: images and text in one sequence."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(mark="<|image_1|>")
    OmniGenPipeline(
        transformer=OmniGenTransformer2DModel(
            hidden_size=16,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=32,
            num_layers=1,
            in_channels=4,
            time_step_dim=4,
            rope_scaling={"long_factor": [1.0, 1.0], "short_factor": [1.0, 1.0]},
            vocab_size=len(tokenizer) + 1,
            pad_token_id=0,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=AutoencoderKL(  # its processor counts on a factor of 8
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=32,
        ),
        tokenizer=tokenizer,
    ).save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path, name: str = "ip-adapter.safetensors") -> Path:
    """An IP-Adapter for the golden pipeline's UNet and image encoder."""
    unet = _golden(UNet2DConditionModel, "unet")
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {
        "image_proj.proj.weight": torch.randn(4 * 64, 32),
        "image_proj.proj.bias": torch.zeros(4 * 64),
        "image_proj.norm.weight": torch.ones(64),
        "image_proj.norm.bias": torch.zeros(64),
    }
    for number, place in enumerate(p for p in unet.attn_processors if "attn2" in p):
        attention = unet.get_submodule(place.removesuffix(".processor"))
        for part in ("to_k_ip", "to_v_ip"):
            shape = attention.to_k.weight.shape
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(shape) * 0.2
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def with_scheduler(pipeline: Path, name: str, **written: Any) -> Path:
    """A pipeline's folder, its scheduler's file now of another class."""
    path = pipeline / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name, **written}))
    index = json.loads((pipeline / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", name]
    (pipeline / "model_index.json").write_text(json.dumps(index))
    return pipeline


def sdxl() -> StableDiffusionXLPipeline:
    """The golden pipeline, as diffusers loads it."""
    pipe = StableDiffusionXLPipeline.from_pretrained(PIPELINE)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _qwen3(layers: int) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A Qwen3 that reads texts, 16 numbers wide, and its tokenizer."""
    tokenizer = make_tokenizer(turn="<|im_start|>", turn_end="<|im_end|>")
    tokenizer.chat_template = QWEN_TEMPLATE
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    return Qwen3ForCausalLM(config), tokenizer


def _golden(kind: Any, part: str) -> Any:
    return kind.from_pretrained(PIPELINE / part)


def _text_width() -> int:
    return json.loads((PIPELINE / "text_encoder" / "config.json").read_text())["hidden_size"]


def _unet(text_width: int, in_channels: int = 4) -> UNet2DConditionModel:
    config = json.loads((PIPELINE / "unet" / "config.json").read_text())
    config |= {"addition_embed_type": None, "projection_class_embeddings_input_dim": None}
    config |= {"cross_attention_dim": text_width, "in_channels": in_channels}
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(config)


def _sd1(unet: UNet2DConditionModel) -> dict[str, Any]:
    return {
        "vae": _golden(AutoencoderKL, "vae"),
        "text_encoder": _golden(CLIPTextModel, "text_encoder"),
        "tokenizer": _golden(CLIPTokenizer, "tokenizer"),
        "unet": unet,
        "scheduler": _golden(DDIMScheduler, "scheduler"),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
