"""The latents of the method authors' own pipeline, reproduced."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from sdxl_folders import GOLDEN, LORA, PIPELINE, reference

from hb_tta.generators import HummingbirdGenerator

CASES = json.loads((GOLDEN / "cases.json").read_text())
SEEDS = (0, 93)


@cache
def expected() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "expected_latents.safetensors")


@cache
def generator(weights: str) -> HummingbirdGenerator:
    lora = {"base": None, "lora": LORA}[weights]
    return HummingbirdGenerator.from_pretrained(PIPELINE, lora=lora, device="cpu", dtype="float32")


@cache
def latents(weights: str, guidance: float, steps: int) -> list[list[torch.Tensor]]:
    """Of every prompt and seed, in one batch."""
    image = reference()
    return generator(weights).generate(
        [(image, prompt) for prompt in CASES["prompts"]],
        [SEEDS for _ in CASES["prompts"]],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    )


@pytest.mark.parametrize("key", CASES["keys"])
def test_latents_are_the_authors(key: str):
    assert len(CASES["keys"]) == 16
    weights, prompt, rest = key.split(".", 2)
    guidance, steps, seed = (
        rest.removeprefix("guidance").replace(".steps", " ").replace(".seed", " ").split()
    )
    views = latents(weights, float(guidance), int(steps))[int(prompt.removeprefix("prompt"))]
    torch.testing.assert_close(views[SEEDS.index(int(seed))], expected()[key][0], atol=1e-3, rtol=0)


def test_the_lora_changes_the_latents():
    base, lora = (
        expected()[f"{kind}.prompt0.guidance15.0.steps25.seed0"] for kind in ("base", "lora")
    )
    assert (base - lora).abs().max() > 0.1  # else the cases above would not see it missing
