"""Settings by name: read off a spec's fields, parsed, checked, and filled by a family."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pytest

from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import (
    DEFAULT,
    GeneratorSpec,
    HummingbirdSpec,
    I2T2ISpec,
    RandAugmentSpec,
    build_spec,
    list_methods,
    method_settings,
    parse_setting,
)
from hb_tta.weights import Weights

POCKET, SDXL = get_family("pocket"), get_family("sdxl")


@dataclass(frozen=True)
class OddSpec(GeneratorSpec):
    """A method of its own.

    Attributes:
        base: its model, which no family has.
        strength: how much is changed,
            from 0 to 1.
        mode: how.
        guidance_scale: of its own model.

    More about it: nothing.
    """

    base: Weights
    strength: float
    mode: Literal["soft", "hard"] = "soft"
    flip: bool = False
    guidance_scale: float = 3.0
    token: str | None = None

    method: ClassVar[str] = "odd"
    needs_description: ClassVar[bool] = False
    roles: ClassVar[MappingProxyType[str, str]] = MappingProxyType({"base": "oddity"})

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method}

    def load(self, device: str | None = None, **_: Any) -> Any:
        raise AssertionError("nobody loads it")


def test_names_and_defaults_of_the_built_in_methods():
    listed = {
        spec.method: {name: s.default for name, s in method_settings(spec).items()}
        for spec in (HummingbirdSpec, I2T2ISpec, RandAugmentSpec)
    }
    pipeline = {
        "base": DEFAULT,
        "num_inference_steps": 25,
        "guidance_scale": 15.0,
        "height": None,
        "width": None,
        "dtype": "float32",
        "solver": "ddim",
    }
    own = {"image_encoder": DEFAULT, "lora": DEFAULT, "lora_scale": 1.0}
    assert listed == {
        "hummingbird": pipeline | own,
        "i2t2i": pipeline,
        "randaugment": {"num_ops": 2, "magnitude": 9},
    }
    assert list_methods()[: len(listed)] == list(listed)


def test_a_setting_knows_its_type_role_short_name_and_help():
    steps = method_settings(HummingbirdSpec)["num_inference_steps"]
    assert (steps.type, steps.optional, steps.alias, steps.role) == (int, False, "steps", None)
    lora = method_settings(HummingbirdSpec)["lora"]
    assert (lora.type, lora.optional, lora.role) == (Weights, True, "lora")
    for spec in (HummingbirdSpec, I2T2ISpec, RandAugmentSpec):
        assert all(setting.help for setting in method_settings(spec).values())
    odd = method_settings(OddSpec)
    assert odd["strength"].help == "how much is changed, from 0 to 1."
    assert odd["strength"].default is dataclasses.MISSING
    assert (odd["mode"].type, odd["mode"].choices) == (str, ("soft", "hard"))
    assert odd["guidance_scale"].help == "of its own model." and odd["flip"].help == ""


@pytest.mark.parametrize(
    ("spec", "name", "text", "value"),
    [
        (HummingbirdSpec, "steps", "20", 20),
        (HummingbirdSpec, "num_inference_steps", " 20 ", 20),
        (HummingbirdSpec, "guidance", "2", 2.0),
        (HummingbirdSpec, "lora", "none", None),
        (HummingbirdSpec, "lora", "me/mine", Weights("me/mine")),
        (HummingbirdSpec, "height", "None", None),
        (OddSpec, "flip", "True", True),
        (OddSpec, "flip", "no", False),
        (OddSpec, "mode", "hard", "hard"),
        (OddSpec, "token", "a dog", "a dog"),
    ],
)
def test_texts_are_read_as_the_fields_type(spec, name, text, value):
    parsed = parse_setting(spec, name, text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("spec", "name", "text", "sentence"),
    [
        (RandAugmentSpec, "magnitude", "strong", "magnitude='strong' .* give a whole number"),
        (RandAugmentSpec, "magnitude", "none", "magnitude='none' .* give a whole number"),
        (RandAugmentSpec, "magnitude", "2.5", "magnitude='2.5'"),
        (HummingbirdSpec, "guidance", "high", "guidance_scale='high' .* give a number"),
        (HummingbirdSpec, "height", "tall", "height='tall' .* give a whole number or none"),
        (OddSpec, "flip", "maybe", "flip='maybe' .* give true or false"),
        (OddSpec, "mode", "loud", "mode='loud' .* give one of soft, hard"),
        (RandAugmentSpec, "magnitud", "3", "did you mean 'magnitude': choose from num_ops"),
        (I2T2ISpec, "guidence", "3", "i2t2i has no setting 'guidence', did you mean 'guidance'"),
        (RandAugmentSpec, "steps", "3", "randaugment has no setting 'steps': choose from num_ops"),
        (I2T2ISpec, "lora", "a/b", "i2t2i has no setting 'lora': choose .*steps .or steps."),
    ],
)
def test_mistakes_in_texts_are_named(spec, name, text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_setting(spec, name, text)


@pytest.mark.parametrize("value", [2.5, True, [3], Path("3")])
def test_values_of_another_type_are_named(value):
    with pytest.raises(UserError, match="magnitude=.* give a whole number"):
        build_spec("randaugment", "pocket", {"magnitude": value})


def test_python_values_become_their_fields_type():
    spec: Any = build_spec("hummingbird", "pocket", {"guidance": 3, "lora": Path("/a/lora")})
    assert type(spec.guidance_scale) is float and spec.lora == Weights("/a/lora")


def test_one_setting_under_two_names_is_refused():
    with pytest.raises(UserError, match="num_inference_steps is given twice, once as 'steps'"):
        build_spec("i2t2i", "pocket", {"steps": 3, "num_inference_steps": 3})


def test_a_persons_settings_come_before_the_familys_and_those_before_the_methods():
    for family, steps, guidance in (("pocket", 10, 2.0), ("sdxl", 25, 15.0)):
        spec: Any = build_spec("i2t2i", family)
        assert (spec.num_inference_steps, spec.guidance_scale) == (steps, guidance)
        assert build_spec("i2t2i", family, {"guidance": None, "steps": DEFAULT}) == spec
    own = dataclasses.replace(
        POCKET, method_defaults=MappingProxyType({"i2t2i": {"guidance_scale": 4.0}})
    )
    for method, guidance in (("i2t2i", 4.0), ("hummingbird", 2.0)):
        filled: Any = build_spec(method, own)
        assert (filled.guidance_scale, filled.num_inference_steps) == (guidance, 10)
    given: Any = build_spec("i2t2i", own, {"guidance": 5.0})
    assert given.guidance_scale == 5.0


def test_a_setting_that_a_role_fills_replaces_the_role():
    spec: Any = build_spec("hummingbird", "pocket", {"base": "/models/mine"})
    assert spec.base == Weights("/models/mine")
    assert spec.image_encoder == Weights("/models/mine", subfolder="image_encoder")
    untuned: Any = build_spec("hummingbird", "sdxl", {"lora": None})
    assert untuned.lora is None and untuned.base == SDXL.weights("generator")


def test_a_method_on_models_of_its_own_has_its_own_defaults():
    with pytest.raises(UserError, match="family 'pocket' has no oddity: name one"):
        OddSpec.from_family(POCKET, strength=0.5)
    spec = OddSpec.from_family(POCKET, base="me/variations", strength=0.5)
    assert spec == OddSpec(Weights("me/variations"), 0.5)
    with pytest.raises(UserError, match="odd needs a value for strength: give a number"):
        OddSpec.from_family(POCKET, base="me/variations")
