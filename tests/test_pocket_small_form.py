"""Stages in small form: a run elsewhere has the finished ones and goes on with the one begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.training.pocket_family.small_form import restore_stages, save_stages


def new_run(folder: Path) -> RecipeRun:
    run = RecipeRun(folder / "work", folder / "weights", save_seconds=0)
    run.work.mkdir(parents=True)
    return run


def train(
    run: RecipeRun, steps: int, stop: int | None = None, stage: str = "unet"
) -> tuple[nn.Linear, list[int]]:
    """A tiny stage: the regression y = 2 x."""
    torch.manual_seed(0)
    line, seen = nn.Linear(1, 1), []

    def loss(draws: Draws, step: int) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        seen.append(step)
        x = draws.normal(16, 1)
        return (line(x) - 2 * x).square().mean()

    optimize(run, stage, {"unet": line}, loss, steps=steps, lr=0.05, warmup=10, ema=0.9)
    return line, seen


def test_a_training_goes_on_elsewhere_from_its_average(tmp_path: Path) -> None:
    begun = new_run(tmp_path / "begun")
    with pytest.raises(KeyboardInterrupt):
        train(begun, 200, stop=120)
    written = save_stages(begun, tmp_path / "small")
    assert written == {"unet": "unet at step 120"}
    small = load_file(tmp_path / "small" / "unet" / "work" / "unet.safetensors")
    assert set(small) == {"module.unet.weight", "module.unet.bias"}
    assert {tensor.dtype for tensor in small.values()} == {torch.float16}
    whole = load_file(begun.work / "unet.safetensors")
    averages = {whole["average.0"].half().item(), whole["average.1"].half().item()}
    assert {tensor.item() for tensor in small.values()} == averages

    elsewhere = new_run(tmp_path / "elsewhere")
    restore_stages(tmp_path / "small", elsewhere)
    line, seen = train(elsewhere, 200)
    assert seen == list(range(120, 200))
    assert line.weight.item() == pytest.approx(2, abs=0.05)


def test_of_a_stage_with_two_trainings_both_go_on_elsewhere(tmp_path: Path) -> None:
    begun = new_run(tmp_path / "begun")
    train(begun, 40, stage="vae_encoder")
    with pytest.raises(KeyboardInterrupt):
        train(begun, 60, stop=50, stage="vae_longer")
    assert save_stages(begun, tmp_path / "small") == {"vae_encoder": "vae_longer at step 50"}
    elsewhere = new_run(tmp_path / "elsewhere")
    restore_stages(tmp_path / "small", elsewhere)
    assert train(elsewhere, 40, stage="vae_encoder")[1] == []
    assert train(elsewhere, 60, stage="vae_longer")[1] == list(range(50, 60))


def test_a_finished_stage_is_its_models_in_half_precision(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    tower = nn.Linear(4, 4)
    role = run.weights / "generator" / "image_encoder"
    role.mkdir(parents=True)
    save_file(tower.state_dict(), role / "model.safetensors", metadata={"format": "pt"})
    (role / "config.json").write_text("{}")
    processor = run.weights / "generator" / "feature_extractor" / "preprocessor_config.json"
    processor.parent.mkdir()
    processor.write_text("{}")
    (run.work / "image_encoder.done.json").write_text(json.dumps({"seed": 0}))
    (run.work / "image_encoder.jsonl").write_text('{"step": 1}\n')
    assert save_stages(run, tmp_path / "small") == {"image_encoder": "finished"}

    elsewhere = new_run(tmp_path / "elsewhere")
    restore_stages(tmp_path / "small", elsewhere)
    kept = load_file(elsewhere.weights / "generator" / "image_encoder" / "model.safetensors")
    assert all(torch.equal(kept[name], tower.state_dict()[name].half()) for name in kept)
    assert (elsewhere.work / "image_encoder.done.json").exists()
    assert (elsewhere.work / "image_encoder.jsonl").exists()


def test_what_a_run_has_is_not_replaced(tmp_path: Path) -> None:
    small = tmp_path / "small" / "reader" / "work"
    small.mkdir(parents=True)
    (small / "reader.jsonl").write_text("theirs")
    run = new_run(tmp_path / "run")
    (run.work / "reader.jsonl").write_text("ours")
    restore_stages(tmp_path / "small", run)
    assert (run.work / "reader.jsonl").read_text() == "ours"


def test_the_finished_autoencoder_serves_as_the_first_ones_encoder(tmp_path: Path) -> None:
    small = tmp_path / "small" / "vae_decoder" / "weights" / "generator" / "vae"
    small.mkdir(parents=True)
    (small / "config.json").write_text("{}")
    run = new_run(tmp_path / "run")
    restore_stages(tmp_path / "small", run)
    assert (run.work / "vae_encoder" / "config.json").exists()
