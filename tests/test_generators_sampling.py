"""Batches, seeds and settings of the generators on an SDXL base."""

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from sdxl_folders import LORA, PIPELINE, reference

from hb_tta.errors import UserError
from hb_tta.generators import (
    DescribedContext,
    HummingbirdGenerator,
    I2T2ISpec,
    PipelineGenerator,
    fit_description,
    load_tokenizers,
)
from hb_tta.weights import Weights

STEPS = 3


def noise(seed: int, size: tuple[int, int] = (57, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@cache
def hummingbird(batch_size: int | None = None, **settings: Any) -> HummingbirdGenerator:
    given: Any = {"dtype": "float32", "num_inference_steps": STEPS, **settings}
    return HummingbirdGenerator.from_pretrained(
        PIPELINE, lora=LORA, device="cpu", batch_size=batch_size, **given
    )


@cache
def i2t2i(**settings: Any) -> PipelineGenerator:
    given: Any = {"num_inference_steps": STEPS, **settings}
    return I2T2ISpec(Weights(str(PIPELINE)), **given).load("cpu")


CONTEXTS = [
    (reference(), "two red dogs left of a blue bench"),
    (noise(0), ""),
    (reference(), "a cat"),
    DescribedContext(noise(1, (200, 20)), "a small blue square", guidance="Is it blue?"),
]
SEEDS = [[0, 1, 2], [5], [], [7, 0]]


def test_a_view_does_not_depend_on_its_batch():
    settings: Any = {"num_inference_steps": 6, "guidance_scale": 7.5, "output_type": "latent"}
    alone = [
        [hummingbird(1).generate([context], [[seed]], **settings)[0][0] for seed in seeds]
        for context, seeds in zip(CONTEXTS, SEEDS, strict=True)
    ]
    compositions = {
        batch_size: hummingbird(batch_size).generate(CONTEXTS, SEEDS, **settings)
        for batch_size in (2, 16)
    }
    turned = hummingbird(4).generate(CONTEXTS[::-1], [s[::-1] for s in SEEDS[::-1]], **settings)
    compositions[-4] = [views[::-1] for views in turned[::-1]]
    for composition in compositions.values():
        assert [len(views) for views in composition] == [3, 1, 0, 2]
        for views, lone_views in zip(composition, alone, strict=True):
            for view, lone_view in zip(views, lone_views, strict=True):
                torch.testing.assert_close(view, lone_view, atol=1e-4, rtol=0)
    different = [view for views in alone for view in views]
    for index, view in enumerate(different):
        assert all((view - other).abs().max() > 0.1 for other in different[:index])


def test_the_same_call_gives_the_same_bytes():
    first, second = (hummingbird().generate(CONTEXTS, SEEDS) for _ in range(2))
    for views, again in zip(first, second, strict=True):
        assert [view.tobytes() for view in views] == [view.tobytes() for view in again]


def test_pil_views_are_the_stock_pipelines():
    generator = hummingbird(1)
    (view,) = generator.generate([CONTEXTS[0]], [[3]])[0]
    assert (view.mode, view.size) == ("RGB", (64, 64))
    pipe = generator.pipe
    embeds, zeros = pipe.encode_image(reference(), "cpu", 1)
    prompt, negative, _, _ = pipe.encode_prompt(CONTEXTS[0][1])
    stock = pipe(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        pooled_prompt_embeds=embeds,
        negative_pooled_prompt_embeds=zeros,
        guidance_scale=15.0,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]
    assert view.tobytes() == stock.tobytes()


def test_i2t2i_is_the_stock_pipeline_on_the_description():
    (view,) = i2t2i().generate([CONTEXTS[0]], [[3]])[0]
    pipe = StableDiffusionXLPipeline.from_pretrained(PIPELINE)
    pipe.set_progress_bar_config(disable=True)
    stock = pipe(
        CONTEXTS[0][1],
        guidance_scale=15.0,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]
    assert view.tobytes() == stock.tobytes()


def test_i2t2i_does_not_look_at_the_image():
    # One at a time: to older torch a batch's rows are not the same to the last bit.
    views = [i2t2i().generate([(image, "a cat")], [[1]]) for image in (reference(), noise(0))]
    assert views[0][0][0].tobytes() == views[1][0][0].tobytes()
    assert i2t2i().pipe.image_encoder is None


def test_the_image_and_the_description_both_matter():
    views = hummingbird().generate(
        [(reference(), "a cat"), (noise(0), "a cat"), (reference(), "two dogs")], [[1]] * 3
    )
    assert len({view.tobytes() for (view,) in views}) == 3


@pytest.mark.parametrize("make", [hummingbird, i2t2i])
def test_without_guidance_there_are_no_negatives(make):
    generator = make()
    encoded = generator.encode([DescribedContext(*CONTEXTS[0])], False)
    assert sorted(encoded) == ["pooled_prompt_embeds", "prompt_embeds"]
    one, half, two = (
        generator.generate([CONTEXTS[0]], [[0]], guidance_scale=scale, output_type="latent")[0][0]
        for scale in (1.0, 0.5, 2.0)
    )
    assert torch.equal(one, half)
    assert not torch.equal(one, two)


def test_nothing_asked_gives_nothing():
    assert hummingbird().generate([], []) == []
    assert hummingbird().generate(CONTEXTS[:2], [[], []]) == [[], []]


def test_a_context_is_encoded_once(monkeypatch):
    generator, encoded = hummingbird(2), []
    encode = generator.encode

    def counting(contexts, guided):
        encoded.extend(context.description for context in contexts)
        return encode(contexts, guided)

    monkeypatch.setattr(generator, "encode", counting)
    generator.generate(CONTEXTS, [[0, 1, 2, 3, 4], [5], [], [7, 0]], num_inference_steps=1)
    assert encoded == [CONTEXTS[0][1], CONTEXTS[1][1], CONTEXTS[3].description]


def test_views_have_the_size_that_is_asked_for():
    generator = hummingbird(height=48, width=80)
    assert generator.generate([CONTEXTS[0]], [[0]])[0][0].size == (80, 48)


def test_grey_and_transparent_references_are_read_as_rgb():
    grey = reference().convert("L")
    views = hummingbird().generate([(grey, "a"), (grey.convert("RGB"), "a")], [[0], [0]])
    assert views[0][0].tobytes() == views[1][0].tobytes()


def test_bfloat16_gives_finite_views_near_float32s():
    (exact,), (rounded,) = (
        hummingbird(dtype=dtype).generate([CONTEXTS[0]], [[0]], guidance_scale=2.0)[0]
        for dtype in ("float32", "bfloat16")
    )
    difference = np.abs(np.asarray(exact, float) - np.asarray(rounded, float))
    assert 0 < difference.mean() < 12


def test_views_that_come_out_as_nan_are_an_error():
    generator = HummingbirdGenerator.from_pretrained(PIPELINE, device="cpu", dtype="float32")
    generator.pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN in float32"):
        generator.generate([CONTEXTS[0]], [[0]], num_inference_steps=1)


def test_a_description_beyond_the_window_is_shortened_with_a_warning():
    sentence = "A red dog sits left of a blue bench. "
    long = sentence * 50
    with pytest.warns(UserWarning, match=r"of \d{3,} tokens was shortened to \d\d:"):
        (view,) = hummingbird().generate([(reference(), long)], [[0]])[0]
    kept, was_shortened = fit_description(load_tokenizers(Weights(str(PIPELINE))), long)
    assert was_shortened and kept.endswith("bench.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (same,) = hummingbird().generate([(reference(), kept)], [[0]])[0]
    assert view.tobytes() == same.tobytes()


@pytest.mark.parametrize(
    ("contexts", "seeds", "settings", "message"),
    [
        ([(reference(), None)], [[0]], {}, "context 0 has no description"),
        ([(reference(), "a")], [[0], [1]], {}, "1 contexts came with 2 lists of seeds"),
        ([(reference(), "a")], [[2**64]], {}, "seed 18446744073709551616 is out of range"),
        ([(reference(), "a")], [[0]], {"num_inference_steps": 0}, "num_inference_steps=0"),
        ([(reference(), "a")], [[0]], {"num_inference_steps": 1001}, "num_inference_steps=1001"),
        ([(reference(), "a")], [[0]], {"guidance_scale": -1.0}, "guidance_scale=-1.0"),
        ([(reference(), "a")], [[0]], {"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ([(reference(), "a")], [[0]], {"output_type": "jpeg"}, "output_type='jpeg'"),
    ],
)
def test_mistakes_are_named(contexts, seeds, settings, message):
    with pytest.raises(UserError, match=message):
        hummingbird().generate(contexts, seeds, **settings)


def test_batch_size_must_be_positive():
    with pytest.raises(UserError, match="batch_size=0"):
        hummingbird(0)


def test_an_unusable_device_is_named_before_anything_is_loaded():
    with pytest.raises(UserError, match="cannot use device 'nonsense'"):
        HummingbirdGenerator.from_pretrained("/no/such/folder", device="nonsense")


def test_offload_without_a_gpu_warns():
    with pytest.warns(UserWarning, match="cpu_offload is ignored on cpu"):
        I2T2ISpec(Weights(str(PIPELINE))).load("cpu", cpu_offload=True)
