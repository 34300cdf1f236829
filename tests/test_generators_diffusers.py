"""Method ``diffusers``: every shape of a call, on tiny pipelines of the real classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLImg2ImgPipeline
from diffusers.pipelines.stable_diffusion_xl import (
    pipeline_stable_diffusion_xl,
    pipeline_stable_diffusion_xl_img2img,
)
from PIL import Image
from sdxl_folders import LORA, PIPELINE, reference, save_sdxl_base
from tiny_pipelines import (
    save_ip_adapter,
    save_klein,
    save_omnigen,
    save_pix2pix,
    save_sd1,
    save_variation,
    sdxl,
    with_scheduler,
)

from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import DiffusersSpec, HummingbirdSpec, build_spec, loading
from hb_tta.generators.calls import CHANGE, instruction
from hb_tta.weights import Weights

TEXT = "two red dogs"
ADAPTER = {"ip_adapter": Weights("a/b"), "ip_adapter_file": "c.safetensors"}
CONTEXTS = [(reference(), TEXT), (reference().rotate(90, expand=True), "a {blue} cat")]
SEEDS = [[0, 1], [5]]
LARGE = reference().resize((80, 64), 3)


def save_img2img(folder: Path) -> Path:
    StableDiffusionXLImg2ImgPipeline(**sdxl().components).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


def spec_of(base: Path, **settings: Any) -> DiffusersSpec:
    given: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0, **settings}
    return DiffusersSpec(Weights(str(base)), **given)


def stock(pipe: Any, seed: int, **given: Any) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe(num_inference_steps=2, guidance_scale=2.0, generator=generator, **given).images[0]


def check(spec: DiffusersSpec, shape: str, size: tuple[int, int]) -> list[list[Image.Image]]:
    """Its views, all different; each one the same when it is made alone."""
    assert spec.shape.name == shape
    generator = spec.load("cpu", batch_size=2)
    views = generator.generate(CONTEXTS, SEEDS)
    turned = size if size[0] == size[1] else size[::-1]  # as the second reference is
    assert [[view.size for view in its] for its in views] == [[size, size], [turned]]
    assert len({view.tobytes() for its in views for view in its}) == 3
    (alone,) = generator.generate(CONTEXTS[1:], [[5]])[0]
    difference = max(
        abs(a - b) for a, b in zip(alone.tobytes(), views[1][0].tobytes(), strict=True)
    )
    assert difference <= 1
    return views


def test_an_edit_model_of_flow_matching_is_told_an_instruction_and_keeps_its_scheduler(made: Path):
    base = save_klein(made / "klein")
    spec = spec_of(base)
    views = check(spec, "edit", (80, 64))
    pipe = DiffusionPipeline.from_pretrained(base)
    told = instruction(TEXT)
    assert views[0][1].tobytes() == stock(pipe, 1, image=LARGE, prompt=told).tobytes()
    scheduler = spec.load("cpu").pipe.scheduler
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert replace(spec, solver="ddim").load("cpu").pipe.scheduler.config == scheduler.config
    with pytest.raises(UserError, match=r"solver=dpmsolver\+\+ cannot sample .* FlowMatchEuler"):
        replace(spec, solver="dpmsolver++").load("cpu")
    assert spec.fitter()("A red dog. " * 300)[1]
    with pytest.raises(UserError, match="without a UNet"):
        replace(spec, lora=Weights(str(LORA))).load("cpu")
    with pytest.raises(UserError, match="Flux2KleinPipeline, which takes no ip_adapter_image"):
        adapter = Weights(str(save_ip_adapter(made / "adapter")))
        replace(spec, ip_adapter=adapter, ip_adapter_file="ip-adapter.safetensors").load("cpu")


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ("two red dogs", "exactly as it is: two red dogs. Change"),
        ("Two red dogs run. ", "exactly as it is: Two red dogs run. Change"),
        ('A sign says "stop!"', 'exactly as it is: A sign says "stop!" Change'),
        ("两只红狗。", "exactly as it is: 两只红狗。 Change"),
        ("a {blue} cat", "exactly as it is: a {blue} cat. Change"),
        ("", "Make a new picture of the same thing. Change"),
        (" \n", "Make a new picture of the same thing. Change"),
    ],
)
def test_an_instruction_is_whole_sentences(description: str, told: str):
    text = instruction(description)
    assert told in text and text.endswith(CHANGE)


def test_an_edit_model_of_noise_is_called_alike(made: Path):
    spec = spec_of(save_pix2pix(made / "pix2pix"), prompt_template="now {description}")
    views = check(spec, "edit", (80, 64))
    pipe = DiffusionPipeline.from_pretrained(spec.base.location)
    assert views[0][0].tobytes() == stock(pipe, 0, image=LARGE, prompt=f"now {TEXT}").tobytes()


def test_sides_that_an_edit_model_does_not_take_are_the_references(made: Path):
    spec = spec_of(save_pix2pix(made / "sized"), prompt_template="now {description}", width=48)
    (view,) = spec.load("cpu").generate(CONTEXTS[:1], [[0]])[0]
    assert view.size == (48, LARGE.height)
    square = replace(spec, height=48)
    (view,) = square.load("cpu").generate(CONTEXTS[:1], [[0]])[0]
    pipe = DiffusionPipeline.from_pretrained(spec.base.location)
    theirs = stock(pipe, 0, image=LARGE.resize((48, 48), 3), prompt=f"now {TEXT}")
    assert view.tobytes() == theirs.tobytes()
    klein = spec_of(save_klein(made / "wide"), width=96, height=64)  # takes sides itself
    assert klein.load("cpu").generate(CONTEXTS[:1], [[0]])[0][0].size == (96, 64)


def test_a_side_that_no_image_can_have_is_refused(made: Path, monkeypatch):
    spec = spec_of(save_variation(made / "sideless"), height=48)
    pipe = spec.load_pipeline()
    monkeypatch.setattr(type(pipe), "__call__", lambda self, image=None, generator=None: None)
    with pytest.raises(UserError, match="height=48 is no argument of StableDiffusionImageVariati"):
        spec.load("cpu")


def test_image_to_image_noises_the_image_at_the_views_size(made: Path):
    spec = spec_of(save_sd1(made / "sd1"), call="img2img", num_inference_steps=4)
    check(spec, "img2img", (64, 64))
    wide = replace(spec, width=48, strength=0.25)
    assert wide.load("cpu").generate(CONTEXTS[:1], [[0]])[0][0].size == (48, 64)
    assert wide.to_json() != spec.to_json()
    turbo = save_img2img(made / "img2img")
    assert spec_of(turbo, num_inference_steps=4).shape.name == "img2img"


def test_an_ip_adapter_sees_the_image_beside_the_text(made: Path):
    adapter = Weights(str(save_ip_adapter(made / "adapter")))
    given: dict[str, Any] = {"ip_adapter": adapter, "ip_adapter_file": "ip-adapter.safetensors"}
    spec = spec_of(PIPELINE, **given)
    views = check(spec, "ip_adapter", (64, 64))
    pipe = sdxl()
    pipe.load_ip_adapter(
        adapter.location, subfolder="", weight_name="ip-adapter.safetensors",
        image_encoder_folder=None,
    )  # fmt: skip
    pipe.set_ip_adapter_scale(0.6)
    theirs = stock(pipe, 0, prompt=TEXT, ip_adapter_image=reference())
    assert views[0][0].tobytes() == theirs.tobytes()
    away = replace(spec, ip_adapter_scale=0.0).load("cpu").generate(CONTEXTS[:1], [[0]])[0][0]
    assert away.tobytes() == stock(sdxl(), 0, prompt=TEXT).tobytes()
    bare = save_sdxl_base(made / "bare")
    with pytest.raises(UserError, match="has no image encoder for the IP-Adapter"):
        spec_of(bare, **given).load("cpu")
    tower = Weights(str(PIPELINE), subfolder="image_encoder")
    spec_of(bare, **given, image_encoder=tower).load("cpu")


@pytest.mark.parametrize("shape", ["ip_adapter", "embedded", "img2img"])
def test_no_shape_of_sdxl_is_watermarked(shape: str, made: Path, monkeypatch):
    for module in (pipeline_stable_diffusion_xl, pipeline_stable_diffusion_xl_img2img):
        monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
        monkeypatch.setattr(module, "StableDiffusionXLWatermarker", object, raising=False)
    given: dict[str, Any] = {}
    if shape == "ip_adapter":
        adapter = Weights(str(save_ip_adapter(made / "adapter")))
        given = {"ip_adapter": adapter, "ip_adapter_file": "ip-adapter.safetensors"}
    assert spec_of(PIPELINE, **given, call=shape).load_pipeline().watermark is None


def test_an_image_alone(made: Path):
    spec = spec_of(save_variation(made / "variation"))
    views = check(spec, "image", (64, 64))
    pipe = DiffusionPipeline.from_pretrained(spec.base.location)
    assert views[0][0].tobytes() == stock(pipe, 0, image=reference()).tobytes()


def test_images_among_the_words(made: Path):
    check(spec_of(save_omnigen(made / "omnigen"), height=32, width=32), "input_images", (32, 32))


def test_sdxl_with_the_images_embedding_is_hummingbird():
    spec = spec_of(PIPELINE, lora=Weights(str(LORA)))
    views = check(spec, "embedded", (64, 64))
    same = HummingbirdSpec(
        spec.base, lora=spec.lora, num_inference_steps=2, guidance_scale=2.0, solver="own"
    )
    theirs = same.load("cpu", batch_size=2).generate(CONTEXTS, SEEDS)
    assert [[v.tobytes() for v in its] for its in views] == [
        [v.tobytes() for v in its] for its in theirs
    ]


def test_few_steps_have_their_own_sampler_and_two_loras():
    lora = Weights(str(LORA))
    spec = spec_of(PIPELINE, lora=lora, few_step_lora=lora, solver="lcm", guidance_scale=1.0)
    generator = spec.load("cpu", batch_size=4)
    assert type(generator.pipe.scheduler).__name__ == "LCMScheduler"
    check(spec, "embedded", (64, 64))
    once, twice = (
        replace(spec, few_step_lora=few, lora_scale=scale, solver="ddim").load("cpu")
        for few, scale in ((None, 2.0), (lora, 1.0))
    )
    a, b = (g.generate(CONTEXTS[:1], [[0]], output_type="latent")[0][0] for g in (once, twice))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)  # twice the LoRA, by either way


def test_steps_and_guidance_that_are_not_said_are_the_pipelines_own(made: Path, monkeypatch):
    spec = DiffusersSpec(Weights(str(PIPELINE)))
    generator, given = spec.load("cpu"), {}
    call = type(generator.pipe).__call__

    def watched(self, **arguments):
        given.update(arguments)
        return call(self, **arguments, num_inference_steps=1)

    monkeypatch.setattr(type(generator.pipe), "__call__", watched)
    generator.generate(CONTEXTS[:1], [[0]])
    assert "negative_prompt_embeds" in given and "guidance_scale" not in given
    assert spec.to_json()["num_inference_steps"] is None


def test_presets_are_settings_under_a_name():
    spec: Any = build_spec("diffusers", "sdxl", {"pipeline": "sdxl-lcm", "steps": 8})
    assert (spec.solver, spec.num_inference_steps, spec.guidance_scale) == ("lcm", 8, 1.0)
    assert spec.base == get_family("sdxl").roles["generator"]
    assert spec.lora == get_family("sdxl").roles["lora"]
    klein: Any = build_spec("diffusers", "pocket", {"base": "flux2-klein"})
    assert klein.base.location == "black-forest-labs/FLUX.2-klein-4B"
    assert (klein.num_inference_steps, klein.call) == (4, "auto")
    with pytest.raises(UserError, match="no preset of diffusers, did you mean 'flux2-klein'"):
        build_spec("diffusers", "sdxl", {"pipeline": "flux2-klien"})
    with pytest.raises(UserError, match="diffusers needs a value for base"):
        build_spec("diffusers", "pocket")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ip_adapter": Weights("a/b")}, "give both, or neither"),
        ({"prompt_template": "keep it"}, "has no {description} in it"),
        ({"lora_scale": float("nan")}, "lora_scale=nan"),
        ({"strength": 0.0}, "strength=0.0 is out of range"),
        ({"call": "img2img", "num_inference_steps": 1}, "leaves no step: use 2 steps or more"),
        ({"call": "editt"}, "call='editt' is no value of it: give one of auto, edit"),
        ({"solver": "euler"}, "solver='euler' is no value of it: give one of ddim"),
        (
            {"solver": "lcm", "num_inference_steps": 51},
            "steps=51 is more than the 50",
        ),
        ({"num_inference_steps": 1000}, "num_inference_steps=1000 is out of range: use 1 to 999"),
        ({"call": "ip_adapter"}, "call=ip_adapter needs an ip_adapter"),
        ({"call": "img2img", **ADAPTER}, "ip_adapter='a/b' is of no use to call=img2img"),
        ({"call": "embedded", **ADAPTER}, "ip_adapter='a/b' is of no use to call=embedded"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        spec_of(PIPELINE, **settings)


def test_what_cannot_be_called_is_named(made: Path):
    sd1 = save_sd1(made / "text")
    with pytest.raises(UserError, match="StableDiffusionPipeline, which takes a text alone"):
        spec_of(sd1).load("cpu")
    with pytest.raises(UserError, match="call=edit: .* which takes no image"):
        spec_of(sd1, call="edit").load("cpu")
    index = (sd1 / "model_index.json").read_text()
    (sd1 / "model_index.json").write_text(index.replace("StableDiffusionP", "TomorrowsP"))
    with pytest.raises(UserError, match="TomorrowsPipeline, which diffusers .* does not have"):
        spec_of(sd1, strength=0.6).load("cpu")  # another spec: a base's shape is looked up once


def test_a_few_step_base_keeps_its_own_file(made: Path):
    base = with_scheduler(save_sd1(made / "few"), "LCMScheduler")
    for solver in ("own", "ddim"):
        pipe = spec_of(base, call="img2img", num_inference_steps=4, solver=solver).load("cpu").pipe
        assert type(pipe.scheduler).__name__ == "LCMScheduler"


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(loading, "_load", lambda *_, **__: pytest.fail("weights were loaded"))


@pytest.mark.parametrize(
    ("save", "settings", "sentence"),
    [
        (save_sd1, {"call": "image"}, "StableDiffusionPipeline, which takes no image: leave call"),
        (save_sd1, {"call": "input_images"}, "takes no input_images: leave call out"),
        (save_pix2pix, {"call": "image"}, "which takes a prompt besides: leave call out"),
        (save_variation, {"call": "edit"}, "which takes no prompt: leave call out"),
        (save_klein, ADAPTER, "which takes no ip_adapter_image: leave ip_adapter out"),
        (save_klein, {"strength": 0.9}, "strength=0.9 is of no use to .* called as edit"),
        (save_klein, {"image_encoder": Weights("a/b")}, "image_encoder='a/b' is of no use to"),
        (
            save_sd1,
            {"call": "img2img", "num_inference_steps": 4, "image_encoder": Weights("a/b")},
            "image_encoder='a/b' is of no use to .* a StableDiffusionPipeline: leave it out",
        ),
        (save_img2img, {"num_inference_steps": 1}, "leaves no step: use 2 steps or more"),
    ],
)
def test_what_decides_nothing_is_refused_before_weights_are_loaded(
    save: Any, settings: dict[str, Any], sentence: str, tmp_path: Path, nothing_is_loaded
):
    with pytest.raises(UserError, match=sentence):
        spec_of(save(tmp_path), **settings).load("cpu")


def test_an_lcm_of_its_own_file_takes_as_many_steps_as_it_has(tmp_path: Path):
    base = with_scheduler(save_sd1(tmp_path), "LCMScheduler", original_inference_steps=10)
    generator = spec_of(base, call="img2img", num_inference_steps=4).load("cpu")
    with pytest.raises(UserError, match="num_inference_steps=11 is more than the 10"):
        generator.generate(CONTEXTS[:1], [[0]], num_inference_steps=11)
