"""The augmenter's models: loaded when needed, in turn, from every layout; and people's mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from augmenting import CONTEXTS, GOLDEN, Make, picture
from safetensors.torch import load_file, save_file

from hb_tta import Augmenter, DescribedContext, MultimodalContext, UserError
from hb_tta.describe import DescriberSpec
from hb_tta.families import get_family
from hb_tta.generators import get_method
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.store import Store
from hb_tta.views.models import Models
from hb_tta.weights import Weights

pytest_plugins = ["augmenting"]
# A model with random weights does not come to an end.
pytestmark = pytest.mark.filterwarnings("ignore:the description was too long")


def test_the_models_take_turns_where_there_is_no_room_for_both(
    tiny_describer: DescriberSpec,
) -> None:
    family = get_family("pocket").with_roles(generator=GOLDEN / "pipeline", lora=None)
    spec = get_method("hummingbird").from_family(family, num_inference_steps=1, dtype="float32")
    context = MultimodalContext(picture(0), "Is it?")
    seen = {}
    for keep in (False, None):
        pair = Models(spec, tiny_describer, device="cpu", keep_loaded=keep)
        text = pair.describe([context])
        loaded = [pair.loaded]
        view = pair.generate([(picture(0), "a cat")], [[0]])
        loaded.append(pair.loaded)
        assert pair.describe([context]) == text
        loaded.append(pair.loaded)
        assert pair.generate([(picture(0), "a cat")], [[0]]) == view
        pair.unload()
        assert pair.loaded == []
        seen[keep] = loaded
    assert seen[False] == [["describer"], ["generator"], ["describer"]]
    assert seen[None] == [["describer"], *[["describer", "generator"]] * 2]  # a CPU has room


def test_an_augmenter_works_on_after_unload(make_augmenter: Make) -> None:
    augmenter = make_augmenter(store=False, fresh=True)
    first = augmenter.augment(CONTEXTS[:1], n=1)
    augmenter.unload()
    assert augmenter.augment(CONTEXTS[:1], n=1) == first


def test_weights_that_change_under_an_augmenter_are_noticed(
    make_augmenter: Make, tmp_path: Path
) -> None:
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "lora")
    augmenter = make_augmenter(lora=tmp_path / "lora", fresh=True)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match="weights on disk changed"):
        augmenter(picture(0), "Is it?", n=1)
    assert "views" not in Store(tmp_path / "store").info().namespaces


def test_the_bundled_family_works_as_it_comes(tmp_path: Path) -> None:
    scene = next(pocket_mme("dev", category="color", limit=1))
    augmenter = Augmenter.from_pretrained("hummingbird", family="pocket", store=tmp_path)
    (augmentation,) = augmenter.augment([MultimodalContext(scene.image, scene.question)], n=2)
    assert [view.size for view in augmentation.views] == [(64, 64)] * 2
    assert augmentation.description and augmentation.warnings == []
    generator = augmentation.spec["generator"]
    assert (generator["num_inference_steps"], generator["guidance_scale"]) == (10, 2.0)
    assert generator["scheduler"] == "dpmsolver++"


def test_the_hubs_layouts_of_sdxl(tmp_path: Path) -> None:
    """What ``family="sdxl"`` loads, in folders laid out as the repositories on the hub are."""
    unet = json.loads((GOLDEN / "pipeline/unet/config.json").read_text())
    width = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
    shutil.copytree(GOLDEN / "lora_unet", tmp_path / "hummingbird" / "lora_unet_65000")
    family = get_family("sdxl").with_roles(
        generator=tiny_models.without_image_encoder(GOLDEN / "pipeline", tmp_path / "base"),
        image_encoder=tiny_models.save_image_encoder(tmp_path / "clip", projection_dim=width),
        lora=Weights(str(tmp_path / "hummingbird"), subfolder="lora_unet_65000"),
    )
    augmenter = Augmenter.from_pretrained(
        "hummingbird",
        family=family,
        describer=tiny_models.save_llava_next(tmp_path / "llava"),
        store=tmp_path / "store",
    )
    (augmentation,) = augmenter.augment(CONTEXTS[:1], n=1)
    generator = augmentation.spec["generator"]
    assert (generator["num_inference_steps"], generator["guidance_scale"]) == (25, 15.0)
    assert generator["lora"] and generator["image_encoder"]
    assert augmentation.views[0].size == (64, 64)


# ── Mistakes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"n": 0}, "n=0 is no number of views: use 1 to 10000"),
        ({"n": -3}, "n=-3"),
        ({"n": True}, "n=True is no whole number"),
        ({"n": 1.5}, "n=1.5 is no whole number"),
        ({"n": None}, "n=None is no whole number"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 2**63}, "is out of range"),
        ({"seed": "0"}, "seed='0' is no whole number"),
    ],
)
def test_mistaken_numbers(make_augmenter: Make, call: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_augmenter()(picture(0), "Is it?", **call)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "caption"}, "task 'caption' is not known: choose from vqa, hoi, object, generic"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"base": "no/such/folder"}, "no folder and no hub id"),
        ({"lora": "no/such/folder"}, "no folder and no hub id"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
    ],
)
def test_mistaken_settings(make_augmenter: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_augmenter(**settings)


def test_settings_by_name() -> None:
    augmenter = Augmenter.from_pretrained(
        "hummingbird", family="pocket", store=False, steps=7, height=48, lora_scale=0.5
    )
    spec: Any = augmenter.generator_spec
    assert (spec.num_inference_steps, spec.height, spec.lora_scale) == (7, 48, 0.5)
    randaugment = Augmenter.from_pretrained(
        "randaugment", family="pocket", magnitude=20, store=False
    )
    assert randaugment.generator_spec.to_json()["magnitude"] == 20
    with pytest.raises(UserError, match="hummingbird has no setting 'magnitude': choose from base"):
        Augmenter.from_pretrained("hummingbird", family="pocket", magnitude=20)


def test_mistaken_names() -> None:
    with pytest.raises(
        UserError,
        match="no method 'humingbird', did you mean 'hummingbird'. choose from hummingbird, i2t2i",
    ):
        Augmenter.from_pretrained("humingbird", family="pocket")
    with pytest.raises(UserError, match="no family 'sd3'"):
        Augmenter.from_pretrained("hummingbird", family="sd3")


def test_mistaken_contexts(make_augmenter: Make) -> None:
    augmenter = make_augmenter()
    for contexts, sentence in (
        ([picture(0)], "context 0 is a Image: give a MultimodalContext"),
        ([(picture(0), "a cat")], "bare tuple.*MultimodalContext.*or DescribedContext"),
        ([DescribedContext("missing.png", "a cat")], "there is no image 'missing.png'"),  # type: ignore[arg-type]
        ([MultimodalContext(picture(0), "", "caption")], "task 'caption' is not known"),
        ([MultimodalContext(picture(0), None)], "has the guidance None"),  # type: ignore[arg-type]
        ([DescribedContext(picture(0), 3)], "has the description 3"),  # type: ignore[arg-type]
        ([DescribedContext(picture(0), "a\ud800")], "which is no Unicode text"),
    ):
        with pytest.raises(UserError, match=sentence):
            augmenter.augment(contexts)


def test_a_describer_that_is_not_there(make_augmenter: Make) -> None:
    augmenter = make_augmenter(describer="no/such/folder")
    with pytest.raises(UserError, match="no folder and no hub id"):
        augmenter(picture(0), "Is it?")
    augmenter.augment([DescribedContext(picture(0), "a red circle")], n=1)  # which needs none


def test_settings_that_a_method_ignores_give_a_warning(tiny_mllm: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as caught:
        augmenter = Augmenter.from_pretrained(
            "randaugment",
            family="pocket",
            lora=GOLDEN / "lora_unet",
            describer=tiny_mllm,
            cpu_offload=True,
            store=tmp_path,
        )
        augmenter(picture(0), n=1)  # which loads the generator
    told = " ".join(str(warning.message) for warning in caught)
    assert "ignores lora" in told and "describer is ignored" in told and "cpu_offload" in told
