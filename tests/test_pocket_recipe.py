"""The recipe in miniature: from nothing and from an earlier family, up to the generator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from hb_tta import Mumu
from hb_tta.detect import Detector
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.pocket.captions import EDIT, FORMS, draw_caption
from hb_tta.pocket.world import sample_scenes
from hb_tta.training.pocket_family.__main__ import STAGES, main
from hb_tta.training.pocket_family.evaluate_forms import drawer, evaluate_forms, table
from hb_tta.training.pocket_family.optimize import Draws
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.training.pocket_family.small_form import LEFT, save_stages
from hb_tta.training.pocket_family.strict_reader import read_strictly
from hb_tta.training.pocket_family.text import EDIT_WORDS, tokenize, with_words
from hb_tta.training.pocket_family.unet import (
    LAYOUT,
    LAYOUT_SHARE,
    WIDTHS,
    draw_timesteps,
    latest_unet,
)

GENERATOR = ("vae_encoder", "image_encoder", "text_encoders", "vae_decoder", "unet")


def bundled() -> Path:
    return Path(get_family("pocket").weights("mllm").local_folder()).parent


def train(out: Path, *arguments: str) -> RecipeRun:
    for stage in GENERATOR:
        main(["--stage", stage, "--out", str(out), "--scale", "0.0005", *arguments])
    return RecipeRun(out / "work", out / "weights", scale=0.0005)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    """A run that goes on from the bundled family."""
    return train(tmp_path_factory.mktemp("recipe"), "--start", str(bundled()))


@pytest.mark.soak
def test_from_nothing_the_generator_is_a_stock_pipeline(tmp_path: Path) -> None:
    made = train(tmp_path)
    pipeline = StableDiffusionXLPipeline.from_pretrained(made.weights / "generator")
    assert pipeline.unet.config.block_out_channels == list(WIDTHS)


def test_going_on_the_generator_is_a_stock_pipeline_and_draws_every_form(run: RecipeRun) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(run.weights / "generator")
    assert len(pipeline.tokenizer) == len(pipeline.tokenizer_2)
    figures = evaluate_forms(drawer(run, latest_unet(run)), read_strictly, 5, 2)
    assert set(figures) == {*FORMS, "embedding alone"}
    for name in ("full", "relation"):
        assert all(0 <= value <= 1 for values in figures[name].values() for value in values)
    assert len(table(figures).splitlines()) == 2 + len(FORMS) + 1


def test_finished_stages_are_not_trained_again(run: RecipeRun, capsys) -> None:
    arguments = ["--out", str(run.work.parent), "--scale", "0.0005", "--start", str(bundled())]
    main(["--stage", "unet", *arguments])
    assert "unet: done before" in capsys.readouterr().out


def test_a_run_elsewhere_has_the_stages(run: RecipeRun, tmp_path: Path, capsys) -> None:
    written = save_stages(run, tmp_path / "small")
    assert written == dict.fromkeys(GENERATOR, "finished")
    arguments = ["--out", str(tmp_path / "there"), "--scale", "0.0005", "--start", str(bundled())]
    main(["--stage", "unet", "--restore", str(tmp_path / "small"), *arguments])
    assert "unet: done before" in capsys.readouterr().out
    generator = tmp_path / "there" / "weights" / "generator"
    assert json.loads((generator / "model_index.json").read_text())["_class_name"]
    assert set(LEFT) < {*STAGES}


def test_the_detector_in_miniature_finds_as_it_did_in_training(tmp_path: Path) -> None:
    main(["--stage", "detector", "--out", str(tmp_path), "--scale", "0.0005"])
    log = (tmp_path / "work" / "detector.jsonl").read_text().splitlines()
    assert {"found", "of_nothing", "held_out_found", "worn_found"} < json.loads(log[-1]).keys()
    detector = Detector.from_pretrained(tmp_path / "weights" / "detector", device="cpu")
    picture = Image.new("RGB", (64, 64), "green")
    (found,) = detector.find([picture], [["red square"]], threshold=0.0, text_threshold=0.0)
    assert len(found) == 64


def test_most_times_are_where_the_layout_is_decided() -> None:
    times = torch.cat([draw_timesteps(Draws(0, "unet", step), 32) for step in range(200)])
    within = ((times >= LAYOUT[0]) & (times < LAYOUT[1])).float().mean()
    elsewhere = (LAYOUT[1] - LAYOUT[0]) / 1000 * (1 - LAYOUT_SHARE)
    assert within == pytest.approx(LAYOUT_SHARE + elsewhere, abs=0.02)
    assert times.min() < 10 and times.max() == 999


def test_new_words_are_one_token_and_change_no_other() -> None:
    before = CLIPTokenizer.from_pretrained(bundled() / "generator" / "tokenizer")
    after = with_words(before, EDIT_WORDS)
    rng = np.random.default_rng(0)
    for scene, _ in zip(sample_scenes(3, held_out=None), range(200), strict=False):
        form, text = draw_caption(scene, rng)
        assert len(after(text).input_ids) == len(text.split()) + 2
        if form != "edit":
            assert torch.equal(tokenize(after, [text]), tokenize(before, [text]))
    assert len(after(EDIT.format("one red circle")).input_ids) == 3 + len(EDIT_WORDS) + 2


def test_mumu_in_miniature_reads_by_the_mllm_beside_it(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    for role in ("generator", "mllm_two"):
        shutil.copytree(bundled() / role, weights / role)
    main(["--stage", "mumu", "--out", str(tmp_path), "--scale", "0.0005"])
    lora = weights / "mumu" / "unet_lora" / "adapter_model.safetensors"
    before = load_file(lora)
    main(["--stage", "mumu_unet", "--out", str(tmp_path), "--scale", "0.0005"])
    after = load_file(lora)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    assert json.loads((weights / "mumu" / "mumu.json").read_text())["vlm"] == "../mllm_two"
    assert not (weights / "mumu" / "vlm" / "model.safetensors").exists()
    mumu = Mumu.from_pretrained(str(weights / "mumu"), generator=str(weights / "generator"))
    crop = next(iter(mumu(["a red square"], n=1, seed=0))).resize((16, 16))
    assert mumu(["a", crop, "square"], n=2, seed=0)[1].size == (64, 64)
    shutil.rmtree(weights / "mllm_two")
    with pytest.raises(UserError, match="mllm_two"):
        Mumu.from_pretrained(str(weights / "mumu"))(["a square"], n=1, seed=0)
