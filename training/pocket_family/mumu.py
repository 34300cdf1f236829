"""Stage ``mumu``: prompts of words and pictures, on the family's own Idefics2 and generator.

The training is ``hb-tta train --recipe pocket-mumu``; what ships of it is the connector in float16
and the UNet's LoRA, for the VLM is frozen and lies beside them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import torch

from hb_tta.generators.mumu.connector import Connector
from hb_tta.generators.mumu.encoder import load_processor
from hb_tta.generators.mumu.folder import (
    CONNECTOR,
    PROCESSOR,
    UNET_LORA,
    Index,
    part,
    read_index,
    save,
)
from hb_tta.lora import read_peft
from hb_tta.training.mumu.recipes import MumuSettings
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.training.recipes import get_recipe
from hb_tta.training.train import train
from hb_tta.weights import Weights


def train_mumu(run: RecipeRun) -> None:
    """Train by the recipe and write ``weights/mumu``."""
    settings = get_recipe("pocket-mumu")
    assert isinstance(settings, MumuSettings)
    align, steps = run.steps(settings.align_steps), run.steps(settings.max_steps)
    changed = replace(
        settings, generator=str(run.weights / "generator"), vlm=str(run.weights / "mllm_two"),
        samples=run.examples(settings.samples or 0), align_steps=align, max_steps=steps,
        dtype="float32",
    )  # fmt: skip
    train(changed, run.work / "mumu", quiet=True)
    ship(run)


def ship(run: RecipeRun) -> None:
    """The trained folder in small form."""
    trained, target = Weights(str(run.work / "mumu" / "best")), run.weights / "mumu"
    told = read_index(trained)
    if target.exists():
        shutil.rmtree(target)
    save(
        target,
        Index("pocket", "../mllm_two", told.tokens, told.registers),
        connector=Connector.load(part(trained, CONNECTOR), torch.float16),
        processor=load_processor(part(trained, PROCESSOR)),
        unet_lora=read_peft(run.work / "mumu" / "best" / UNET_LORA),
    )
