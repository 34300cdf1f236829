"""Idefics2 without its perceiver: every patch of an image is a token, as in MUMU.

transformers' own classes with one module replaced; a model type of its own, so that the auto
classes load such a folder as what it is and do not invent a perceiver. Importing this module
registers it.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
)


class Idefics2PatchesConfig(Idefics2Config):
    """Idefics2's settings; those of the perceiver are not used."""

    model_type = "idefics2_patches"


class Idefics2PatchesForConditionalGeneration(Idefics2ForConditionalGeneration):
    """Idefics2 whose language model reads every patch."""

    config_class = Idefics2PatchesConfig

    def __init__(self, config: Idefics2PatchesConfig):
        super().__init__(config)
        self.model.connector.perceiver_resampler = _AsTheyAre()


class _AsTheyAre(nn.Module):
    """Stands where the perceiver stood."""

    def forward(self, context: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return context


AutoConfig.register("idefics2_patches", Idefics2PatchesConfig, exist_ok=True)
AutoModelForImageTextToText.register(
    Idefics2PatchesConfig, Idefics2PatchesForConditionalGeneration, exist_ok=True
)
