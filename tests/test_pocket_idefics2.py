"""The second pocket MLLM: a tiny Idefics2 without its perceiver, by the ordinary classes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.world import render, render_batch, sample_scenes
from hb_tta.training.pocket_family import idefics2, mllm
from hb_tta.training.pocket_family.mllm_evaluate import Answerer
from hb_tta.training.pocket_family.mllm_lessons import EDITION
from hb_tta.training.pocket_family.mllm_packing import Packer, packed_logits
from hb_tta.training.pocket_family.mllm_processor import kept_tokenizer
from hb_tta.training.pocket_family.run import RecipeRun, to_pixels

SCENES = list(islice(sample_scenes(98, edition=EDITION), 6))


def new_run(folder: Path) -> RecipeRun:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=5, projection_dim=128,
        num_attention_heads=4, image_size=64, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    run = RecipeRun(folder / "work", folder / "weights", scale=0.001)
    run.work.mkdir()
    tower = CLIPVisionModelWithProjection(config)
    tower.save_pretrained(run.weights / "generator" / "image_encoder")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    made = new_run(tmp_path_factory.mktemp("idefics2"))
    idefics2.train_mllm_two(made)
    return made


def plain_inputs(processor, scene, lesson):
    image = [{"type": "image"}] if lesson.pictured else []
    turns = [
        {"role": "user", "content": [*image, {"type": "text", "text": lesson.text}]},
        {"role": "assistant", "content": [{"type": "text", "text": lesson.answer}]},
    ]
    text = processor.apply_chat_template(turns)
    images = [render(scene)] if lesson.pictured else None
    return processor(text=text, images=images, return_tensors="pt")


def test_packed_logits_are_the_plain_ones(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    processor = idefics2.make_processor(kept_tokenizer(run, "mllm_two", idefics2.BORDER))
    model = idefics2.build_model(run, processor.tokenizer).eval()
    student, packer = idefics2.student_of(model), Packer(processor.tokenizer, idefics2.BORDER)
    rng = np.random.default_rng(1)
    by_image = [mllm._lessons(scene, mllm.Curriculum(), packer, rng) for scene in SCENES]
    assert {lesson.pictured for lessons in by_image for lesson in lessons} == {True, False}
    pack = packer.pack(by_image)
    number = 0
    with torch.no_grad():
        features = student.see(to_pixels(render_batch(SCENES)))
        packed = packed_logits(student, features, pack, packer.image_start)
        for scene, lessons in zip(SCENES, by_image, strict=True):
            for lesson in lessons:
                inputs = plain_inputs(processor, scene, lesson)
                size = int((pack.lessons_A == number).sum())
                plain = model(**inputs).logits[0, -size - 1 : -1]
                torch.testing.assert_close(
                    packed[pack.lessons_A == number], plain, atol=1e-4, rtol=1e-4
                )
                number += 1


def test_the_folder_loads_by_the_auto_classes_and_answers(run: RecipeRun) -> None:
    folder = run.weights / "mllm_two"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert type(model).__name__ == "Idefics2PatchesForConditionalGeneration"
    assert not [name for name, _ in model.named_parameters() if "perceiver" in name]
    assert type(AutoProcessor.from_pretrained(folder)).__name__ == "Idefics2Processor"
    answers = Answerer(str(folder)).answer(
        [render(scene) for scene in SCENES], ["Is there a circle?"] * len(SCENES)
    )
    assert len(answers) == len(SCENES)
    assert (folder / "model.safetensors").stat().st_size < 6_000_000
