"""The differentiable sampler: it samples as the stock pipeline does; its gradients are right."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from sdxl_folders import PIPELINE, reference

from hb_tta.context import evaluation_contexts
from hb_tta.generators.hummingbird import HummingbirdGenerator
from hb_tta.training.lora import add_lora, lora_parameters
from hb_tta.training.recipes import MEMORY_PRESETS
from hb_tta.training.rollout import Rollout, draw_noise, last_steps, soft_clamp

STEPS, GUIDANCE = 3, 3.0
SIDE = 8  # of the latents: small, for speed


@pytest.fixture(scope="module")
def generator() -> HummingbirdGenerator:
    return HummingbirdGenerator.from_pretrained(
        PIPELINE, device="cpu", num_inference_steps=STEPS, guidance_scale=GUIDANCE
    )


@pytest.fixture(scope="module")
def conditions(generator) -> dict[str, torch.Tensor]:
    contexts = [(reference(), "a red dog"), (reference().rotate(90), "two blue squares")]
    with torch.no_grad():
        return generator.encode(evaluation_contexts(contexts), True)


def make_rollout(generator, last: int = 1, **settings) -> Rollout:
    """A rollout over a copy of the pipeline's UNet with a LoRA that does something."""
    unet = copy.deepcopy(generator.pipe.unet)
    add_lora(unet, rank=2, alpha=4, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(lora_parameters(unet)):
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(number))
    chosen: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    chosen["gradient_steps"] = last_steps(last, STEPS)
    return Rollout(
        unet,
        copy.deepcopy(generator.pipe.vae),
        generator.pipe.scheduler,
        **chosen | {"memory": "none"} | settings,
    )


def noise_of(rollout: Rollout, rows: int = 2) -> torch.Tensor:
    return draw_noise(0, 0, list(range(rows)), (rollout.unet.config.in_channels, SIDE, SIDE))


def test_the_latents_are_those_of_the_stock_pipeline(generator, conditions):
    rollout = make_rollout(generator)
    stock = copy.copy(generator.pipe)
    stock.unet = rollout.unet
    noise, pixels = noise_of(rollout), SIDE * generator.pipe.vae_scale_factor
    with torch.no_grad():
        expected = stock(
            **conditions, latents=noise, height=pixels, width=pixels, output_type="latent",
            num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        ).images  # fmt: skip
        given = rollout.latents(conditions, noise)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_the_pixels_are_those_of_the_stock_pipeline(generator, conditions):
    rollout = make_rollout(generator)
    stock = copy.copy(generator.pipe)
    stock.unet = rollout.unet
    noise, pixels = noise_of(rollout), SIDE * generator.pipe.vae_scale_factor
    with torch.no_grad():
        expected = stock(
            **conditions, latents=noise, height=pixels, width=pixels, output_type="pt",
            num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        ).images  # fmt: skip
        given = rollout(conditions, noise)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def gradients(rollout: Rollout, conditions, loss: Callable = lambda pixels: pixels.square().sum()):
    parameters = lora_parameters(rollout.unet)
    for parameter in parameters:
        parameter.grad = None
    loss(rollout(conditions, noise_of(rollout))).backward()
    return copied_gradients(parameters)


def copied_gradients(parameters: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Every parameter's; one without is a failure."""
    found = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    assert len(found) == len(parameters)
    return found


def assert_same(some, others, tolerance=1e-5):
    """Relative to the whole gradient's norm."""
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (some, others))
    assert a.norm() > 0
    assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("memory", [preset for preset in MEMORY_PRESETS if preset != "none"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_every_memory_preset_gives_the_same_gradient(generator, conditions, memory, dropout):
    def of(preset: str):
        rollout = make_rollout(generator, 2, memory=preset)
        for module in rollout.unet.modules():
            if isinstance(module, torch.nn.ModuleDict) and "default" in module:
                if dropout and isinstance(module["default"], torch.nn.Identity):
                    module["default"] = torch.nn.Dropout(dropout)  # as add_lora(dropout=…) makes
        torch.manual_seed(5)
        return gradients(rollout, conditions)

    assert_same(of(memory), of("none"))


def test_all_steps_with_gradient_are_plain_autograd(generator, conditions):
    """K = T without recomputation, against a loop written out by hand."""
    rollout = make_rollout(generator, STEPS)
    unet, scheduler, vae = rollout.unet, rollout.scheduler, rollout.vae
    given = gradients(rollout, conditions)
    for parameter in lora_parameters(unet):
        parameter.grad = None
    latents = noise_of(rollout)
    scheduler.set_timesteps(STEPS)
    side = latents.shape[-1] * generator.pipe.vae_scale_factor
    ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).repeat(2, 1)
    for t in scheduler.timesteps:
        both = [
            unet(
                latents, t, encoder_hidden_states=conditions[prompt],
                added_cond_kwargs={"text_embeds": conditions[pooled], "time_ids": ids},
            ).sample
            for prompt, pooled in (
                ("negative_prompt_embeds", "negative_pooled_prompt_embeds"),
                ("prompt_embeds", "pooled_prompt_embeds"),
            )
        ]  # fmt: skip
        prediction = both[0] + GUIDANCE * (both[1] - both[0])
        latents = scheduler.step(prediction, t, latents).prev_sample
    pixels = (vae.decode(latents / vae.config.scaling_factor).sample + 1) / 2
    soft_clamp(pixels).square().sum().backward()
    assert_same(given, [parameter.grad for parameter in lora_parameters(unet)])


def test_the_prefix_carries_no_gradient(generator, conditions):
    """Fewer steps with gradient: the same picture, another gradient."""
    whole = make_rollout(generator, STEPS)
    cut = make_rollout(generator, 1)
    a, b = gradients(whole, conditions), gradients(cut, conditions)
    assert (a[0] - b[0]).norm() > 1e-3 * a[0].norm()
    unused = make_rollout(generator, 0)
    pixels = unused(conditions, noise_of(unused)).detach()
    torch.testing.assert_close(pixels, whole(conditions, noise_of(whole)).detach())


@pytest.mark.parametrize("memory", ["none", "step+block"])
def test_detached_steps_move_the_latents_by_the_scheduler_alone(generator, conditions, memory):
    """The first of three steps: DDIM is linear in its prediction, by a factor known beforehand."""
    rollout = make_rollout(generator, gradient_steps=[0], detach=True, memory=memory)
    unet, scheduler = rollout.unet, rollout.scheduler
    latents = rollout.latents(conditions, noise_of(rollout))
    latents.sum().backward()
    given = [parameter.grad.clone() for parameter in lora_parameters(unet)]
    for parameter in lora_parameters(unet):
        parameter.grad = None
    first = scheduler.timesteps[0]
    kept = scheduler.alphas_cumprod[first]
    last = scheduler.final_alpha_cumprod
    # In units of the signal a step adds (sigma' - sigma) of its prediction; the last scales back.
    after = scheduler.alphas_cumprod[scheduler.timesteps[1]]
    factor = last.sqrt() * (((1 - after) / after).sqrt() - ((1 - kept) / kept).sqrt())
    noise = noise_of(rollout)
    guided = torch.cat([noise, noise])
    inputs = rollout._inputs(conditions, noise, guided=True)
    negative, positive = unet(guided, first, **inputs).sample.chunk(2)
    (factor * (negative + GUIDANCE * (positive - negative))).sum().backward()
    assert_same(given, [parameter.grad for parameter in lora_parameters(unet)], 1e-4)


def test_a_gap_in_the_steps_with_gradient_is_a_bug(generator, conditions):
    with pytest.raises(AssertionError):
        make_rollout(generator, gradient_steps=[0])


def test_finite_differences_in_double_precision(generator, conditions):
    """The derivative along a random direction of all LoRA parameters, through sampler and VAE."""
    rollout = make_rollout(generator, STEPS, memory="step+block")
    rollout.unet.double()
    rollout.vae.double()
    doubles = {name: part.double() for name, part in conditions.items()}
    parameters = lora_parameters(rollout.unet)
    weights = torch.randn(3, generator=torch.Generator().manual_seed(1)).double()

    def value() -> torch.Tensor:
        latents = rollout.latents(doubles, noise_of(rollout).double())
        return (rollout.decode(latents) * weights[:, None, None]).mean()

    value().backward()
    generator_ = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=generator_).double() for p in parameters]
    derivative = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    epsilon = 1e-6

    def moved(by: float) -> float:
        with torch.no_grad():
            for parameter, step in zip(parameters, direction, strict=True):
                parameter += by * step
            result = float(value())
            for parameter, step in zip(parameters, direction, strict=True):
                parameter -= by * step
        return result

    measured = (moved(epsilon) - moved(-epsilon)) / (2 * epsilon)
    assert derivative == pytest.approx(measured, rel=1e-6)
    assert abs(derivative) > 1e-4


def test_saturated_pixels_keep_their_gradient():
    pixels = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
    clamped = soft_clamp(pixels)
    assert clamped.tolist() == [0, 0.25, 1]
    clamped.sum().backward()
    assert pixels.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("memory", ["none", "step+block"])
def test_the_drift_is_the_distance_to_the_untuned_generator(generator, conditions, memory):
    rollout = make_rollout(generator, gradient_steps=[0], detach=True, memory=memory)
    noise = noise_of(rollout)
    pixels, drift = rollout.sample(conditions, noise, with_drift=True)
    torch.testing.assert_close(pixels, rollout(conditions, noise))  # the LoRA is back
    rollout.scheduler.set_timesteps(STEPS)
    first, inputs = rollout.scheduler.timesteps[0], rollout._inputs(conditions, noise, guided=True)
    predictions = []
    for unet in (rollout.unet, generator.pipe.unet):
        negative, positive = unet(torch.cat([noise, noise]), first, **inputs).sample.chunk(2)
        predictions.append(negative + GUIDANCE * (positive - negative))
    expected = (predictions[0] - predictions[1]).square().flatten(1).mean(1)
    assert expected.min() > 1e-6
    torch.testing.assert_close(drift, expected)
    given = torch.autograd.grad(drift.sum(), lora_parameters(rollout.unet))
    assert_same(given, torch.autograd.grad(expected.sum(), lora_parameters(rollout.unet)))
    assert not rollout.sample(conditions, noise)[1].any()


def test_a_samples_gradient_is_clipped_whatever_its_neighbours(generator, conditions):
    """Two of a batch are each alone; a gradient below the threshold is left as it is."""

    def of(most: float | None, rows: slice = slice(0, 2)):
        rollout = make_rollout(generator, max_sample_gradient=most)
        given = {name: part[rows] for name, part in conditions.items()}
        noise, parameters = noise_of(rollout)[rows], lora_parameters(rollout.unet)
        weights = torch.tensor([1e3, 1.0])[rows]
        pixels = rollout(given, noise)
        (pixels.square().sum((1, 2, 3)) * weights).sum().backward()
        return copied_gradients(parameters)

    both, first, second = of(0.1), of(0.1, slice(0, 1)), of(0.1, slice(1, 2))
    assert_same(both, [a + b for a, b in zip(first, second, strict=True)])
    louder = of(None, slice(0, 1))
    a, b = (torch.cat([part.flatten() for part in parts]) for parts in (first, louder))
    assert torch.cosine_similarity(a, b, 0) > 0.9999 and a.norm() < 0.1 * b.norm()
    assert_same(of(1e9), of(None))


def test_noise_depends_on_seed_epoch_and_index_alone():
    together = draw_noise(3, 1, [4, 7], (2, 5))
    torch.testing.assert_close(together[1], draw_noise(3, 1, [7], (2, 5))[0], rtol=0, atol=0)
    rows = [draw_noise(*key, (64,)) for key in ((3, 1, [4]), (3, 2, [4]), (4, 1, [4]), (3, 1, [5]))]
    assert len({tuple(row[0].tolist()) for row in rows}) == 4


def test_the_prefix_and_evaluation_have_no_dropout(generator, conditions):
    rollout = make_rollout(generator, 0)
    plain = rollout.latents(conditions, noise_of(rollout))
    dropping = make_rollout(generator, 0)
    for module in dropping.unet.modules():
        if isinstance(module, torch.nn.ModuleDict) and "default" in module:
            if isinstance(module["default"], torch.nn.Identity):
                module["default"] = torch.nn.Dropout(0.5)
    torch.testing.assert_close(dropping.latents(conditions, noise_of(dropping)), plain)
    with torch.no_grad():
        carried = Rollout(
            dropping.unet,
            dropping.vae,
            dropping.scheduler,
            STEPS,
            GUIDANCE,
            range(STEPS),
            memory="none",
        )
        assert (carried.latents(conditions, noise_of(carried)) - plain).abs().max() > 1e-4


def test_weights_of_the_pipeline_stay_frozen(generator):
    rollout = make_rollout(generator)
    trained = {id(p) for p in lora_parameters(rollout.unet)}
    assert trained
    assert not any(p.requires_grad for p in rollout.unet.parameters() if id(p) not in trained)
