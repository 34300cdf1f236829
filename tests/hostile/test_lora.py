"""LoRA files of every kind that is about: read exactly, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hb_tta.errors import UserError
from hb_tta.generators.lora import load_lora, tensors_of
from hb_tta.lora import read_lora, write_lora
from hb_tta.lora.names import kohya_path
from hb_tta.lora.read import CONFIG_FILE, DIFFUSERS_FILE, METADATA, PEFT_PREFIX, WEIGHTS_FILE
from hb_tta.training.estimate import SDXL, build
from hb_tta.weights import Weights

GOLDEN = Path(__file__).parents[1] / "golden" / "hummingbird_pipeline"
LORA = GOLDEN / "lora_unet"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = torch.ones(2, 4), torch.ones(4, 2)


def kohya(*names: str, alpha: float | None = 2.0) -> dict[str, torch.Tensor]:
    """A file's tensors, for ``lora_unet_<name>``."""
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors |= {f"{name}.lora_down.weight": DOWN.clone(), f"{name}.lora_up.weight": UP.clone()}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def saved(folder: Path, tensors: dict[str, torch.Tensor], metadata: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "a.safetensors", metadata)
    return folder / "a.safetensors"


def peft(folder: Path, **changes: Any) -> Path:
    """A copy of the released LoRA's folder with other settings."""
    shutil.copytree(LORA, folder)
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_lora(path)
    assert "\n" not in str(caught.value)


# ── Names ────────────────────────────────────────────────────────────────────────────────────────


def test_stabilitys_names_of_all_of_sdxl_are_those_of_stock_diffusers(tmp_path):
    """Every layer that sd-scripts can train, by diffusers' own conversion."""
    from diffusers import StableDiffusionXLPipeline

    unet, _ = build(Weights(SDXL))
    theirs = {
        path: layer
        for path, layer in unet.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }
    tensors = {}
    for number, name in enumerate(stabilitys_names()):
        part = torch.full((1, 1), float(number))
        tensors[f"lora_unet_{name}.lora_down.weight"] = part
        tensors[f"lora_unet_{name}.lora_up.weight"] = part
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(1.0)
    state, _ = StableDiffusionXLPipeline.lora_state_dict(dict(tensors), unet_config=unet.config)
    by_diffusers = {}
    for key, part in state.items():
        path = key.removeprefix("unet.").replace(".processor", "").replace("_lora.", ".lora.")
        by_diffusers[int(part.item())] = path.split(".lora")[0].replace("to_out.lora", "to_out.0")
    for number, name in enumerate(stabilitys_names()):
        ours = kohya_path(name)
        assert ours in (by_diffusers[number], by_diffusers[number] + ".0"), name
    assert {kohya_path(name) for name in stabilitys_names()} == theirs.keys()


def stabilitys_names() -> list[str]:
    """All layers of SDXL's UNet in Stability's own code, from its configuration."""
    names = ["input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2"]
    names += ["label_emb_0_0", "label_emb_0_2"]
    resnet = ("in_layers_2", "out_layers_3", "emb_layers_1")

    def attention(block: str, depth: int) -> None:
        names.extend(f"{block}_{end}" for end in ("proj_in", "proj_out"))
        for layer in range(depth):
            inside = f"{block}_transformer_blocks_{layer}"
            for one in ("attn1", "attn2"):
                names.extend(
                    f"{inside}_{one}_{end}" for end in ("to_q", "to_k", "to_v", "to_out_0")
                )
            names.extend([f"{inside}_ff_net_0_proj", f"{inside}_ff_net_2"])

    for number in range(1, 9):
        if number % 3 == 0:
            names.append(f"input_blocks_{number}_0_op")
            continue
        names.extend(f"input_blocks_{number}_0_{part}" for part in resnet)
        if number in (4, 7):
            names.append(f"input_blocks_{number}_0_skip_connection")
        if number > 3:
            attention(f"input_blocks_{number}_1", 2 if number < 6 else 10)
    for number in (0, 2):
        names.extend(f"middle_block_{number}_{part}" for part in resnet)
    attention("middle_block_1", 10)
    for number in range(9):
        names.extend(f"output_blocks_{number}_0_{part}" for part in (*resnet, "skip_connection"))
        if number < 6:
            attention(f"output_blocks_{number}_1", 10 if number < 3 else 2)
        if number in (2, 5):
            names.append(f"output_blocks_{number}_2_conv")
    return names


@pytest.mark.parametrize(
    "name",
    [
        "input_blocks_9_1_proj_in",  # SD 1.5 has more blocks than SDXL
        "input_blocks_1_1_transformer_blocks_0_attn1_to_q",  # no attention there
        "output_blocks_3_2_conv",  # no upsampler there
        "input_blocks_4_1_transformer_blocks_0_attn1_to_z",
        "mid_block__attentions_0",
        "double_blocks_0_img_attn_qkv",  # FLUX
        "text_model_encoder_layers_0_self_attn_q_proj",
        "",
    ],
)
def test_names_that_are_not_known_are_refused(name, tmp_path):
    refused(saved(tmp_path, kohya(f"lora_unet_{name}")), "holds 'lora_unet_.* known here")


def test_stabilitys_names_become_paths(tmp_path):
    file = saved(tmp_path, kohya("lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0"))
    lora, _ = read_lora(file)
    assert lora.modules == ["down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0"]


def test_one_layer_named_twice_is_refused(tmp_path):
    both = kohya("lora_unet_middle_block_1_proj_in", "lora_unet_mid_block_attentions_0_proj_in")
    refused(saved(tmp_path, both), "no part of a plain LoRA")


@pytest.mark.parametrize(
    "key",
    [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
    ],
)
def test_parts_of_a_text_encoder_are_refused(key, tmp_path):
    tensors = kohya("lora_unet_mid_block_attentions_0_proj_in") | {key: DOWN}
    refused(saved(tmp_path, tensors), "also changes a text encoder")


@pytest.mark.parametrize(
    "ending", ["dora_scale", "lora_mid.weight", "hada_w1_a", "lokr_w1", "diff", "lora_down.bias"]
)
def test_other_kinds_of_adapters_are_refused(ending, tmp_path):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    refused(saved(tmp_path, kohya(name) | {f"{name}.{ending}": DOWN}), f"holds '{name}.{ending}'")


def test_layers_of_several_ranks_and_alphas_survive_every_format(tmp_path):
    """sd-scripts' convolutions have a rank and an alpha of their own."""
    tensors = kohya(
        "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_attentions_0_proj_out"
    )
    wide = "lora_unet_mid_block_resnets_0_conv1"
    tensors |= {
        f"{wide}.lora_down.weight": torch.ones(3, 4, 3, 3),
        f"{wide}.lora_up.weight": torch.ones(4, 3, 1, 1),
        f"{wide}.alpha": torch.tensor(1.5),
    }
    lora, _ = read_lora(saved(tmp_path, tensors))
    assert lora.scales()["mid_block.resnets.0.conv1"] == 0.5 and lora.rank == 2
    for form in ("peft", "diffusers", "kohya"):
        again, found = read_lora(write_lora(lora, tmp_path / form, form))
        assert found == form and again.parts == lora.parts and again.alphas == lora.alphas


# ── diffusers' files ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{LAYER}.lora.down.weight", f"unet.{LAYER}.lora.up.weight"),
        (f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
        ),
    ],
)
def test_names_of_older_trainers_are_read_once_their_scale_is_said(down, up, tmp_path):
    file = saved(tmp_path, {down: DOWN, up: UP})
    refused(file, "has lost its scale .no alpha of 'mid_block.*say it with --alpha")
    lora, form = read_lora(file, 2.0)
    assert form == "diffusers" and lora.modules == [LAYER] and lora.scales() == {LAYER: 1.0}
    by_file, _ = read_lora(
        saved(tmp_path, {down: DOWN, up: UP, f"unet.{LAYER}.alpha": torch.tensor(4.0)})
    )
    assert by_file.scales() == {LAYER: 2.0}


def metadata(**changes: Any) -> dict[str, str]:
    said = {"r": 2, "lora_alpha": 4, "target_modules": ["to_q"], "peft_type": "LORA"} | changes
    return {METADATA: json.dumps({f"unet.{name}": value for name, value in said.items()})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_rslora": True}, "sets use_rslora=True"),
        ({"use_dora": True}, "sets use_dora=True"),
        ({"rank_pattern": {"to_q": 3}}, "says r=3 of 'mid_block.* have r=2"),
        ({"alpha_pattern": {"(a+)+b": 3}}, r"the expression '\(a\+\)\+b' in alpha_pattern"),
        ({"alpha_pattern": {"to_q": "4"}}, "alpha_pattern.to_q='4'"),
        ({"lora_bias": True}, "sets lora_bias=True"),
        ({"target_modules": None}, "target_modules=None"),
    ],
)
def test_settings_in_diffusers_metadata_count(changes, message, tmp_path):
    tensors = {f"unet.{LAYER}.lora_A.weight": DOWN, f"unet.{LAYER}.lora_B.weight": UP}
    refused(saved(tmp_path, tensors, metadata(**changes)), message)


def test_an_alpha_of_one_layer_in_the_metadata_is_its_alpha(tmp_path):
    tensors = {f"unet.{LAYER}.lora_A.weight": DOWN, f"unet.{LAYER}.lora_B.weight": UP}
    lora, _ = read_lora(saved(tmp_path, tensors, metadata(alpha_pattern={"attn1.to_q": 1})))
    assert lora.scales() == {LAYER: 0.5}
    anchored, _ = read_lora(saved(tmp_path, tensors, metadata(alpha_pattern={"^attn1.to_q": 1})))
    assert anchored.scales() == {LAYER: 2.0}


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"r": 1}', '{"unet.r": NaN}', "7"])
def test_a_bad_header_is_told(text, tmp_path):
    tensors = {f"unet.{LAYER}.lora_A.weight": DOWN, f"unet.{LAYER}.lora_B.weight": UP}
    refused(saved(tmp_path, tensors, {METADATA: text}), "a.safetensors', in its header,")


# ── PEFT's configuration ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alora_invocation_tokens", [1, 2]),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", 1.5),
        ("layers_to_transform", [0]),
        ("exclude_modules", ["to_v"]),
        ("modules_to_save", ["conv_in"]),
        ("layer_replication", [[0, 1]]),
        ("target_parameters", ["weight"]),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("use_qalora", True),
        ("megatron_config", {"a": 1}),
        ("trainable_token_indices", [0]),
        ("a_setting_of_next_year", 3),
        ("lora_bias", 0.0001),
    ],
)
def test_what_is_not_understood_is_refused_by_name(name, value, tmp_path):
    refused(peft(tmp_path / "lora", **{name: value}), f"sets {name}=")


@pytest.mark.parametrize("value", [None, False, {}, [], ""])
def test_a_setting_of_next_year_that_says_nothing_is_no_fault(value, tmp_path):
    lora, _ = read_lora(peft(tmp_path / "lora", a_setting_of_next_year=value))
    assert lora.parts == read_lora(LORA)[0].parts


@pytest.mark.parametrize(
    "changes",
    [
        {"r": True}, {"r": 0}, {"r": -8}, {"r": 8.0}, {"r": "8"}, {"r": None}, {"r": 10**400},
        {"lora_alpha": float("nan")}, {"lora_alpha": float("inf")}, {"lora_alpha": 0},
        {"lora_alpha": "32"}, {"lora_alpha": 10**400}, {"lora_alpha": [1]},
        {"target_modules": []}, {"target_modules": ""}, {"target_modules": [1]},
        {"target_modules": {"to_q": 1}}, {"target_modules": 7},
        {"rank_pattern": [1]}, {"rank_pattern": {"to_q": None}}, {"rank_pattern": {"": 1}},
        {"peft_type": None}, {"peft_type": ["LORA"]},
    ],
)  # fmt: skip
def test_odd_configurations_are_told(changes, tmp_path):
    refused(peft(tmp_path / "lora", **changes), next(iter(changes)))


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", "[" * 100_000, "\udcff", "{}" * 9**6])
def test_a_configuration_that_is_none(text, tmp_path):
    folder = peft(tmp_path / "lora")
    (folder / CONFIG_FILE).write_bytes(text.encode(errors="surrogateescape"))
    refused(folder, CONFIG_FILE)


def test_an_expression_that_could_run_for_ever_is_not_run(tmp_path):
    """The layers of such a LoRA are those that have tensors."""
    from diffusers import UNet2DConditionModel

    folder = peft(tmp_path / "lora", target_modules=r"(\w+\.?)+(\w+\.?)+!")
    began = time.perf_counter()
    lora, _ = read_lora(folder)
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "pipeline" / "unet")
    assert load_lora(unet, str(folder)) == 104_448
    assert lora.target_modules == () and time.perf_counter() - began < 20
    write_lora(lora, tmp_path / "again", "peft")
    config = json.loads((tmp_path / "again" / CONFIG_FILE).read_text())
    assert config["target_modules"] == lora.modules


# ── Tensors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.uint8, torch.float8_e4m3fn])
def test_tensors_that_are_no_floats_are_refused(dtype, tmp_path):
    folder = peft(tmp_path / "lora")
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({key: part.to(dtype) for key, part in tensors.items()}, folder / WEIGHTS_FILE)
    refused(folder, "a LoRA's tensors are float64, float32, float16, bfloat16")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(dtype, value, tmp_path):
    tensors = kohya("lora_unet_mid_block_attentions_0_proj_in")
    key = min(key for key in tensors if "down" in key)
    tensors = {name: part.to(dtype) for name, part in tensors.items()}
    tensors[key][1, 2] = value
    refused(saved(tmp_path, tensors), "numbers that are not finite")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_is_read_as_it_stands(dtype, tmp_path):
    draw = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.randn(part.shape, generator=draw).to(dtype) if part.ndim else part.to(dtype)
        for key, part in kohya("lora_unet_mid_block_attentions_0_proj_in").items()
    }
    lora, _ = read_lora(saved(tmp_path, tensors))
    module = "mid_block.attentions.0.proj_in"
    assert lora.alphas == {module: 2.0}
    again = tensors_of(lora.parts)[f"{module}.lora_A.weight"]
    assert torch.equal(again, tensors["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"])
    written, _ = read_lora(write_lora(lora, tmp_path / "out", "kohya"))
    assert written.parts == lora.parts


@pytest.mark.parametrize(
    ("down", "up"),
    [((2, 4), (4, 3)), ((2, 4, 1, 1), (4, 2)), ((2,), (2,)), ((2, 4, 3, 3), (4, 2, 3, 3))],
)
def test_parts_that_do_not_fit_each_other(down, up, tmp_path):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = kohya(name) | {
        f"{name}.lora_down.weight": torch.ones(down),
        f"{name}.lora_up.weight": torch.ones(up),
    }
    refused(saved(tmp_path, tensors), "which make no plain LoRA")


@pytest.mark.parametrize("alpha", [0.0, float("nan"), float("inf")])
def test_alphas_that_are_no_scale(alpha, tmp_path):
    file = saved(tmp_path, kohya("lora_unet_mid_block_attentions_0_proj_in", alpha=alpha))
    refused(file, "alpha|not finite")


def test_a_scale_that_the_file_says_is_not_said_again(tmp_path):
    for path in (saved(tmp_path, kohya("lora_unet_mid_block_attentions_0_proj_in")), LORA):
        with pytest.raises(UserError, match="leave --alpha out"):
            read_lora(path, 8.0)


# ── Files ────────────────────────────────────────────────────────────────────────────────────────


def test_damaged_headers_are_told(tmp_path):
    whole = (LORA / WEIGHTS_FILE).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    told = 0
    for number in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, 8 + size, 1 + number % 4):
            damaged[place] = rng.integers(256)
        folder = tmp_path / f"{number}"
        folder.mkdir()
        shutil.copy(LORA / CONFIG_FILE, folder)
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        try:
            read_lora(folder)
        except UserError:
            told += 1
    assert told > 150  # the rest hit a shape's blank, or a byte by itself


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, b"PK\3\4" + b"\0" * 60, b"{}" * 40])
def test_what_is_no_safetensors_file(data, tmp_path):
    (tmp_path / DIFFUSERS_FILE).write_bytes(data)
    refused(tmp_path, "is damaged or no safetensors file|holds no tensors")


def test_a_folder_of_several_loras_is_no_choice(tmp_path):
    for name in ("a", "b"):
        save_file(
            kohya("lora_unet_mid_block_attentions_0_proj_in"), tmp_path / f"{name}.safetensors"
        )
    refused(tmp_path, "holds several LoRAs: name one of the files")
    (tmp_path / "b.safetensors").unlink()
    assert read_lora(tmp_path)[1] == "kohya"


def test_peft_keys_of_another_kind_are_refused(tmp_path):
    for key in ("lora_embedding_A", "lora_magnitude_vector.weight", "base_layer.weight"):
        folder = peft(tmp_path / key)
        tensors = load_file(folder / WEIGHTS_FILE) | {f"{PEFT_PREFIX}{LAYER}.{key}": DOWN}
        save_file(tensors, folder / WEIGHTS_FILE)
        refused(folder, "no part of a plain LoRA")


def test_inspect_takes_no_torch():
    code = (
        "import sys; from hb_tta.cli import main; code = main(['lora', 'inspect', sys.argv[1]]);"
        "sys.exit(code or 3 * bool({'torch', 'peft', 'diffusers'} & sys.modules.keys()))"
    )
    done = run([sys.executable, "-c", code, str(LORA)], capture_output=True, text=True)
    assert done.returncode == 0 and "scale           4" in done.stdout, done.stderr
