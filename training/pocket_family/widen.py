"""A trained denoiser's weights in a wider one, which draws at first what the narrow one draws.

The old channels keep their norms' groups: the wider net has more groups, each as large as before.
New channels of a level's stream are written with new weights and read with zeros; a transformer's
own stream is written with zeros and read with new weights, for its norms are over all channels. So
nothing changes at the start, and every new weight still learns.

What is not exact: two norms have one group that lies across old and new channels, the layer norms
take the channels' mean for zero, and the times' wider embedding is fitted to the old one's.
"""

from __future__ import annotations

import re

import torch
from diffusers import UNet2DConditionModel

# The widths that meet at the entrance of the upward residual blocks: (from below, from beside).
_MEETING = {(0, 0): (1, 1), (0, 1): (1, 0), (1, 0): (1, 0), (1, 1): (0, 0)}
_ENTRANCE = re.compile(r"up_blocks\.(\d)\.resnets\.(\d)\.(norm1|conv1\.weight|conv_shortcut\.w)")
_HEADS_OUT = re.compile(r"\.to_[qkv]\.weight|net\.0\.proj")
_HEADS_IN = re.compile(r"\.to_out\.0\.weight|net\.2\.weight")
_READS_INNER = re.compile(r"\.attn\d\.to_[qkv]\.weight|net\.0\.proj\.weight|\.proj_out\.weight")
_WRITES_INNER = re.compile(r"\.proj_in\.|\.to_out\.0\.|net\.2\.")
_LAYER_NORM = re.compile(r"transformer_blocks\.0\.norm\d\.")


@torch.no_grad()
def widened(narrow: UNet2DConditionModel, wide: UNet2DConditionModel) -> UNet2DConditionModel:
    """``wide``, with the weights of ``narrow`` copied in.

    Args:
        narrow, wide: two levels each, of the same make but for ``block_out_channels``, the heads'
            number and the norms' groups, which hold as many channels in both.
    """
    plan, had = _Plan(narrow, wide), dict(narrow.named_parameters())
    for name, weight in wide.named_parameters():
        old = had[name]
        if old.shape == weight.shape:
            weight.copy_(old)
        elif name == "time_embedding.linear_1.weight":
            weight.copy_(_fitted_times(narrow, wide, old))
        else:
            plan.copy(name, old, weight)
    return wide


class _Plan:
    """Which channels of the wide net are the narrow one's."""

    def __init__(self, narrow: UNet2DConditionModel, wide: UNet2DConditionModel):
        self.old, self.new = (tuple(net.config.block_out_channels) for net in (narrow, wide))
        sizes = {net.config.block_out_channels[0] // net.config.norm_num_groups
                 for net in (narrow, wide)}  # fmt: skip
        assert len(sizes) == 1 and self.old[0] * self.new[1] == self.old[1] * self.new[0]
        # Where both levels meet, a group holds channels of both: these shift the first level's.
        together = sum(self.new) // wide.config.norm_num_groups
        self.first = ((self.old[1] - self.new[1]) % together, 0)

    def copy(self, name: str, old: torch.Tensor, weight: torch.Tensor) -> None:
        rows = self._places(name, 0, old.shape[0], weight.shape[0])
        added = torch.ones(len(weight), dtype=torch.bool)
        added[rows] = False
        if _WRITES_INNER.search(name):
            weight[added] = 0
        if old.ndim == 1:
            weight[rows] = old
            if _LAYER_NORM.search(name) and name.endswith("weight"):
                weight[added] = 1.0
                weight *= (len(old) / len(weight)) ** 0.5
            return
        columns = self._places(name, 1, old.shape[1], weight.shape[1])
        if not _READS_INNER.search(name):
            weight[rows] = 0
        weight[rows[:, None], columns] = old

    def _places(self, name: str, axis: int, old: int, new: int) -> torch.Tensor:
        """The old channels' numbers among the new ones, along an axis of a weight."""
        if old == new:
            return torch.arange(old)
        if axis == 0 and "net.0.proj" in name:  # a value and a gate
            half = torch.arange(old // 2)
            return torch.cat([half, new // 2 + half])
        if (_HEADS_IN if axis else _HEADS_OUT).search(name):
            return torch.arange(old)
        entrance = _ENTRANCE.match(name)
        if entrance and (axis == 1 or entrance[3] == "norm1"):
            below, beside = _MEETING[int(entrance[1]), int(entrance[2])]
            return torch.cat([self._level(below), self.new[below] + self._level(beside)])
        return self._level(self.old.index(old))

    def _level(self, level: int) -> torch.Tensor:
        return self.first[level] + torch.arange(self.old[level])


def _fitted_times(
    narrow: UNet2DConditionModel, wide: UNet2DConditionModel, old: torch.Tensor
) -> torch.Tensor:
    """Weights that read of the wide embedding of each time what ``old`` reads of the narrow one."""
    times = torch.arange(1000)
    before, now = (net.time_proj(times).double() for net in (narrow, wide))
    ridge = 1e-4 * torch.eye(now.shape[1], dtype=torch.float64)
    return torch.linalg.solve(now.T @ now + ridge, now.T @ before @ old.double().T).T.to(old.dtype)
