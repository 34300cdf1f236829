"""Families: every role has its model, every role can be filled otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hb_tta
from hb_tta.errors import UserError
from hb_tta.families import ROLES, Family, get_family, list_families
from hb_tta.settings import ViewSettings
from hb_tta.weights import Weights


def test_sdxl_is_the_papers_models_at_the_authors_settings() -> None:
    family = get_family("sdxl")
    assert {role: weights.location for role, weights in family.roles.items()} == {
        "generator": "stabilityai/stable-diffusion-xl-base-1.0",
        "image_encoder": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "lora": "lmquan/hummingbird",
        "mllm": "llava-hf/llava-v1.6-mistral-7b-hf",
        "evaluator": "Salesforce/blip2-itm-vit-g",
        "clip": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "detector": "IDEA-Research/grounding-dino-base",
        "variation": "lambdalabs/sd-image-variations-diffusers",
        "mllm_two": "OpenGVLab/InternVL3-8B-hf",
    }
    assert family.weights("lora").subfolder == "lora_unet_65000"
    assert dict(family.defaults) == {
        "num_inference_steps": 25,
        "guidance_scale": 15.0,
        "image_size": 1024,
    }


def test_pocket_lies_inside_the_package() -> None:
    family = get_family("pocket")
    weights = Path(hb_tta.__file__).parent / "pocket" / "weights"
    for role in set(ROLES) - {"image_encoder", "lora", "variation"}:
        assert family.weights(role) == Weights(str(weights / role))
    assert family.weights("image_encoder") == Weights(
        str(weights / "generator"), subfolder="image_encoder"
    )
    assert ("lora" in family.roles) == (weights / "lora").is_dir()
    assert family.weights("variation") == family.weights("generator")
    assert family.defaults["image_size"] == 64


def make_family(folder: Path, **said: object) -> Path:
    for role in ("generator", "mllm"):
        (folder / role).mkdir(parents=True)
    said = {"like": "pocket", "edition": "third"} | said
    (folder / "family.json").write_text(json.dumps(said))
    return folder


def test_a_folder_is_a_family(tmp_path: Path, monkeypatch) -> None:
    folder = make_family(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for named in (str(folder), folder, "mine"):
        family = get_family(named)
        assert family.name == str(folder) and family == get_family(family.name)
        assert family.roles.keys() == {"generator", "image_encoder", "variation", "mllm"}
        assert family.weights("image_encoder").location == str(folder / "generator")
        assert family.defaults == get_family("pocket").defaults
        assert family.benchmarks == get_family("pocket").benchmarks
    assert ViewSettings.parse("hummingbird", f"family={folder}").family == str(folder)
    written = ViewSettings.parse("jitter", "family=mine").to_json()
    assert ViewSettings.from_json(written).to_json() == written


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"like": 3}', '{"like": "sd3"}', '{"like": ["pocket"]}']
)
def test_a_folder_that_is_no_family_is_told(tmp_path: Path, text: str) -> None:
    folder = make_family(tmp_path / "mine")
    (folder / "family.json").write_text(text)
    with pytest.raises(UserError, match="family.json"):
        get_family(folder)
    (folder / "family.json").unlink()
    with pytest.raises(UserError, match="is no folder of a family"):
        get_family(folder)


def test_the_pocket_family_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "mine")
    code = (
        "from hb_tta.families import get_family; from hb_tta.pocket.edition import BUNDLED, THIRD\n"
        "from hb_tta.pocket.tasks import CATEGORIES\n"
        "assert BUNDLED == THIRD and 'style' in CATEGORIES\n"
        f"assert get_family('pocket').weights('mllm').location == {str(folder / 'mllm')!r}"
    )
    environment = os.environ | {"HB_TTA_POCKET": str(folder)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    make_family(tmp_path / "other", edition="fourth")
    environment["HB_TTA_POCKET"] = str(tmp_path / "other")
    failed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "'fourth': write one of second, third" in failed.stderr


def test_families_are_values() -> None:
    assert list_families() == ["pocket", "sdxl"]
    for name in list_families():
        family = get_family(name)
        assert family == get_family(name) == get_family(family)
        assert hash(family) == hash(get_family(name))
        with pytest.raises(TypeError):
            family.roles["mllm"] = Weights("another/model")  # type: ignore[index]


def test_an_unknown_family_names_the_choices() -> None:
    with pytest.raises(UserError, match="no family 'sd3': choose from pocket, sdxl"):
        get_family("sd3")


def test_a_role_is_filled_otherwise_and_the_family_stays_as_it_was() -> None:
    family = get_family("sdxl")
    other = family.with_roles(mllm="someone/else", evaluator=Path("/models/evaluator"), lora=None)
    assert other.weights("mllm") == Weights("someone/else")
    assert other.weights("evaluator") == Weights("/models/evaluator")
    assert "lora" not in other.roles and "lora" in family.roles
    assert other.weights("generator") == family.weights("generator")
    assert other.name == family.name and isinstance(other, Family)


def test_an_image_encoder_inside_the_generator_moves_with_it() -> None:
    family = get_family("pocket").with_roles(generator="/models/mine")
    assert family.weights("image_encoder") == Weights("/models/mine", subfolder="image_encoder")
    named = get_family("pocket").with_roles(generator="/models/mine", image_encoder="/models/clip")
    assert named.weights("image_encoder") == Weights("/models/clip")
    apart = get_family("sdxl").with_roles(generator="/models/mine")
    assert apart.weights("image_encoder") == get_family("sdxl").weights("image_encoder")


def test_mistaken_roles() -> None:
    with pytest.raises(UserError, match="no role 'vae': choose from generator, image_encoder"):
        get_family("sdxl").with_roles(vae="someone/vae")
    with pytest.raises(UserError, match="family 'sdxl' has no reader"):
        get_family("sdxl").weights("reader")


def test_importing_families_imports_no_torch() -> None:
    code = (
        "import sys, json, hb_tta.families, hb_tta.augment, hb_tta.describe, hb_tta.views.plan;"
        "print(json.dumps(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
