"""A LoRA loads exactly, or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from sdxl_folders import LORA, PIPELINE, reference

from hb_tta.errors import UserError
from hb_tta.generators import HummingbirdGenerator
from hb_tta.generators.lora import load_lora, merge_lora
from hb_tta.lora.read import CONFIG_FILE, PEFT_PREFIX, WEIGHTS_FILE
from hb_tta.training.sdxl import SDXL_UNET

# Section 5.2 and appendix Q of the paper
PAPERS_LORA = {
    "r": 8,
    "lora_alpha": 32,
    "target_modules": ["to_q", "to_v", "query", "value", "ff.net.0.proj"],
}


def test_sdxl_with_the_papers_lora_trains_11_796_480_parameters():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET)
    assert sum(weight.numel() for weight in unet.parameters()) == 2_567_463_684
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(**PAPERS_LORA))
    trainable = [weight.numel() for weight in unet.parameters() if weight.requires_grad]
    assert sum(trainable) == 11_796_480
    assert len(trainable) == 2 * 350


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(PIPELINE, subfolder="unet")


def prediction(model: UNet2DConditionModel) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return model(
            torch.randn(1, 4, 32, 32, generator=draw),
            torch.tensor(500),
            encoder_hidden_states=torch.randn(1, 77, 64, generator=draw),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, 32, generator=draw),
                "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]),
            },
        ).sample


def merged(alpha_over_r: float) -> UNet2DConditionModel:
    """The UNet with the LoRA added into its weights by hand."""
    model, tensors = unet(), load_file(LORA / WEIGHTS_FILE)
    weights = model.state_dict()
    for key in tensors:
        if key.endswith("lora_A.weight"):
            down, up = tensors[key], tensors[key.replace("lora_A", "lora_B")]
            name = key.removeprefix(PEFT_PREFIX).replace("lora_A.weight", "weight")
            weights[name] += alpha_over_r * up @ down
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_the_scale_is_alpha_over_r_times_the_callers(scale: float):
    model = unet()
    assert load_lora(model, str(LORA), scale=scale) == 104_448  # lora_parameters in cases.json
    torch.testing.assert_close(prediction(model), prediction(merged(4 * scale)), atol=1e-5, rtol=0)
    assert (prediction(model) - prediction(unet())).abs().max() > 1e-3 or scale == 0


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_merged_it_computes_the_same_with_no_layer_left(scale: float):
    layers, model = unet(), unet()
    load_lora(layers, str(LORA), scale=scale)
    merge_lora(model, str(LORA), scale=scale)
    torch.testing.assert_close(prediction(model), prediction(layers), atol=1e-5, rtol=0)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert model.state_dict().keys() == unet().state_dict().keys()
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.filterwarnings("error::UserWarning")
def test_merged_in_bfloat16_it_is_the_float32_sum_rounded_once():
    """However small: added to weights that are rounded already it would be lost in most of them."""
    exact = merged(4 * 2**-7).to(torch.bfloat16).state_dict()
    pipe = HummingbirdGenerator.from_pretrained(
        PIPELINE, lora=LORA, lora_scale=2**-7, dtype="bfloat16", device="cpu"
    ).pipe
    for key, weight in pipe.unet.state_dict().items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, exact[key]), key
    models = (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.image_encoder)
    assert {model.dtype for model in models} == {torch.bfloat16}


def test_nothing_of_the_lora_is_trainable_or_dropped_out():
    model = unet().train()
    load_lora(model, str(LORA))
    assert not any(weight.requires_grad for weight in model.parameters())
    assert torch.equal(prediction(model), prediction(model))


def test_the_lora_takes_the_unets_dtype():
    model = unet().to(torch.bfloat16)
    load_lora(model, str(LORA))
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def changed(folder: Path, *, tensors: Any = None, **config: Any) -> Path:
    """A copy of the golden LoRA with other tensors or settings."""
    shutil.copytree(LORA, folder)
    written = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(written | config))
    if tensors is not None:
        save_file(tensors(load_file(folder / WEIGHTS_FILE)), folder / WEIGHTS_FILE)
    return folder


def test_a_zero_lora_is_the_untuned_generator(tmp_path: Path):
    def zeroed(tensors):
        return {k: t * 0 if "lora_B" in k else t for k, t in tensors.items()}

    zero = changed(tmp_path / "zero", tensors=zeroed)
    image = reference()
    views = [
        HummingbirdGenerator.from_pretrained(PIPELINE, lora=lora, device="cpu").generate(
            [(image, "a cat")], [[0]], num_inference_steps=2, output_type="latent"
        )[0][0]
        for lora in (None, zero)
    ]
    assert torch.equal(*views)


def test_patterns_of_rank_and_alpha_are_kept(tmp_path: Path):
    first = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"

    def halved(tensors):
        return {k: (t[:4] if "lora_A" in k else t[:, :4]).contiguous() if first in k else t
                for k, t in tensors.items()}  # fmt: skip

    folder = changed(
        tmp_path / "patterns", tensors=halved, rank_pattern={first: 4}, alpha_pattern={first: 2}
    )
    model = unet()
    load_lora(model, str(folder), scale=0.5)
    assert model.get_submodule(first).scaling == {"default": 0.25}


def without_prefix(tensors):
    return {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in tensors.items()}


def test_keys_without_pefts_prefix_load_too(tmp_path: Path):
    model, plain = unet(), unet()
    load_lora(model, str(LORA))
    load_lora(plain, str(changed(tmp_path / "plain", tensors=without_prefix)))
    assert torch.equal(prediction(model), prediction(plain))


def first_key(tensors):
    return min(tensors)


def layer(key):
    return key.split(".lora_")[0]


def of_conv_in(module):
    return {
        f"{module}.lora_A.weight": torch.zeros(8, 4, 3, 3),
        f"{module}.lora_B.weight": torch.zeros(32, 8, 1, 1),
    }


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (
            lambda t: {f"unet.{key}": tensor for key, tensor in without_prefix(t).items()},
            {},
            r"'unet.down_blocks.*' \(60 layers of the kind\), which is no layer of a UNet",
        ),
        (lambda t: {}, {}, "holds no tensors"),
        (
            lambda t: {key: tensor for key, tensor in t.items() if key != first_key(t)},
            {},
            r"attn1.to_q' has one part of two",
        ),
        (
            lambda t: {k: tensor for k, tensor in t.items() if layer(k) != layer(first_key(t))},
            {},
            r"attn1.to_q' \(1 in all\) is named by its configuration but missing",
        ),
        (
            lambda t: t | of_conv_in(PEFT_PREFIX + "conv_in"),
            {},
            "tensors of 'conv_in', which its target_modules do not name",
        ),
        (
            lambda t: t | of_conv_in(PEFT_PREFIX + "conv_out"),
            {"target_modules": ["to_q", "to_v", "ff.net.0.proj", "conv_out"]},
            r"'conv_out' changes a weight of the shape \(\d+, 4, 3, 3\), the UNet's is",
        ),
        (
            lambda t: t | of_conv_in(PEFT_PREFIX + "mid_block.conv_in"),
            {"target_modules": ["to_q", "to_v", "ff.net.0.proj", "conv_in"]},
            r"'mid_block.conv_in' \(1 in all\) has no place in the UNet",
        ),
        (
            lambda t: t | {first_key(t): torch.zeros(8, 640)},
            {},
            r"changes a weight of the shape \(64, 640\), the UNet's is \(64, 64\)",
        ),
        (None, {"r": 16}, "says r=16 of 'down_blocks.*', its tensors have r=8"),
        (None, {"use_rslora": True}, "sets use_rslora=True: only a plain LoRA"),
        (None, {"use_dora": True}, "sets use_dora=True: only a plain LoRA"),
        (None, {"peft_type": "LOHA"}, "describes peft_type 'LOHA'"),
        (None, {"target_modules": ["q_proj"]}, "which its target_modules do not name"),
        (None, {"target_modules": ["to_k"]}, "which its target_modules do not name"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tensors, config, message):
    folder = changed(tmp_path / "lora", tensors=tensors, **config)
    with pytest.raises(UserError, match=message):
        load_lora(unet(), str(folder))


def test_a_lora_for_another_base_is_refused():
    wider = unet().config | {"cross_attention_dim": 128}
    with pytest.raises(UserError, match="it was made for another model"):
        load_lora(UNet2DConditionModel.from_config(wider), str(LORA))


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    folder = changed(tmp_path / "lora")
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load_lora(unet(), str(folder))
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled weights are never read"):
        load_lora(unet(), str(folder))
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_lora(unet(), str(folder))
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(UserError, match="holds no LoRA; it has neither adapter_config.json"):
        load_lora(unet(), str(folder))
