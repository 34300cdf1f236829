"""Settings of a training: every wrong one is a sentence before any description is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import pytest
import torch
from accelerate.tracking import get_available_trackers

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.training.fitting import check_generator
from hb_tta.training.frozen import load_generator
from hb_tta.training.ranges import Within, check
from hb_tta.training.recipes import Settings, get_recipe, to_json, with_changes
from hb_tta.training.rollout import Rollout, scaled, unscaled
from hb_tta.training.start import PROJECT, start, start_trackers
from hb_tta.weights import Weights

WRONG = [
    "learning_rate=1e30", "learning_rate=inf", "learning_rate=nan", "learning_rate=0",
    "rewards.global=nan", "rewards.global=inf", "rewards.globl=1", "rewards={}",
    'rewards={"global": [1]}', 'rewards={"global": 1e999}', "rewards.global=1e300",
    "reward_weights.nothing=/some/where", "reward_weights.global=", "image_size=0",
    "image_size=-64", "image_size=1e3", "image_size=100000", "guidance_scale=nan",
    "guidance_scale=-1", "seed=-1", "seed=1" + "0" * 40, "seed=1" + "0" * 5000, "warmup_steps=-1",
    "weight_decay=-1", "weight_decay=nan", "beta_2=1", "beta_2=-0.1", "lora_rank=0",
    "lora_rank=100000", "lora_alpha=inf", "lora_alpha=-1", "lora_dropout=nan", "min_diversity=nan",
    "min_diversity=2", "patience=0", "samples=0", "samples=-5", "held_out=0",
    "decay_steps=0", "drift_weight=nan", "loss_scale=1e30", "max_sample_gradient=inf",
    "max_gradient_norm=inf", "max_steps=1000000000000", "batch_size=0", "micro_batch_size=0",
    "max_new_tokens=0", "max_new_tokens=100000", "num_inference_steps=1001", "evaluate_seeds=0",
    "target_modules=", "trackers=nothing", "trackers=tensorboard,nothing", "trackers=all",
    "family=sdx", "dtype=float8", "optimizer=lion", "cache=\x00", "data=a\nb", "generator=\x1b[31m",
    "random_gradient_steps=maybe", "rewards={", "rewards=" + "[" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_value_is_a_sentence(change):
    with pytest.raises(UserError) as raised:
        with_changes(get_recipe("pocket"), [change])
    said = str(raised.value)
    assert said.isprintable() and len(said) < 400
    assert change.partition("=")[0].split(".")[0] in said


def test_rows_that_are_all_held_out_leave_none_to_train_on():
    with pytest.raises(UserError, match="samples=5 leaves nothing to train on"):
        with_changes(get_recipe("pocket"), ["samples=5", "held_out=5"])


@pytest.mark.parametrize("change", WRONG[:3])
def test_at_the_command_nothing_is_begun(change, tmp_path, capsys):
    assert main(["train", "--recipe", "pocket", "--out", str(tmp_path / "o"), "--set", change]) == 1
    assert "learning_rate" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.parametrize("change", ["target_modules=q_proj,k_proj", "image_size=63"])
def test_what_the_generator_does_not_have_is_told_before_descriptions(change, tmp_path, capsys):
    out = tmp_path / "o"
    assert main(["train", "--recipe", "pocket", "--out", str(out), "--set", change]) == 1
    assert change.split("=")[0] in capsys.readouterr().err
    assert not (out / ".cache").exists() and not (out / "run.json").exists()


def test_every_recipe_fits_its_generator_and_its_own_ranges():
    for settings in (get_recipe("pocket"), get_recipe("released")):
        again = Settings(**{**to_json(settings), **tuples(settings)})
        assert again == settings
    check_generator(get_recipe("pocket"), get_family("pocket").weights("generator"))


def tuples(settings: Settings) -> dict:
    return {"target_modules": settings.target_modules, "trackers": settings.trackers}


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 1.5), ("seed", True), ("learning_rate", "1"), ("random_gradient_steps", 1),
     ("rewards", [1]), ("rewards", {"global": None}), ("target_modules", ["to_q"]),
     ("cache", 3), ("batch_size", None), ("trackers", "tensorboard")],
)  # fmt: skip
def test_python_values_have_their_types(name, value):
    with pytest.raises(UserError, match=f"{name}.* is no value of it: use "):
        Settings(**{name: value})


def test_ranges_say_what_they_are():
    assert str(Within(above=0, most=1)) == "more than 0, at most 1"
    eights = Within(least=8, most=8192, multiple=8)
    assert str(eights) == "a multiple of 8, 8 or more, at most 8,192"
    with pytest.raises(UserError, match="x=12 is out of range: use a multiple of 8"):
        check("x", Annotated[int, eights], 12)


# ── Trackers ─────────────────────────────────────────────────────────────────────────────────────


def test_a_tracker_that_is_not_installed_is_told(tmp_path):
    installed = {str(one) for one in get_available_trackers()}
    missing = next(name for name in ("clearml", "aim", "dvclive") if name not in installed)
    with pytest.raises(UserError, match=f"trackers={missing} is not installed: pip install"):
        start(with_changes(get_recipe("pocket"), [f"trackers=tensorboard,{missing}"]), tmp_path)


def test_trackers_know_the_project_by_our_name(tmp_path):
    accelerator, _ = start(get_recipe("pocket"), tmp_path)
    start_trackers(accelerator, 0)
    accelerator.log({"a": 1.0}, step=1)
    accelerator.end_training()
    assert PROJECT == "hb-tta"
    assert [file.parent.name for file in tmp_path.rglob("events*")] == ["hb-tta"]


def test_no_tracker_at_all(tmp_path):
    accelerator, settings = start(with_changes(get_recipe("pocket"), ["trackers=none"]), tmp_path)
    assert settings.trackers is None and accelerator.log_with == []


# ── What decodes in training is what decodes at inference ────────────────────────────────────────


def folder_with(tmp_path: Path, **vae: object) -> Weights:
    base = Path(get_family("pocket").weights("generator").local_folder())
    copy = tmp_path / "generator"
    shutil.copytree(base, copy)
    path = copy / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | vae))
    return Weights(str(copy))


@pytest.mark.parametrize(("upcast", "dtype"), [(True, torch.float32), (False, torch.float16)])
def test_a_vae_that_overflows_in_float16_decodes_in_float32(upcast, dtype, tmp_path):
    family = get_family("pocket").with_roles(generator=folder_with(tmp_path, force_upcast=upcast))
    generator = load_generator(
        Settings(family="pocket", dtype="float16"), family, torch.device("cpu")
    )
    assert generator.pipe.vae.dtype == dtype and generator.pipe.unet.dtype == torch.float16


def test_a_vae_with_a_mean_of_its_own_decodes_as_in_the_stock_pipeline(tmp_path):
    base = get_family("pocket").weights("generator")
    channels = json.loads((Path(base.local_folder()) / "vae" / "config.json").read_text())
    count = channels["latent_channels"]
    statistics = {"latents_mean": [0.5] * count, "latents_std": [2.0] * count}
    family = get_family("pocket").with_roles(generator=folder_with(tmp_path, **statistics))
    pipe = load_generator(Settings(family="pocket"), family, torch.device("cpu")).pipe
    latents = torch.randn(1, count, 8, 8, generator=torch.Generator().manual_seed(0))
    rollout = Rollout(pipe.unet, pipe.vae, pipe.scheduler, 1, memory="none")
    by_hand = latents * 2.0 / pipe.vae.config.scaling_factor + 0.5
    with torch.no_grad():
        torch.testing.assert_close(unscaled(pipe.vae.config, latents), by_hand)
        torch.testing.assert_close(scaled(pipe.vae.config, by_hand), latents)
        torch.testing.assert_close(rollout.decode(latents), pipe.vae.decode(by_hand).sample)
