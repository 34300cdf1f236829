"""Any diffusers pipeline is a method of one file: the call's shape follows the folder's own class.

The method below is what a person would write; it is on an image-to-image pipeline, with a setting
of its own that the pipeline takes as it is.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from sdxl_folders import PIPELINE, reference

from hb_tta.errors import UserError
from hb_tta.generators import (
    DescribedContext,
    HummingbirdSpec,
    I2T2ISpec,
    PipelineSpec,
)
from hb_tta.generators.loading import load_pipeline
from hb_tta.generators.solvers import ddim_like
from hb_tta.weights import Weights


@dataclass(frozen=True)
class TranslationSpec(PipelineSpec):
    """Noises the image in part and denoises it with its description.

    Attributes:
        strength: the part of the steps that are taken, above 0 to 1.
    """

    strength: float = 0.5

    method: ClassVar[str] = "translation"
    needs_description: ClassVar[bool] = True
    constants: ClassVar[tuple[str, ...]] = ("strength",)

    def to_json(self) -> dict[str, Any]:
        return {**self.fields_json(), "version": 1}

    def load_pipeline(self) -> Any:
        return load_pipeline(self.base, AutoPipelineForImage2Image, dtype=self.dtype)

    def encode(
        self, pipe: Any, contexts: Sequence[DescribedContext], *, guided: bool, device: Any
    ) -> dict[str, Any]:
        return {
            "prompt": [context.description for context in contexts],
            "image": [context.image.resize((64, 64)) for context in contexts],
        }


SPEC = TranslationSpec(Weights(str(PIPELINE)), num_inference_steps=4, guidance_scale=3.0)
CONTEXTS = [(reference(), "two red dogs"), (reference().rotate(90), "a cat")]


def test_a_method_on_another_pipeline_is_the_stock_pipeline():
    generator = SPEC.load("cpu", batch_size=2)
    views = generator.generate(CONTEXTS, [[0, 1], [5]])
    pipe = generator.pipe
    assert isinstance(pipe, StableDiffusionXLImg2ImgPipeline)
    for (image, description), seeds, made in zip(CONTEXTS, [[0, 1], [5]], views, strict=True):
        for seed, view in zip(seeds, made, strict=True):
            stock = pipe(
                description,
                image=image.resize((64, 64)),
                strength=0.5,
                num_inference_steps=4,
                guidance_scale=3.0,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="latent",
            ).images[0]
            (alone,) = generator.generate([(image, description)], [[seed]], output_type="latent")[0]
            torch.testing.assert_close(alone, stock, atol=1e-4, rtol=0)
            assert (view.mode, view.size) == ("RGB", (64, 64))


def test_its_setting_counts_and_is_in_the_key():
    weak = replace(SPEC, strength=0.25)
    assert weak.to_json() != SPEC.to_json() and SPEC.to_json()["strength"] == 0.5
    views = [spec.load("cpu").generate(CONTEXTS[:1], [[0]])[0][0] for spec in (weak, SPEC)]
    assert views[0].tobytes() != views[1].tobytes()


def test_its_descriptions_are_fitted_like_all_others():
    fit = SPEC.fitter()
    assert fit("two red dogs") == ("two red dogs", False)
    assert fit("A red dog. " * 50)[1]


def test_an_argument_that_the_pipeline_lacks_is_named():
    with pytest.raises(UserError, match="height=48 is no argument of StableDiffusionXLImg2Img"):
        replace(SPEC, height=48).load("cpu")


@pytest.fixture(scope="module")
def one_encoder(tmp_path_factory) -> Path:
    """A base of Stable Diffusion 1's class: one text encoder, no pooled embedding."""
    folder = tmp_path_factory.mktemp("sd")
    index = json.loads((PIPELINE / "model_index.json").read_text())
    for part in ("text_encoder", "tokenizer", "vae", "scheduler"):
        shutil.copytree(PIPELINE / part, folder / part)
    width = json.loads((PIPELINE / "text_encoder" / "config.json").read_text())["hidden_size"]
    config = json.loads((PIPELINE / "unet" / "config.json").read_text())
    config |= {"addition_embed_type": None, "projection_class_embeddings_input_dim": None}
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config | {"cross_attention_dim": width}).save_pretrained(
        folder / "unet"
    )
    kept = ("text_encoder", "tokenizer", "vae", "scheduler", "unet")
    parts = {name: index[name] for name in kept}
    none = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), [None, None])
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", **parts, **none})
    )
    return folder


def test_i2t2i_is_called_as_the_bases_own_class_is(one_encoder: Path):
    spec = I2T2ISpec(Weights(str(one_encoder)), num_inference_steps=2, guidance_scale=3.0)
    (view,) = spec.load("cpu").generate([CONTEXTS[0]], [[3]])[0]
    pipe = StableDiffusionPipeline.from_pretrained(one_encoder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ddim_like(pipe.scheduler.config)
    stock = pipe(
        CONTEXTS[0][1],
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]
    assert view.tobytes() == stock.tobytes()
    assert spec.fitter()("A red dog. " * 50)[1]


def test_a_method_that_needs_sdxl_says_so(one_encoder: Path):
    with pytest.raises(UserError, match="is no Stable Diffusion XL: it has no tokenizer_2"):
        HummingbirdSpec(Weights(str(one_encoder))).load("cpu")
