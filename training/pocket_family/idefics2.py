"""Stage ``mllm_two``: a second answering MLLM, built differently, on the same lessons.

A tiny Idefics2 whose language model reads every patch. Its tower starts from the image encoder,
learns to do without a class token and to say in its last layer where what is (LLaVA's is asked at
two layers), and is then frozen. The language model starts from that of an earlier family's LLaVA,
if there is one: as the large Idefics2's and LLaVA's do from the same Mistral. The connector between
the two is new, and learns first, alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPVisionModelWithProjection,
    Idefics2ImageProcessor,
    Idefics2Processor,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from hb_tta.idefics2 import (
    Idefics2PatchesConfig,
    Idefics2PatchesForConditionalGeneration,
)
from hb_tta.pocket.world import SIZE
from hb_tta.training.pocket_family.labels import Heads, head_accuracy, head_loss
from hb_tta.training.pocket_family.mllm import (
    GO_ON_RATE,
    HIDDEN,
    carry_words,
    teach,
    teach_words,
)
from hb_tta.training.pocket_family.mllm_packing import Packer, Student
from hb_tta.training.pocket_family.mllm_processor import (
    CHAT_TEMPLATE,
    IMAGE,
    IMAGE_TOKENS,
    PATCH,
    kept_tokenizer,
)
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, dev_scenes, training_scenes
from hb_tta.training.pocket_family.towers import (
    PATCH_SIGHT,
    WIDTH,
    WORN,
    sight_labels,
    without_first_norm,
)

SIGHT_STEPS, ALIGN_STEPS, STEPS, GO_ON_STEPS = 600, 200, 4500, 2400
BORDER = "<fake_token_around_image>"


def train_mllm_two(run: RecipeRun) -> None:
    """Train the model and save it with its processor."""
    torch.manual_seed(run.seed)
    processor = make_processor(kept_tokenizer(run, "mllm_two", BORDER))
    model = build_model(run, processor.tokenizer)
    _train_sight(run, model)
    model.model.vision_model.requires_grad_(False)
    student, packer = student_of(model), Packer(processor.tokenizer, BORDER)
    if run.start:
        parts = (model.model.text_model, model.lm_head)
        for part in parts:
            part.requires_grad_(False)
        teach(run, "mllm_two_aligned", student, packer, steps=ALIGN_STEPS, lr=2e-3)
        for part in parts:
            part.requires_grad_(True)
    steps, lr = (GO_ON_STEPS, GO_ON_RATE) if run.start else (STEPS, 2e-3)
    teach(run, "mllm_two", student, packer, steps=steps, lr=lr)
    teach_words(run, "mllm_two", student, packer)
    model.eval().half().save_pretrained(run.weights / "mllm_two")
    processor.save_pretrained(run.weights / "mllm_two")


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics2Processor:
    """The first MLLM's words and chat template; 64×64 pictures as they are, 64 tokens each."""
    side = {"shortest_edge": SIZE, "longest_edge": SIZE}
    pictures = Idefics2ImageProcessor(
        size=side, do_image_splitting=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return Idefics2Processor(
        pictures, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE
    )


def build_model(run: RecipeRun, tokenizer) -> Idefics2PatchesForConditionalGeneration:
    """The model with the image encoder's layers in its tower; the connector is untrained."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    source = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    )
    config = Idefics2PatchesConfig(
        vision_config=dict(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4,
            num_hidden_layers=source.config.num_hidden_layers, image_size=SIZE, patch_size=PATCH,
            hidden_act="gelu", layer_norm_eps=source.config.layer_norm_eps,
        ),
        perceiver_config=dict(
            hidden_size=HIDDEN, resampler_n_latents=IMAGE_TOKENS, resampler_depth=1,
            resampler_n_heads=2, resampler_head_dim=32, num_key_value_heads=1,
        ),
        text_config=dict(
            model_type="mistral", hidden_size=HIDDEN, intermediate_size=416,
            num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, head_dim=40,
            vocab_size=len(tokenizer), max_position_embeddings=1024, sliding_window=None,
            rms_norm_eps=1e-6, initializer_range=HIDDEN**-0.5, **special,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE), initializer_range=HIDDEN**-0.5,
        **special,
    )  # fmt: skip
    model = Idefics2PatchesForConditionalGeneration(config)
    for part in (model.model.text_model, model.model.vision_model):
        part.set_attn_implementation("eager")  # quicker on a CPU, with a mask or in bfloat16
    _start_tower(run, model, source)
    if run.start:
        _start_language(model, run.start / "mllm", tokenizer)
    return model.to(run.device)


def _start_language(
    model: Idefics2PatchesForConditionalGeneration, folder: Path, tokenizer
) -> None:
    """The language model of an earlier LLaVA, with the words of now."""
    before = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    carry_words(before, PreTrainedTokenizerFast.from_pretrained(folder), tokenizer)
    model.model.text_model.load_state_dict(before.model.language_model.state_dict())
    model.lm_head.load_state_dict(before.lm_head.state_dict())


@torch.no_grad()
def _start_tower(
    run: RecipeRun,
    model: Idefics2PatchesForConditionalGeneration,
    source: CLIPVisionModelWithProjection,
) -> None:
    tower = model.model.vision_model
    folded = without_first_norm(source, training_scenes(run, 24_000).pixels(slice(0, 64)))
    tower.embeddings.patch_embedding.weight.copy_(folded.kernel)
    tower.embeddings.patch_embedding.bias.zero_()
    tower.embeddings.position_embedding.weight.copy_(folded.places[1:])
    for mine, theirs in zip(tower.encoder.layers, source.vision_model.encoder.layers, strict=True):
        mine.load_state_dict(theirs.state_dict())


def student_of(model: Idefics2PatchesForConditionalGeneration) -> Student:
    """The model as packed lessons see it."""
    parts = model.model

    def see(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return parts.vision_model(pixels).last_hidden_state

    return Student(model, see, parts.connector.modality_projection, parts.text_model)


def _train_sight(run: RecipeRun, model: Idefics2PatchesForConditionalGeneration) -> None:
    """Dense labels for the tower's last layer: what is where, without a class token."""
    tower, heads = model.model.vision_model, Heads(WIDTH, PATCH_SIGHT).to(run.device)
    scenes, dev = training_scenes(run, 24_000), dev_scenes(run, 512)
    labels, dev_labels = sight_labels(scenes.records), sight_labels(dev.records)

    def outputs(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return heads(tower(pixels).last_hidden_state)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = draws.rows(len(scenes), 64)
        pixels = scenes.pixels(rows, run.device, worn=WORN, rng=draws.numpy)
        with run.low_precision():
            logits = outputs(pixels)
        return head_loss(logits, labels.dense, rows)

    optimize(
        run, "mllm_two_sight", {"tower": tower, "heads": heads}, loss,
        steps=run.steps(SIGHT_STEPS), lr=1e-3, evaluate_every=200,
        evaluate=lambda: head_accuracy(
            outputs(dev.pixels(slice(None), run.device)), dev_labels.dense
        ),
    )  # fmt: skip
