"""Stage ``mumu``: prompts of words and pictures, on the family's own Idefics2 and generator.

The training is ``hb-tta train --recipe pocket-mumu``; what ships of it is the connector in float16
and the two LoRAs, for the VLM itself lies beside them.
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
    VLM,
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
    train(recipe_settings(run), run.work / "mumu", quiet=True)
    ship(run, "mumu")


def recipe_settings(run: RecipeRun) -> MumuSettings:
    """The recipe on the run's own models, at its scale."""
    settings = get_recipe("pocket-mumu")
    assert isinstance(settings, MumuSettings)
    align = run.steps(settings.align_steps)
    return replace(
        settings, generator=str(run.weights / "generator"), vlm=str(run.weights / "mllm_two"),
        samples=run.examples(settings.samples or 0), align_steps=align,
        max_steps=align + run.steps(settings.max_steps - settings.align_steps), dtype="float32",
    )  # fmt: skip


def ship(run: RecipeRun, folder: str) -> None:
    """A trained folder of ``run.work`` in small form."""
    last, target = run.work / folder, run.weights / "mumu"  # its rate has fallen to nothing
    trained = Weights(str(last))
    told = read_index(trained)
    if target.exists():
        shutil.rmtree(target)
    save(
        target,
        Index("pocket", "../mllm_two", told.tokens, told.registers),
        connector=Connector.load(part(trained, CONNECTOR), torch.float16),
        processor=load_processor(part(trained, PROCESSOR)),
        vlm_lora=read_peft(last / VLM),
        unet_lora=read_peft(last / UNET_LORA),
    )
