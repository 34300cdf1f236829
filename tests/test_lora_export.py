"""A LoRA's formats: the same weights and the same scale in all of them, or an error."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sdxl_folders import LORA, PIPELINE

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.generators.lora import load_lora, parts_of
from hb_tta.lora import FORMATS, Lora, read_lora, write_lora
from hb_tta.training.estimate import SDXL, build
from hb_tta.training.lora import add_lora, lora_layers, lora_parameters, lora_tensors
from hb_tta.weights import Weights


@pytest.fixture(scope="module")
def released() -> Lora:
    """As the authors publish theirs."""
    lora, form = read_lora(LORA)
    assert form == "peft"
    return lora


def plain(tensors: dict[str, torch.Tensor], targets: tuple[str, ...] = ()) -> Lora:
    """A LoRA of alpha 32 everywhere."""
    modules = {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}
    return Lora(parts_of(tensors), dict.fromkeys(modules, 32.0), targets)


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(PIPELINE / "unet")


def output(model) -> torch.Tensor:
    """What a UNet makes of fixed inputs."""
    draw = torch.Generator().manual_seed(0)
    config = unet().config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    with torch.no_grad():
        return model(
            torch.randn(1, config.in_channels, 8, 8, generator=draw),
            torch.tensor(500),
            encoder_hidden_states=torch.randn(1, 7, config.cross_attention_dim, generator=draw),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, pooled, generator=draw),
                "time_ids": torch.ones(1, 6),
            },
        ).sample


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    """By PEFT itself, from the authors' folder."""
    tuned = output(PeftModel.from_pretrained(unet(), LORA))
    assert (tuned - output(unet())).abs().max() > 1e-3
    return tuned


@pytest.mark.parametrize("form", FORMATS)
def test_round_trips_keep_every_bit(released, form, tmp_path):
    again, found = read_lora(write_lora(released, tmp_path, form))
    assert found == form
    assert again.alphas == released.alphas and again.scales() == released.scales()
    assert again.parts == released.parts


def test_peft_and_this_package_load_our_folder(released, expected, tmp_path):
    folder = write_lora(released, tmp_path, "peft")
    by_peft = PeftModel.from_pretrained(unet(), folder)
    torch.testing.assert_close(output(by_peft), expected, rtol=0, atol=1e-5)
    ours = unet()
    load_lora(ours, str(folder))
    torch.testing.assert_close(output(ours), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_stock_diffusers_loads_our_files(released, expected, form, tmp_path):
    file = write_lora(released, tmp_path, form)
    pipe = StableDiffusionXLPipeline.from_pretrained(PIPELINE)
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    torch.testing.assert_close(output(pipe.unet), expected, rtol=0, atol=1e-5)


def test_kohya_says_alpha_and_rank_as_comfyui_reads_them(released, tmp_path):
    tensors = load_file(write_lora(released, tmp_path, "kohya"))
    modules = {key.split(".")[0] for key in tensors}
    assert len(tensors) == 3 * len(modules) and all(
        name.startswith("lora_unet_") for name in modules
    )
    for name in modules:
        assert tensors[f"{name}.alpha"].item() == released.alpha
        assert tensors[f"{name}.lora_down.weight"].shape[0] == released.rank


def with_lora(targets: tuple[str, ...]) -> UNet2DConditionModel:
    """The tiny UNet with a LoRA that changes something."""
    tuned = unet()
    add_lora(tuned, target_modules=targets)
    with torch.no_grad():
        for parameter in lora_parameters(tuned):
            parameter.normal_(std=0.05)
    return tuned


def test_sdxls_names_survive_kohya(tmp_path):
    """All module names of the full UNet with the paper's target modules."""
    model, _ = build(Weights(SDXL))
    add_lora(model)
    assert sum(p.numel() for p in lora_parameters(model)) == 11_796_480
    assert len(lora_layers(model)) == 350
    tensors = {}
    for path, layer in model.named_modules():
        if hasattr(layer, "lora_A") and len(layer.lora_A):
            tensors[f"{path}.lora_A.weight"] = torch.zeros(8, 1)
            tensors[f"{path}.lora_B.weight"] = torch.zeros(1, 8)
    lora = plain(tensors, ("to_q", "to_v", "ff.net.0.proj"))
    again, _ = read_lora(write_lora(lora, tmp_path, "kohya"))
    assert again.modules == lora.modules and again.target_modules == ()
    write_lora(again, tmp_path / "peft", "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == set(lora.modules)


@pytest.mark.parametrize(
    "targets",
    [
        ("to_q", "to_k", "to_v", "to_out.0"),
        ("ff.net.0.proj", "ff.net.2"),
        ("to_out.0", "ff.net.2", "proj_in", "proj_out", "time_emb_proj", "conv1"),
    ],
)
def test_kohya_files_of_any_layers_can_be_loaded(targets, tmp_path):
    """Most LoRAs have "to_out.0" and "ff.net.2", whose last part "0" or "2" names many layers."""
    tuned = with_lora(targets)
    write_lora(plain(lora_tensors(tuned), targets), tmp_path, "kohya")
    again, form = read_lora(tmp_path)
    write_lora(again, tmp_path / "peft", "peft")
    loaded = unet()
    load_lora(loaded, str(tmp_path / "peft"))
    assert form == "kohya" and len(lora_layers(loaded)) == len(lora_layers(tuned))
    torch.testing.assert_close(output(loaded), output(tuned), atol=1e-5, rtol=0)


def test_a_kohya_file_of_some_blocks_changes_no_others(tmp_path):
    whole = lora_tensors(with_lora(("to_q",)))
    some = {key: part for key, part in whole.items() if key.startswith("mid_block")}
    assert 0 < len(some) < len(whole)
    write_lora(plain(some, ("to_q",)), tmp_path, "kohya")
    again, _ = read_lora(tmp_path)
    write_lora(again, tmp_path / "peft", "peft")
    loaded = unet()
    load_lora(loaded, str(tmp_path / "peft"))
    assert len(lora_layers(loaded)) == len(some) // 2


def test_a_fresh_lora_is_the_base(tmp_path):
    model = unet()
    before = output(model)
    add_lora(model, seed=3)
    assert torch.equal(output(model), before)
    other = unet()
    add_lora(other, seed=3)
    for a, b in zip(lora_parameters(model), lora_parameters(other), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float32


def test_masters_are_float32_on_a_bfloat16_base():
    model = unet().to(torch.bfloat16)
    add_lora(model)
    assert {p.dtype for p in lora_parameters(model)} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_unknown_target_modules_are_told():
    with pytest.raises(UserError, match="target_modules"):
        add_lora(unet(), target_modules=("nothing",))


# ── What must not pass ──────────────────────────────────────────────────────────────────────────


def test_a_diffusers_file_without_its_scale_is_refused(released, tmp_path):
    file = write_lora(released, tmp_path, "diffusers")
    save_file(load_file(file), file, {"format": "pt"})
    with pytest.raises(UserError, match="lost its scale"):
        read_lora(file)


def test_a_kohya_file_without_alpha_is_refused(released, tmp_path):
    file = write_lora(released, tmp_path, "kohya")
    kept = {key: part for key, part in load_file(file).items() if not key.endswith(".alpha")}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(UserError, match="has lost its scale .no alpha of"):
        read_lora(file)


def test_a_lora_with_a_missing_half_is_refused(released, tmp_path):
    folder = write_lora(released, tmp_path, "peft")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match="is no whole LoRA: .* has one part of two"):
        read_lora(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"use_dora": True}, "sets use_dora=True"),
        ({"r": 9}, "says r=9 of .* its tensors have r=8"),
        ({"lora_alpha": None}, "lora_alpha=None: it must be a number other than 0"),
    ],
)
def test_odd_configurations_are_refused(released, change, message, tmp_path):
    folder = write_lora(released, tmp_path, "peft")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read_lora(folder)


def test_what_is_no_lora_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no LoRA"):
        read_lora(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match="holds no LoRA"):
        read_lora(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="is damaged or no safetensors file"):
        read_lora(tmp_path / "broken.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="its first tensor is 'weight'"):
        read_lora(tmp_path / "other.safetensors")


# ── The command ─────────────────────────────────────────────────────────────────────────────────


def test_inspect_tells_the_scale(capsys):
    assert main(["lora", "inspect", str(LORA), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "peft" and found["rank"] == 8 and found["alpha"] == 32
    assert found["scale"] == 4


def test_convert_there_and_back(tmp_path, capsys):
    assert main(["lora", "convert", str(LORA), "--to", "kohya", "--out", str(tmp_path / "a")]) == 0
    file = capsys.readouterr().out.strip()
    assert main(["lora", "convert", file, "--to", "peft", "--out", str(tmp_path / "b")]) == 0
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "b", LORA)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("form", ["peft", "diffusers", "kohya"])
def test_convert_makes_it_weaker(tmp_path, form):
    line = ["lora", "convert", str(LORA), "--to", form, "--out", str(tmp_path / "half")]
    assert main([*line, "--lora-scale", "0.35"]) == 0
    whole, _ = read_lora(LORA)
    place = tmp_path / "half"
    weaker, _ = read_lora(place if form == "peft" else next(place.iterdir()))
    assert weaker.scales() == pytest.approx({k: 0.35 * it for k, it in whole.scales().items()})
    assert weaker.parts == whole.parts


def test_convert_to_nothing_is_refused(tmp_path, capsys):
    line = ["lora", "convert", str(LORA), "--to", "peft", "--out", str(tmp_path)]
    assert main([*line, "--lora-scale", "0"]) == 1
    assert "leaves no LoRA" in capsys.readouterr().err


def test_convert_needs_a_format(tmp_path, capsys):
    assert main(["lora", "convert", str(LORA), "--out", str(tmp_path)]) == 1
    assert "--to FORMAT" in capsys.readouterr().err


def test_a_copy_of_the_golden_folder_is_untouched(tmp_path):
    shutil.copytree(LORA, tmp_path / "lora")
    before = {f.name: f.read_bytes() for f in (tmp_path / "lora").iterdir()}
    read_lora(tmp_path / "lora")
    assert {f.name: f.read_bytes() for f in (tmp_path / "lora").iterdir()} == before
