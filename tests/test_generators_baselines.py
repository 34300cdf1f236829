"""The paper's comparison methods on pipelines: image variation and translation, learned words."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import (
    StableDiffusionImageVariationPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from sdxl_folders import PIPELINE, reference, save_sdxl_base
from tiny_pipelines import save_klein, save_sd1, save_variation, with_scheduler

from hb_tta import Augmenter, MultimodalContext
from hb_tta.context import DescribedContext
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import get_family
from hb_tta.generators import (
    HummingbirdSpec,
    I2T2ISpec,
    ImageTranslationSpec,
    ImageVariationSpec,
    TextualInversionSpec,
    build_spec,
)
from hb_tta.generators.inversion import PROMPT, learn
from hb_tta.generators.solvers import ddim_like, dpm_like
from hb_tta.images import pixel_digest
from hb_tta.store import Store
from hb_tta.weights import Weights

GOLDEN = Weights(str(PIPELINE))
QUICK: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0}
IMAGES = [reference(), reference().rotate(90, expand=True), reference().rotate(180)]


def stock(pipe: Any, seed: int, **given: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe(**given, generator=torch.Generator("cpu").manual_seed(seed)).images[0]


# ── Image variation ──────────────────────────────────────────────────────────────────────────────


def test_variation_is_called_as_the_bases_own_class_is(tmp_path: Path):
    base = save_variation(tmp_path / "base")
    generator = ImageVariationSpec(Weights(str(base)), **QUICK).load("cpu")
    (view,) = generator.generate([(IMAGES[0], None)], [[3]])[0]
    pipe = StableDiffusionImageVariationPipeline.from_pretrained(base)
    assert view.tobytes() == stock(pipe, 3, image=IMAGES[0], **QUICK).tobytes()
    batch = generator.generate([(image, None) for image in IMAGES], [[3], [4], [3]])
    assert len({views[0].tobytes() for views in batch}) == 3


def test_variation_of_sdxl_is_hummingbird_without_a_word():
    (view,) = ImageVariationSpec(GOLDEN, **QUICK).load("cpu").generate([(IMAGES[0], None)], [[3]])
    (same,) = HummingbirdSpec(GOLDEN, **QUICK).load("cpu").generate([(IMAGES[0], "")], [[3]])
    assert view[0].tobytes() == same[0].tobytes()


def test_variation_needs_a_base_that_makes_pictures_of_pictures(tmp_path: Path):
    base = Weights(str(save_sd1(tmp_path / "sd1")))
    with pytest.raises(UserError, match="StableDiffusionPipeline, which makes no pictures from an"):
        ImageVariationSpec(base).load("cpu")
    bare = Weights(str(save_sdxl_base(tmp_path / "bare")))
    with pytest.raises(UserError, match="has no image encoder"):
        ImageVariationSpec(bare).load("cpu")


def test_a_safety_checker_is_never_loaded(tmp_path: Path):
    """It would give black views and say nothing."""
    base = save_variation(tmp_path / "base")
    index = base / "model_index.json"
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    written = {**json.loads(index.read_text()), "requires_safety_checker": True}
    index.write_text(json.dumps({**written, "safety_checker": checker}))
    pipe = ImageVariationSpec(Weights(str(base)), **QUICK).load("cpu").pipe
    assert pipe.safety_checker is None


def test_the_family_says_which_model_varies():
    sdxl: Any = build_spec("image_variation", "sdxl")
    assert sdxl.base.location == "lambdalabs/sd-image-variations-diffusers"
    assert (sdxl.guidance_scale, sdxl.num_inference_steps) == (3.0, 25)
    pocket: Any = build_spec("image_variation", "pocket")
    assert pocket.base == get_family("pocket").roles["generator"]
    assert pocket.guidance_scale == 2.0


# ── Image translation ────────────────────────────────────────────────────────────────────────────

TRANSLATION = ImageTranslationSpec(GOLDEN, num_inference_steps=4, guidance_scale=2.0)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_translation_is_stock_image_to_image_with_the_question(kind: str, tmp_path: Path):
    base = PIPELINE if kind == "sdxl" else save_sd1(tmp_path / "base")
    spec = replace(TRANSLATION, base=Weights(str(base)))
    context = DescribedContext(IMAGES[1], None, "Is it red?")
    (view,) = spec.load("cpu").generate([context], [[3]])[0]
    stocks = {"sd1": StableDiffusionImg2ImgPipeline, "sdxl": StableDiffusionXLImg2ImgPipeline}
    theirs = stock(
        stocks[kind].from_pretrained(base),
        3,
        prompt="Is it red?",
        image=IMAGES[1].resize((64, 64), 3),
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=2.0,
    )
    assert view.tobytes() == theirs.tobytes()


def test_the_question_decides_the_key_and_no_describer_runs(tmp_path: Path):
    augmenter = Augmenter(TRANSLATION, store=tmp_path)
    asked = ["Is it red? Please answer yes or no.", "Is it red?", "Is it blue?"]
    contexts = [MultimodalContext(IMAGES[0], question) for question in asked]
    keys = [found[0] for found in augmenter.view_keys(contexts, n=1)]  # type: ignore[index]
    assert keys[0] == keys[1] != keys[2]
    hoi = MultimodalContext(IMAGES[0], "person | rides | bicycle", "hoi")
    made = augmenter.augment([*contexts, hoi], n=1)
    assert [one.description for one in made] == [
        "Is it red?", "Is it red?", "Is it blue?", "person rides bicycle"
    ]  # fmt: skip
    told = augmenter.augment([DescribedContext(IMAGES[0], "two dogs", "Is it red?")], n=1)
    assert told[0].description == "two dogs"


def test_a_method_that_is_told_nothing_sees_no_question(tmp_path: Path):
    augmenter = Augmenter(ImageVariationSpec(GOLDEN, **QUICK), store=tmp_path)
    contexts = [MultimodalContext(IMAGES[0], question) for question in ("Is it red?", "")]
    first, second = augmenter.view_keys(contexts, n=1)
    assert first == second


def test_the_papers_translation_is_a_preset():
    paper: Any = build_spec("image_translation", "sdxl", {"base": "paper", "strength": "0.4"})
    assert paper.base.location == "CompVis/stable-diffusion-v1-4"
    assert (paper.strength, paper.num_inference_steps, paper.guidance_scale) == (0.4, 50, 7.5)
    usual: Any = build_spec("image_translation", "sdxl")
    assert usual.base == get_family("sdxl").roles["generator"] and usual.strength == 0.5
    with pytest.raises(UserError, match="no preset of image_translation, did you mean 'paper'"):
        build_spec("image_translation", "sdxl", {"base": "papper"})


def test_a_size_that_the_pipeline_does_not_take_is_the_images(tmp_path: Path):
    wide = replace(TRANSLATION, width=48).load("cpu")
    assert wide.generate([(IMAGES[0], "a")], [[0]])[0][0].size == (48, 64)
    with pytest.raises(UserError, match="Flux2KleinPipeline|cannot be loaded|takes no image with"):
        replace(TRANSLATION, base=Weights(str(save_klein(tmp_path / "k")))).load("cpu")


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 4), (1.5, 4), (0.2, 4)])
def test_a_strength_that_leaves_nothing_is_named(strength: float, steps: int):
    with pytest.raises(UserError, match=f"strength={strength}"):
        replace(TRANSLATION, strength=strength, num_inference_steps=steps)


# ── Textual inversion ────────────────────────────────────────────────────────────────────────────

LEARNED = TextualInversionSpec(GOLDEN, learning_steps=3, learning_rate=0.05, **QUICK)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def learning(request, tmp_path_factory) -> TextualInversionSpec:
    if request.param == "sdxl":
        return LEARNED
    return replace(LEARNED, base=Weights(str(save_sd1(tmp_path_factory.mktemp("base") / "sd1"))))


def test_a_word_does_not_depend_on_its_batch(learning: TextualInversionSpec):
    pipe = learning.load("cpu").pipe
    together = learn(pipe, IMAGES, learning, torch.device("cpu"))
    start = pipe.text_encoder.get_input_embeddings().weight[
        pipe.tokenizer("*", add_special_tokens=False).input_ids[0]
    ]
    for row, image in enumerate(IMAGES):
        alone = learn(pipe, [image], learning, torch.device("cpu"))
        for name, vectors in together.items():
            torch.testing.assert_close(vectors[row], alone[name][0], atol=2e-4, rtol=0)
        assert (together["text_encoder"][row] - start).abs().max() > 0.01
    assert (together["text_encoder"][0] - together["text_encoder"][1]).abs().max() > 0.01


def test_learning_lowers_the_error():
    """Of one image, with the same noises: what the loss is of."""
    from hb_tta.generators import inversion

    pipe, device = LEARNED.load("cpu").pipe, torch.device("cpu")
    latents = inversion._latents(pipe, IMAGES[:1], LEARNED, device)

    def error(words: Any) -> float:
        draws = [torch.Generator().manual_seed(0)]
        with torch.no_grad():
            return sum(
                float(inversion._loss(pipe, latents, words, draws, device)) for _ in range(40)
            )

    before = {name: inversion._start(pipe, name, 1) for name in inversion._encoders(pipe)}
    after = learn(pipe, IMAGES[:1], replace(LEARNED, learning_steps=60), device)
    assert error(after) < error(before)


def test_an_unlearned_word_is_the_prompt_itself():
    """With the star's own vector the conditions are those of the stock pipeline."""
    from hb_tta.generators import inversion

    pipe = LEARNED.load("cpu").pipe
    words = {name: inversion._start(pipe, name, 2) for name in inversion._encoders(pipe)}
    ours = inversion.told_conditions(pipe, words, guided=True, device=torch.device("cpu"))
    theirs = I2T2ISpec(GOLDEN, **QUICK).encode(
        pipe, [DescribedContext(IMAGES[0], PROMPT)] * 2, guided=True, device=torch.device("cpu")
    )
    assert ours.keys() == theirs.keys()
    for name, part in theirs.items():
        torch.testing.assert_close(ours[name], part)


def test_words_are_kept_in_the_store_and_learned_once(tmp_path: Path, monkeypatch):
    from hb_tta.generators import inversion

    asked: list[int] = []
    real = inversion.learn

    def watched(pipe: Any, images: Any, *rest: Any) -> Any:
        asked.append(len(images))
        return real(pipe, images, *rest)

    monkeypatch.setattr(inversion, "learn", watched)
    contexts = [MultimodalContext(image) for image in IMAGES]
    first = Augmenter(LEARNED, store=tmp_path, batch_size=4).augment(contexts, n=1)
    assert asked == [3] and Store(tmp_path).info().namespaces["features"].files == 3
    sampled = replace(LEARNED, num_inference_steps=3)
    again = Augmenter(sampled, store=tmp_path, batch_size=4).augment(contexts, n=2, seed=1)
    assert asked == [3], "other steps and seeds have the same words"
    views = {view.tobytes() for one in (*first, *again) for view in one.views}
    assert len(views) == 9
    Augmenter(replace(LEARNED, learning_steps=4), store=tmp_path).augment(contexts[:1], n=1)
    Augmenter(LEARNED, store=tmp_path, deterministic=True).augment(contexts[:1], n=1)
    assert asked == [3, 1, 1]
    with Store(tmp_path).lock("features", "0" * 64):
        pass
    Augmenter(LEARNED, store=False).augment(contexts[:1], n=1)
    assert asked == [3, 1, 1, 1]


def test_a_generator_by_itself_learns_an_image_once():
    generator = LEARNED.load("cpu")
    (views,) = generator.generate([(IMAGES[0], None)], [[0, 1]])
    (again,) = generator.generate([(IMAGES[0], None)], [[0]])
    both = zip(views[0].tobytes(), again[0].tobytes(), strict=True)
    assert max(abs(a - b) for a, b in both) <= 1 and views[0].tobytes() != views[1].tobytes()
    assert list(generator.words(IMAGES[:1])) == [pixel_digest(IMAGES[0])]
    assert generator.generate([(IMAGES[0], None)], [[]]) == [[]]
    with warnings.catch_warnings():  # a description is not read, so none is too long
        warnings.simplefilter("error", HbTtaWarning)
        (told,) = generator.generate([(IMAGES[0], "a red circle " * 99)], [[0]])
    assert told[0].tobytes() == again[0].tobytes()


def test_what_learns_no_word_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="Flux2KleinPipeline, in which no word can be learned"):
        replace(LEARNED, base=Weights(str(save_klein(tmp_path / "klein")))).load("cpu")
    with pytest.raises(UserError, match="learning_steps=0"):
        replace(LEARNED, learning_steps=0)
    with pytest.raises(UserError, match="learning_rate=nan"):
        replace(LEARNED, learning_rate=float("nan"))


def test_every_prediction_type_has_its_target(tmp_path: Path):
    for kind in ("v_prediction", "sample"):
        base = with_scheduler(save_sd1(tmp_path / kind), "DDIMScheduler", prediction_type=kind)
        spec = replace(LEARNED, base=Weights(str(base)), learning_steps=1)
        learn(spec.load("cpu").pipe, IMAGES[:1], spec, torch.device("cpu"))


# ── Solvers ──────────────────────────────────────────────────────────────────────────────────────


def test_another_solver_is_another_key_and_ddims_stays(tmp_path: Path):
    spec = HummingbirdSpec(GOLDEN, **QUICK)
    json = spec.to_json()
    assert json["scheduler"] == "ddim" and "solver" not in json
    others: dict[Literal["dpmsolver++", "lcm", "own"], str] = {
        "dpmsolver++": "DPMSolverMultistepScheduler",
        "lcm": "LCMScheduler",
        "own": "DDIMScheduler",
    }
    for solver, name in others.items():
        other = replace(spec, solver=solver)
        assert other.to_json() == {**json, "scheduler": solver}
        assert type(other.load("cpu").pipe.scheduler).__name__ == name
    chosen: Any = build_spec("hummingbird", "pocket", {"solver": "dpmsolver++", "steps": 12})
    assert chosen.solver == "dpmsolver++"
    with pytest.raises(UserError, match="solver='euler' is no value of it: give one of ddim, dpms"):
        build_spec("hummingbird", "pocket", {"solver": "euler"})


def ended(scheduler: Any, alphas: torch.Tensor, steps: int, spread: float) -> float:
    """Where a 1 ends that is sampled as one of normal numbers of this spread; best: the spread."""
    scheduler.set_timesteps(steps)
    x = torch.ones(1, 1, 1, 1)
    for time in scheduler.timesteps:
        kept, noised = alphas[time].sqrt(), (1 - alphas[time]).sqrt()
        known = kept**2 * spread**2 + noised**2
        v = kept * noised * (1 - spread**2) / known * x  # what a perfect denoiser predicts
        x = scheduler.step(v, time, x).prev_sample
    return float(x)


@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_dpm_solver_follows_the_familys_noise_and_needs_fewer_steps(spread: float):
    """Of normal numbers the denoiser and the end are known."""
    base = get_family("pocket").roles["generator"].location
    config = json.loads(Path(base, "scheduler", "scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction"
    alphas = ddim_like(config).alphas_cumprod
    ddim, dpm = (
        {steps: ended(make(config), alphas, steps, spread) for steps in (12, 200)}
        for make in (ddim_like, dpm_like)
    )
    assert abs(dpm[12] - spread) < abs(ddim[12] - spread)
    assert dpm[200] == pytest.approx(spread, rel=0.03)
    assert ddim[200] == pytest.approx(spread, rel=0.05)


def test_what_learns_stays_on_its_device(monkeypatch):
    """Offloaded, a text encoder has left the GPU before the way back reaches it."""
    from hb_tta.generators import sampling

    placed: list[bool] = []
    monkeypatch.setattr(sampling.Sampler, "_place", lambda self, away: placed.append(away))
    with pytest.warns(HbTtaWarning, match="textual_inversion ignores cpu_offload=True"):
        LEARNED.load("cpu", cpu_offload=True)
    I2T2ISpec(GOLDEN, **QUICK).load("cpu", cpu_offload=True)
    assert placed == [False, True]


@pytest.mark.parametrize("scheduler", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_no_word_is_learned_of_a_base_that_predicts_no_noise(scheduler: str, tmp_path: Path):
    base = Weights(str(with_scheduler(save_sd1(tmp_path), scheduler)))
    with pytest.raises(UserError, match=f"is sampled by {scheduler}, for which no word can be"):
        replace(LEARNED, base=base).load("cpu")


def test_a_tower_that_a_variation_cannot_use_is_refused(tmp_path: Path):
    spec = ImageVariationSpec(Weights(str(save_variation(tmp_path))), **QUICK)
    with pytest.raises(UserError, match="image_encoder='a/b' is of no use to base="):
        replace(spec, image_encoder=Weights("a/b")).load("cpu")
