"""Tiny models in the layouts of the hub repositories that the paper's scale needs.

Made of the golden pipeline's parts, so that what loads here is known to compute right.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection

GOLDEN = Path(__file__).parent / "golden" / "hummingbird_pipeline"
PIPELINE = GOLDEN / "pipeline"
LORA = GOLDEN / "lora_unet"

# scheduler/scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0
SDXL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}

# preprocessor_config.json of laion/CLIP-ViT-bigG-14-laion2B-39B-b160k, for a smaller tower
CLIP_PREPROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}


def reference() -> Image.Image:
    """The golden cases' reference image, 60×48."""
    with Image.open(GOLDEN / "reference.png") as image:
        return image.convert("RGB")


def save_sdxl_base(folder: Path) -> Path:
    """Like SDXL Base 1.0: no image encoder, Euler scheduler, slow tokenizers, fp16 duplicates."""
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        shutil.copytree(PIPELINE / part, folder / part)
    for weights in list(folder.rglob("*.safetensors")):
        halves = {name: tensor.half() for name, tensor in load_file(weights).items()}
        save_file(halves, weights.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    for part in ("tokenizer", "tokenizer_2"):
        _save_slow_tokenizer(PIPELINE / part, folder / part)
    _write_json(folder / "scheduler" / "scheduler_config.json", SDXL_SCHEDULER)
    index = json.loads((PIPELINE / "model_index.json").read_text())
    for absent in ("image_encoder", "feature_extractor"):
        del index[absent]
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    _write_json(folder / "model_index.json", index)
    return folder


def save_clip(folder: Path) -> Path:
    """Like laion's CLIP: both towers in shards, the embedding's width outside the vision config.

    The vision tower is the golden pipeline's image encoder.
    """
    tower = CLIPVisionModelWithProjection.from_pretrained(PIPELINE / "image_encoder")
    vision = tower.config.to_dict()
    width = vision.pop("projection_dim")
    text = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    clip.vision_model.load_state_dict(tower.vision_model.state_dict())
    clip.visual_projection.load_state_dict(tower.visual_projection.state_dict())
    clip.save_pretrained(folder, max_shard_size="100KB")
    assert (folder / "model.safetensors.index.json").exists(), "one file: the shards are too large"
    _write_json(folder / "preprocessor_config.json", CLIP_PREPROCESSOR)
    return folder


def save_hub_cache(root: Path) -> Path:
    """A hub cache that holds all that the generator of ``family="sdxl"`` takes, tiny."""
    save_sdxl_base(_snapshot(root, "stabilityai/stable-diffusion-xl-base-1.0", "a" * 40))
    save_clip(_snapshot(root, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "b" * 40))
    released = _snapshot(root, "lmquan/hummingbird", "c" * 40)
    shutil.copytree(LORA, released / "lora_unet_65000")
    return root


def _snapshot(root: Path, repository: str, commit: str) -> Path:
    """The folder of a repository's commit in a hub cache, known as its branch "main"."""
    folder = root / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot


def _save_slow_tokenizer(source: Path, folder: Path) -> None:
    """vocab.json, merges.txt and the two small files, as of before tokenizer.json."""
    tokenizer = CLIPTokenizer.from_pretrained(source)
    folder.mkdir(parents=True)
    tokenizer.backend_tokenizer.model.save(str(folder))
    edges = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    others = {"pad_token": "<|pad|>", "unk_token": "<|endoftext|>"}
    options = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    marks = {name: {"content": content, **options} for name, content in edges.items()}
    _write_json(folder / "special_tokens_map.json", {**marks, **others})
    typed = {name: {"__type": "AddedToken", **mark} for name, mark in marks.items()}
    common = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    _write_json(folder / "tokenizer_config.json", {**common, **typed, **others})


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
