"""Bases of other kinds than Stable Diffusion: tiny pipelines of the real classes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    Flux2KleinPipeline,
    GlmImagePipeline,
    IFPipeline,
    Kandinsky3Pipeline,
    KandinskyV22Pipeline,
    Lumina2Pipeline,
    PixArtAlphaPipeline,
    PRXPipeline,
    SanaPipeline,
    StableCascadeDecoderPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from sdxl_folders import PIPELINE, reference
from tiny_pipelines import save_klein, save_qwen_image, save_sd1, save_z_image, with_scheduler

from hb_tta.errors import UserError
from hb_tta.generators import DiffusersSpec, I2T2ISpec, ImageTranslationSpec, build_spec
from hb_tta.generators.description import (
    LONGEST,
    _tokenizer_class,
    count_tokens,
    kept_tokens,
    load_tokenizers,
)
from hb_tta.generators.sampling import Sampler, default_side, guidance_argument
from hb_tta.weights import Weights

CONTEXTS = [(reference(), "two red dogs"), (reference(), "a cat")]
UNET = UNet2DConditionModel.load_config(PIPELINE / "unet")
SMALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def qwen(made: Path) -> Weights:
    return Weights(str(save_qwen_image(made / "qwen")))


def latents(spec: Any, **settings: Any) -> torch.Tensor:
    views = spec.load("cpu", batch_size=2).generate(
        CONTEXTS, [[0], [1]], output_type="latent", **settings
    )
    return torch.stack([view for its in views for view in its])


# ── Guidance ─────────────────────────────────────────────────────────────────────────────────────


def test_guidance_is_the_argument_that_guides(qwen: Weights):
    spec = I2T2ISpec(qwen, **SMALL)
    four, nine, off, less = (latents(spec, guidance_scale=scale) for scale in (4.0, 9.0, 1.0, 0.5))
    assert torch.equal(off, less)
    assert not torch.allclose(four, nine) and not torch.allclose(four, off)
    pipe = DiffusionPipeline.from_pretrained(qwen.location)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt=CONTEXTS[0][1], negative_prompt=" ", true_cfg_scale=4.0, **SMALL,
        generator=torch.Generator("cpu").manual_seed(0), output_type="latent",
    ).images[0]  # fmt: skip
    torch.testing.assert_close(four[0], theirs, atol=1e-4, rtol=0)


def test_guidance_that_nobody_says_is_the_pipelines_own(qwen: Weights):
    spec = DiffusersSpec(qwen, call="img2img", **SMALL)  # the strength of 0.5 leaves one step
    assert torch.equal(latents(spec), latents(replace(spec, guidance_scale=4.0)))
    assert not torch.allclose(latents(spec), latents(replace(spec, guidance_scale=1.0)))


def test_a_distilled_base_is_told_its_guidance(made: Path):
    pipe = I2T2ISpec(Weights(str(save_qwen_image(made / "distilled", distilled=True)))).load("cpu")
    assert guidance_argument(pipe.pipe) == "guidance_scale"


def test_views_of_other_guidance_have_other_keys(qwen: Weights, klein: Weights):
    for kind in (I2T2ISpec, ImageTranslationSpec):
        versions = [kind(base).to_json()["version"] for base in (Weights(str(PIPELINE)), qwen)]
        assert versions == [1, 2]
    assert DiffusersSpec(klein).to_json()["version"] == 2


def test_a_base_that_writes_before_it_draws_makes_a_view_a_call():
    pipe = GlmImagePipeline(*[None] * 7)  # else its tokens are of the seed of a batch's first view
    settings: dict[str, Any] = {"constants": {}, "device": "cpu", "height": 32, "width": 32}
    assert Sampler(pipe, **settings, batch_size=4).batch_size == 1
    assert Sampler(pipe, **settings).batch_size == 1
    other = DiffusionPipeline.from_pretrained(PIPELINE)
    assert Sampler(other, **settings, batch_size=4).batch_size == 4


# ── The size of a view ───────────────────────────────────────────────────────────────────────────


def test_a_base_that_says_no_size_is_sampled_at_the_one_that_is_named(made: Path):
    spec = I2T2ISpec(Weights(str(save_z_image(made / "z"))), **SMALL)
    (view,) = spec.load("cpu").generate(CONTEXTS[:1], [[0]])[0]
    assert view.size == (32, 32)
    assert default_side(spec.load("cpu").pipe) == 1024  # as ZImagePipeline's own call has it


@pytest.mark.parametrize(
    ("pipe", "side"),
    [
        (lambda: Kandinsky3Pipeline(None, None, None, None, None), 1024),  # its call's own
        (lambda: StableCascadeDecoderPipeline(None, None, None, None, None), 1024),
        (lambda: KandinskyV22Pipeline(unet(), DDPMScheduler(), movq()), 512),
        (lambda: PRXPipeline(None, None, None, None), 512),
        (lambda: IFPipeline(None, None, unet(), *[None] * 4, requires_safety_checker=False), 32),
    ],
    ids=["Kandinsky3", "StableCascade", "Kandinsky", "PRX", "IF"],
)
def test_every_base_has_a_size(pipe: Any, side: int):
    assert default_side(pipe()) == side


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_config({**UNET, "sample_size": 32})


def movq() -> VQModel:
    return VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)


# ── What a family's defaults say fits its own generator ──────────────────────────────────────────


@pytest.fixture(scope="module")
def klein(made: Path) -> Weights:
    return Weights(str(save_klein(made / "klein")))


@pytest.fixture(scope="module")
def unguided(made: Path) -> Weights:
    """As FLUX.2 klein KV, whose call takes no guidance at all."""
    return Weights(str(named(save_klein(made / "kv"), "Flux2KleinKVPipeline")))


def named(pipeline: Path, name: str) -> Path:
    index = json.loads((pipeline / "model_index.json").read_text())
    (pipeline / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    return pipeline


def test_a_base_without_guidance_gets_none_that_nobody_said(unguided: Weights):
    for method in ("i2t2i", "diffusers", "image_translation"):
        spec: Any = build_spec(method, "pocket", {"base": unguided})
        assert spec.guidance_scale is None
        for guidance in (2.0, 15.0):  # the family's default, and the method's
            with pytest.raises(UserError, match=r"guidance_scale=\d+.0 is of no use to base="):
                build_spec(method, "pocket", {"base": unguided, "guidance": guidance})
    spec = DiffusersSpec(unguided, **SMALL)
    spec.load("cpu").generate(CONTEXTS[:1], [[0]])
    told = replace(spec, guidance_scale=3.0)
    with pytest.raises(UserError, match="guidance_scale=3.0 is no argument of Flux2KleinKVPipe"):
        told.load("cpu").generate(CONTEXTS[:1], [[0]])


def test_a_familys_solver_is_for_bases_that_it_can_sample(klein: Weights, made: Path):
    spec: Any = build_spec("i2t2i", "pocket", {"base": klein})
    assert spec.solver == "ddim"  # which such a base replaces by its own
    assert type(spec.load("cpu").pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    said: Any = build_spec("i2t2i", "pocket", {"base": klein, "solver": "dpmsolver++"})
    assert said.solver == "dpmsolver++"
    few = Weights(str(with_scheduler(save_sd1(made / "lcm"), "LCMScheduler")))
    assert cast(Any, build_spec("i2t2i", "pocket", {"base": few})).solver == "ddim"
    for base in (Weights(str(PIPELINE)), Weights("nobody/knows")):
        kept: Any = build_spec("i2t2i", "pocket", {"base": base})
        assert (kept.solver, kept.num_inference_steps) == ("dpmsolver++", 10)


def test_a_stable_diffusion_is_known_without_diffusers():
    code = f"""
import sys
from hb_tta.generators import build_spec
build_spec("i2t2i", "pocket", {{"base": {str(PIPELINE)!r}}}, dtype="float32").to_json()
print("torch" in sys.modules or "diffusers" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


def test_the_papers_translation_is_ddims_on_any_family():
    specs: list[Any] = [
        build_spec("image_translation", family, {"base": "paper"}, dtype="float32")
        for family in ("pocket", "sdxl")
    ]
    assert specs[0] == specs[1]
    assert specs[0].solver == "ddim"


# ── The text's window ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        (PixArtAlphaPipeline, 120),
        (SanaPipeline, 300),
        (Lumina2Pipeline, 256),
        (Flux2KleinPipeline, LONGEST),
        (StableDiffusionXLPipeline, LONGEST),
    ],
)
def test_a_call_that_keeps_fewer_tokens_says_so(kind: Any, tokens: int):
    assert kept_tokens(inspect.signature(kind.__call__).parameters) == tokens


def test_a_description_is_shortened_to_what_the_call_keeps(made: Path, monkeypatch):
    base = Weights(str(save_klein(made / "short")))
    call = Flux2KleinPipeline.__call__
    signature = inspect.signature(call)
    own = signature.parameters["max_sequence_length"].replace(default=100)
    fewer = {**signature.parameters, "max_sequence_length": own}
    monkeypatch.setattr(
        call, "__signature__", signature.replace(parameters=list(fewer.values())), False
    )
    long = "A red dog sits left of a blue bench. " * 12
    spec = DiffusersSpec(base, prompt_template="{description}", **SMALL)
    kept, was_shortened = spec.fitter()(long)
    assert was_shortened and kept.endswith("bench.")
    assert 60 < count_tokens(load_tokenizers(base), kept) <= 100
    with pytest.warns(UserWarning, match=r"tokens was shortened to \d\d:"):
        spec.load("cpu").generate([(reference(), long)], [[0]])


def test_a_tokenizer_of_diffusers_own_is_found():
    from diffusers.pipelines.kolors import ChatGLMTokenizer

    base = Weights("a/b")
    assert _tokenizer_class(base, "kolors", "ChatGLMTokenizer") is ChatGLMTokenizer
    assert _tokenizer_class(base, "transformers", "CLIPTokenizer").__name__ == "CLIPTokenizer"
    with pytest.raises(UserError, match="has a tokenizer 'Tomorrows' of 'kolors', which neither"):
        _tokenizer_class(base, "kolors", "Tomorrows")
