"""Specs: what a person may set, and what stands in the store's key."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from sdxl_folders import LORA, PIPELINE

from hb_tta.device import default_dtype
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import (
    DEFAULT,
    Generator,
    GeneratorSpec,
    HummingbirdSpec,
    I2T2ISpec,
    RandAugmentSpec,
    get_method,
    list_methods,
    used_settings,
)
from hb_tta.weights import Weights

FAMILY = get_family("sdxl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def local(**settings) -> HummingbirdSpec:
    return HummingbirdSpec(Weights(str(PIPELINE)), **settings)


@pytest.mark.parametrize("name", ["hummingbird", "i2t2i", "randaugment"])
def test_every_spec_keeps_the_protocol(name: str):
    spec: Any = get_method(name).from_family(FAMILY)
    assert spec.method == name
    assert hash(spec) == hash(dataclasses.replace(spec))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.method = "other"
    assert isinstance(spec, GeneratorSpec)
    assert list_methods()[:3] == ["hummingbird", "i2t2i", "randaugment"]


@pytest.mark.parametrize(
    "spec", [local(lora=Weights(str(LORA))), I2T2ISpec(Weights(str(PIPELINE))), RandAugmentSpec()]
)
def test_every_generator_keeps_the_protocol(spec: GeneratorSpec):
    generator = spec.load("cpu", batch_size=2)
    assert isinstance(generator, Generator)
    assert generator.spec is spec


def test_a_family_gives_its_roles_and_defaults():
    spec = HummingbirdSpec.from_family(FAMILY)
    assert spec.base == FAMILY.roles["generator"]
    assert spec.image_encoder == FAMILY.roles["image_encoder"]
    assert spec.lora == FAMILY.roles["lora"]
    assert (spec.num_inference_steps, spec.guidance_scale) == (25, 15.0)
    assert spec.dtype == default_dtype()
    assert I2T2ISpec.from_family(FAMILY).base == spec.base


def test_a_role_that_is_empty_is_named_or_not_needed():
    assert HummingbirdSpec.from_family(FAMILY.with_roles(lora=None)).lora is None
    assert HummingbirdSpec.from_family(FAMILY.with_roles(image_encoder=None)).image_encoder is None
    with pytest.raises(UserError, match="'sdxl' has no generator"):
        HummingbirdSpec.from_family(FAMILY.with_roles(generator=None))


def test_every_setting_of_a_family_can_be_replaced():
    spec = HummingbirdSpec.from_family(
        FAMILY, lora="me/mine", num_inference_steps=4, guidance_scale=0.0, dtype="float16"
    )
    assert spec.lora == Weights("me/mine")
    assert (spec.num_inference_steps, spec.guidance_scale, spec.dtype) == (4, 0.0, "float16")
    assert HummingbirdSpec.from_family(FAMILY, lora=None).lora is None
    assert HummingbirdSpec.from_family(FAMILY, lora=spec.lora).lora is spec.lora


def test_flags_that_every_method_is_offered_warn_where_they_are_ignored():
    with pytest.warns(UserWarning, match="i2t2i ignores lora='me/mine'"):
        assert used_settings(I2T2ISpec, {"lora": "me/mine", "steps": 3}) == {"steps": 3}
    with pytest.warns(UserWarning, match="randaugment ignores guidance_scale=3.0"):
        assert used_settings(RandAugmentSpec, {"guidance_scale": 3.0}) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert used_settings(I2T2ISpec, {"lora": None}) == {}
        assert used_settings(HummingbirdSpec, {"lora": None}) == {"lora": None}
        assert used_settings(RandAugmentSpec, {"steps": None, "lora": DEFAULT}) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"guidance_scale": float("inf")}, "guidance_scale=inf"),
        ({"dtype": "int8"}, "dtype 'int8' is not known: choose from float32"),
        ({"height": 100}, "height=100 is no size"),
        ({"width": -8}, "width=-8 is no size"),
        ({"lora_scale": float("nan")}, "lora_scale=nan"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        local(**settings)


def test_no_generator_ignores_offload_in_silence():
    with pytest.warns(UserWarning, match="randaugment ignores cpu_offload=True"):
        RandAugmentSpec().load("cpu", cpu_offload=True)


@pytest.mark.parametrize(("num_ops", "magnitude"), [(0, 9), (2, 31), (2, -1)])
def test_randaugments_settings_out_of_range_are_named(num_ops, magnitude):
    with pytest.raises(UserError, match="num_ops=0|magnitude="):
        RandAugmentSpec(num_ops, magnitude)


def test_the_key_names_content_and_no_path(tmp_path: Path):
    spec = local(lora=Weights(str(LORA)))
    moved = shutil.copytree(LORA, tmp_path / "moved")
    same = local(lora=Weights(str(moved)))
    assert same.to_json() == spec.to_json()
    assert str(PIPELINE.parent) not in json.dumps(spec.to_json())
    weights = moved / "adapter_model.safetensors"
    retrained = bytearray(weights.read_bytes())
    retrained[-1] ^= 1
    weights.write_bytes(retrained)
    assert same.to_json() != spec.to_json()


@pytest.mark.parametrize(
    "setting",
    [
        {"num_inference_steps": 26},
        {"guidance_scale": 15.5},
        {"height": 64},
        {"width": 64},
        {"dtype": "bfloat16"},
        {"lora": None},
        {"lora_scale": 0.5},
        {"image_encoder": Weights(str(PIPELINE), subfolder="image_encoder")},
    ],
)
def test_every_setting_that_changes_a_pixel_changes_the_key(setting):
    settings = {"lora": Weights(str(LORA))}
    assert local(**settings).to_json() != local(**settings | setting).to_json()


def test_the_keys_of_the_other_methods_keep_their_names():
    base = Weights(str(PIPELINE))
    assert I2T2ISpec(base, guidance_scale=3).to_json() == {
        "method": "i2t2i",
        "version": 1,
        "base": base.fingerprint(),
        "scheduler": "ddim",
        "num_inference_steps": 25,
        "guidance_scale": 3.0,
        "height": None,
        "width": None,
        "dtype": "float32",
    }
    assert RandAugmentSpec().to_json() == {
        "method": "randaugment",
        "version": 1,
        "num_ops": 2,
        "magnitude": 9,
    }


def test_a_scale_of_no_lora_is_in_no_key():
    assert local(lora_scale=0.5).to_json() == local().to_json()


def test_dtype_follows_the_device(monkeypatch):
    assert default_dtype("cpu") == "float32"
    assert default_dtype("cuda:1") == "bfloat16"
