"""A base keeps its own noise, and its latents whole, whichever scheduler's file it comes with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from sdxl_folders import PIPELINE

from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators.loading import load_sdxl
from hb_tta.generators.solvers import ddim_like
from hb_tta.training.frozen import load_generator
from hb_tta.training.recipes import Settings
from hb_tta.weights import Weights

OTHERS = (
    "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
)  # fmt: skip


def base_with(folder: Path, name: str, **written: Any) -> Path:
    """The golden base with a scheduler's file of another class."""
    base = shutil.copytree(PIPELINE, folder / "base")
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name, **written}))
    index = json.loads((base / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", name]
    (base / "model_index.json").write_text(json.dumps(index))
    return base


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_an_empty_file_of_any_class_means_that_classs_noise_and_no_clipping(name, tmp_path):
    """Heun's and KDPM2's own betas are not DDIM's."""
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    theirs = getattr(diffusers, name).from_pretrained(tmp_path)
    ours = ddim_like(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-5, atol=1e-7)
    assert not ours.config.clip_sample and not ours.config.set_alpha_to_one
    assert ours.final_alpha_cumprod == ours.alphas_cumprod[0]


def test_the_trainers_scheduler_is_that_of_inference(tmp_path):
    base = base_with(tmp_path, "EulerDiscreteScheduler", beta_schedule="scaled_linear")
    shutil.copytree(PIPELINE / "image_encoder", base / "image_encoder", dirs_exist_ok=True)
    family = get_family("pocket").with_roles(generator=base)
    trained = load_generator(
        Settings(family="pocket", dtype="float32"), family, torch.device("cpu")
    ).pipe.scheduler
    used = load_sdxl(Weights(str(base)), dtype="float32", image_encoder=None, embeds_images=False)
    assert dict(trained.config) == dict(used.scheduler.config)
    assert not trained.config.clip_sample and not trained.config.set_alpha_to_one


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}),
        ("LCMScheduler", {}),
        ("EDMEulerScheduler", {}),
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        ),
    ],
)
def test_what_ddim_cannot_sample_keeps_its_own_and_is_not_trained(name, written, tmp_path):
    base = base_with(tmp_path, name, **written)
    given: Any = {"dtype": "float32", "image_encoder": None, "embeds_images": False}
    kept = load_sdxl(Weights(str(base)), **given).scheduler
    assert type(kept).__name__ == name
    for solver in ("dpmsolver++", "lcm"):
        with pytest.raises(UserError, match=f"cannot sample .*, which was made for {name}"):
            load_sdxl(Weights(str(base)), **given, solver=solver)
    shutil.copytree(PIPELINE / "image_encoder", base / "image_encoder", dirs_exist_ok=True)
    family = get_family("pocket").with_roles(generator=base)
    with pytest.raises(UserError, match=f"was made for {name}, and training goes through DDIM"):
        load_generator(Settings(family="pocket", dtype="float32"), family, torch.device("cpu"))
