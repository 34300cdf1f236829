"""Every layout that the generators' weights come in, and what is wrong with some of them."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from sdxl_folders import (
    GOLDEN,
    LORA,
    PIPELINE,
    reference,
    save_clip,
    save_hub_cache,
    save_sdxl_base,
)

from hb_tta.errors import UserError
from hb_tta.generators import HummingbirdGenerator, I2T2ISpec
from hb_tta.weights import Weights

CONTEXT = (reference(), "two red dogs left of a blue bench")


def latents(base: Path, **settings) -> torch.Tensor:
    generator = HummingbirdGenerator.from_pretrained(base, lora=LORA, device="cpu", **settings)
    return generator.generate([CONTEXT], [[0]], num_inference_steps=2, output_type="latent")[0][0]


@cache
def expected() -> torch.Tensor:
    return latents(PIPELINE)


def test_sdxls_own_layout_with_a_whole_clip_beside_it(tmp_path: Path, caplog):
    base, clip = save_sdxl_base(tmp_path / "base"), save_clip(tmp_path / "clip")
    torch.testing.assert_close(latents(base, image_encoder=clip), expected(), atol=1e-3, rtol=0)
    generator = HummingbirdGenerator.from_pretrained(base, image_encoder=clip, device="cpu")
    pipe = generator.pipe
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    golden = json.loads((PIPELINE / "scheduler" / "scheduler_config.json").read_text())
    unlike = {key for key in golden if pipe.scheduler.config[key] != golden[key]}
    assert unlike <= {"_class_name", "_diffusers_version"}
    assert "REPORT" not in caplog.text


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
             "DPMSolverMultistepScheduler", "DDPMScheduler"]
)  # fmt: skip
def test_latents_are_never_clipped_unless_the_file_says_so(tmp_path: Path, name: str):
    """A file of another scheduler: what it does not say must not come from DDIM's pixel defaults.

    With no ``_use_default_values`` the whole configuration of that class counts as written.
    """
    written = json.loads((PIPELINE / "scheduler" / "scheduler_config.json").read_text())
    shared = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "steps_offset")
    base = shutil.copytree(PIPELINE, tmp_path / "base")
    config = {"_class_name": name, **{key: written[key] for key in shared}}
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    index = json.loads((base / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", name]
    (base / "model_index.json").write_text(json.dumps(index))
    assert expected().abs().max() > 1  # what clipping would cut
    torch.testing.assert_close(latents(base), expected(), atol=1e-3, rtol=0)


def test_a_file_that_asks_for_clipping_gets_it(tmp_path: Path):
    base = shutil.copytree(PIPELINE, tmp_path / "base")
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clip_sample": True}))
    assert latents(base).abs().max() < expected().abs().max()


def test_a_tower_named_inside_a_pipeline_folder(tmp_path: Path):
    tower = Weights(str(PIPELINE), subfolder="image_encoder")
    assert torch.equal(latents(PIPELINE, image_encoder=tower), expected())
    base = save_sdxl_base(tmp_path / "base")
    torch.testing.assert_close(latents(base, image_encoder=tower), expected(), atol=1e-3, rtol=0)


def test_family_sdxl_from_the_hubs_cache(tmp_path: Path):
    """The code path of the paper's scale from hub ids to a view, without a network."""
    code = f"""
import json, warnings
warnings.simplefilter("error", UserWarning)
warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
warnings.filterwarnings("ignore", "Unexpected keyword arguments .* LoraConfig")  # an older peft
from hb_tta.families import get_family
from hb_tta.generators import get_method
spec = get_method("hummingbird").from_family(get_family("sdxl"), dtype="float32")
import sys
assert "torch" not in sys.modules
print(json.dumps(spec.to_json()))
from PIL import Image
image = Image.open({str(GOLDEN / "reference.png")!r}).convert("RGB")
options = dict(num_inference_steps=2, output_type="latent")
latents = spec.load("cpu").generate([(image, {CONTEXT[1]!r})], [[0]], **options)[0][0]
from safetensors.torch import save_file
save_file({{"latents": latents.contiguous()}}, {str(tmp_path / "view.safetensors")!r})
"""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(save_hub_cache(tmp_path / "hub")),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "method": "hummingbird",
        "version": 1,
        "base": "hub:" + "a" * 40,
        "image_encoder": "hub:" + "b" * 40,
        "lora": "hub:" + "c" * 40 + "/lora_unet_65000",
        "lora_scale": 1.0,
        "scheduler": "ddim",
        "num_inference_steps": 25,
        "guidance_scale": 15.0,
        "height": None,
        "width": None,
        "dtype": "float32",
    }
    assert done.stderr == ""
    view = load_file(tmp_path / "view.safetensors")["latents"]
    torch.testing.assert_close(view, expected(), atol=1e-3, rtol=0)


def copied_pipeline(folder: Path) -> Path:
    shutil.copytree(PIPELINE, folder)
    return folder


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(base: Path | str, **settings) -> HummingbirdGenerator:
    return HummingbirdGenerator.from_pretrained(base, device="cpu", **settings)


def test_a_base_without_an_image_encoder_asks_for_one(tmp_path: Path):
    base = save_sdxl_base(tmp_path / "base")
    with pytest.raises(UserError, match=r"has no image encoder: name one, such as image_encoder="):
        load(base)
    I2T2ISpec(Weights(str(base))).load("cpu")  # which has no use for it


def test_a_tower_of_another_width_is_refused(tmp_path: Path):
    base = copied_pipeline(tmp_path / "base")
    tower = base / "image_encoder"
    edit_json(tower / "config.json", projection_dim=48)
    tensors = load_file(tower / "model.safetensors")
    tensors["visual_projection.weight"] = torch.zeros(48, 32)
    save_file(tensors, tower / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="gives embeddings of 48 numbers, the UNet takes 32"):
        load(base)


def test_a_tower_that_lacks_weights_is_refused(tmp_path: Path):
    base = copied_pipeline(tmp_path / "base")
    file = base / "image_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors["visual_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"it lacks 'visual_projection.weight' \(1 weights in all"):
        load(PIPELINE, image_encoder=Weights(str(base), subfolder="image_encoder"))


def test_missing_and_damaged_weights_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="/no/such/folder"):
        load("/no/such/folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded as a Stable Diffusion XL pipeline"):
        load(tmp_path / "empty")
    base = copied_pipeline(tmp_path / "base")
    unet = base / "unet" / "diffusion_pytorch_model.safetensors"
    unet.write_bytes(unet.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded as a Stable Diffusion XL pipeline"):
        load(base)
    unet.unlink()
    with pytest.raises(UserError, match="cannot be loaded as a Stable Diffusion XL pipeline"):
        load(base)


@pytest.mark.parametrize("lost", ["tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json"])
def test_a_lost_vocabulary_is_named(tmp_path: Path, lost: str):
    base = copied_pipeline(tmp_path / "base")
    (base / lost).unlink()
    with pytest.raises(UserError, match="lacks the vocabulary of a tokenizer"):
        load(base)


def test_pickled_weights_are_never_read(tmp_path: Path):
    base = copied_pipeline(tmp_path / "base")
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match="cannot be loaded as a Stable Diffusion XL pipeline"):
        load(base)


def test_another_stable_diffusion_is_refused(tmp_path: Path):
    base = copied_pipeline(tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text())
    for absent in ("text_encoder_2", "tokenizer_2"):  # as Stable Diffusion 1.5 is laid out
        shutil.rmtree(base / absent)
        del index[absent]
    index["_class_name"] = "StableDiffusionPipeline"
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is no Stable Diffusion XL: it has no tokenizer_2"):
        load(base)


def test_a_unet_without_a_pooled_embedding_is_refused(tmp_path: Path):
    base = copied_pipeline(tmp_path / "base")
    config = json.loads((base / "unet" / "config.json").read_text())
    config |= {"addition_embed_type": None, "projection_class_embeddings_input_dim": None}
    UNet2DConditionModel.from_config(config).save_pretrained(base / "unet")
    with pytest.raises(UserError, match="its UNet takes no pooled embedding"):
        load(base)
