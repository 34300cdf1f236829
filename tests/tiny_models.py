"""Tiny random models of the real classes, saved in the layouts that the hub has them in.

Their words and pictures mean nothing; what loads, batches and repeats with them does so with the
real ones. Everything is drawn from a seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)

CORPUS = (
    "Describe the key elements and the context of this image that directly answer the question.",
    "Is there a red circle left of the square? How many triangles are there? A person rides.",
    "two blue squares above one yellow cross on a sandy beach at dusk, yes, no, clear, concise",
)
# Mistral's turns, which LLaVA v1.6 has on the hub.
MISTRAL_TEMPLATE = (
    "{% for message in messages %}[INST] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} [/INST]{% endfor %}"
)
CHATML_TEMPLATE = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)


def make_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 400 tokens: every text has tokens, in any script."""
    marks = ["<pad>", "<s>", "</s>", *special_tokens.values()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=special_tokens,
    )


def save_llava(
    folder: Path, *, seed: int = 0, chat_template: str | None = MISTRAL_TEMPLATE
) -> Path:
    """A LLaVA 1.5: one 32×32 crop, 16 patches."""
    tokenizer = make_tokenizer(image_token="<image>")
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)
    config = LlavaConfig(
        vision_config=_vision_config(),
        text_config=LlamaConfig(**_text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    return _save(LlavaForConditionalGeneration, config, folder, seed)


def save_llava_next(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA v1.6 on Mistral: a 32×32 overview and up to four tiles."""
    tokenizer = make_tokenizer(image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL_TEMPLATE,
    ).save_pretrained(folder)
    config = LlavaNextConfig(
        vision_config=_vision_config(),
        text_config=MistralConfig(**_text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    return _save(LlavaNextForConditionalGeneration, config, folder, seed)


def save_qwen_vl(folder: Path, *, seed: int = 0) -> Path:
    """A Qwen2.5-VL: as many patches as the image has, rotary positions in two dimensions."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = make_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        turn="<|im_start|>",
        turn_end="<|im_end|>",
    )
    ids = tokenizer.convert_tokens_to_ids
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=CHATML_TEMPLATE.format(image="<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)
    sizes = _text_sizes(tokenizer)
    config = Qwen2_5_VLConfig(
        text_config={
            **sizes,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": sizes["hidden_size"],
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, folder, seed)


def save_internvl(folder: Path, *, seed: int = 0) -> Path:
    """An InternVL3 in its ``-hf`` layout: 28×28 tiles, a pixel shuffle, a Qwen2 language model."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        Qwen2Config,
    )

    tokenizer = make_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
        turn="<|im_start|>",
        turn_end="<|im_end|>",
    )
    size = {"height": 28, "width": 28}
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=2),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=CHATML_TEMPLATE.format(image="<IMG_CONTEXT>\n"),
    ).save_pretrained(folder)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": [28, 28],
            "patch_size": [7, 7],
        },
        text_config=Qwen2Config(**_text_sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return _save(InternVLForConditionalGeneration, config, folder, seed)


def save_image_encoder(folder: Path, *, projection_dim: int, seed: int = 0) -> Path:
    """A CLIP vision tower in a repository of its own, as laion's bigG/14 is."""
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    config = _vision_config(projection_dim=projection_dim)
    return _save(CLIPVisionModelWithProjection, config, folder, seed)


def without_image_encoder(pipeline: Path, folder: Path) -> Path:
    """A copy of an SDXL pipeline folder as SDXL Base 1.0 is: without an image encoder."""
    import shutil

    shutil.copytree(
        pipeline, folder, ignore=shutil.ignore_patterns("image_encoder", "feature_extractor")
    )
    index = json.loads((folder / "model_index.json").read_text())
    index.update(image_encoder=[None, None], feature_extractor=[None, None])
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _vision_config(projection_dim: int = 32) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=projection_dim,
    )


def _text_sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(cls, config, folder: Path, seed: int) -> Path:
    """Random weights far enough from zero that different inputs give different words."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder
