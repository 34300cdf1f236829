"""A wider denoiser draws at first what the narrow one draws, and all of it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from hb_tta.training.pocket_family.unet import WIDTHS, build_unet
from hb_tta.training.pocket_family.widen import widened


@pytest.fixture(scope="module")
def narrow() -> UNet2DConditionModel:
    """Of (64, 128) channels, as the second family's; its norms' weights are not all one.

    Of the times it reads every second frequency, which a half wider embedding has too.
    """
    torch.manual_seed(1)
    narrow = like_ours(block_out_channels=(64, 128), attention_head_dim=(2, 4), norm_num_groups=16)
    with torch.no_grad():
        for name, weight in narrow.named_parameters():
            if "norm" in name:
                weight += 0.2 * torch.randn_like(weight)
        narrow.time_embedding.linear_1.weight[:, 1::2] = 0
    return narrow


def like_ours(**changed: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_config(dict(build_unet().config) | changed)


@pytest.fixture
def wide(narrow: UNet2DConditionModel) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return widened(narrow, build_unet())


def predicted(unet: UNet2DConditionModel, times: torch.Tensor) -> torch.Tensor:
    number, generator = len(times), torch.Generator().manual_seed(1)
    latents = torch.randn(number, 8, 8, 8, generator=generator)
    added = {
        "text_embeds": torch.randn(number, 128, generator=generator),
        "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(number, -1),
    }
    text = torch.randn(number, 32, 256, generator=generator)
    return unet(latents, times, text, added_cond_kwargs=added).sample


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


@torch.no_grad()
def test_it_predicts_what_the_narrow_one_predicts(narrow, wide) -> None:
    assert tuple(wide.config.block_out_channels) == WIDTHS
    times = torch.arange(0, 1000, 40)
    was = predicted(narrow, times)
    assert apart(was, predicted(wide, times)) < 0.065
    torch.manual_seed(0)
    assert apart(was, predicted(build_unet(), times)) > 0.8  # an untrained one


def test_after_a_step_every_weight_has_a_gradient(wide) -> None:
    optimizer = torch.optim.SGD(wide.parameters(), lr=1e-2)
    for _ in range(2):  # at first some of the new weights are read with zeros
        optimizer.step()
        optimizer.zero_grad()
        predicted(wide, torch.tensor([300, 700])).square().mean().backward()
    for name, weight in wide.named_parameters():
        assert (weight.grad != 0).float().mean() > 0.9, name


def test_other_groups_of_the_norms_are_refused(narrow) -> None:
    with pytest.raises(AssertionError):
        widened(narrow, like_ours(norm_num_groups=48))
