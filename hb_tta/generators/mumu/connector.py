"""The adapter between the VLM's states and the UNet's cross-attention: trained from nothing.

A non-causal transformer (section 3; 16 layers). Width, heads and places of the projections are
left open by the paper. There are no positions: the VLM's rotary ones are in the states already,
and cross-attention does not look at the order of its keys.

Shape suffixes: B prompts, L tokens, D width in, W inner width, C width out, H heads, K a head's.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hb_tta.disk import write_aside
from hb_tta.errors import UserError, shown
from hb_tta.generators.reading import reading
from hb_tta.reading import parse_json, read_bytes
from hb_tta.weights import Weights

CONFIG, FILE = "config.json", "model.safetensors"
INITIAL = 0.02  # deviation of first weights


@dataclass(frozen=True)
class ConnectorConfig:
    """Sizes of a connector.

    Attributes:
        in_features: width of the VLM's states.
        out_features: the UNet's ``cross_attention_dim``.
        width: inside.
        layers, heads: of the transformer; ``heads`` divides ``width``.

    Raises:
        UserError: a size is none.
    """

    in_features: int
    out_features: int
    width: int = 2048
    layers: int = 16
    heads: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            size = getattr(self, field.name)
            if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**20:
                raise UserError(f"a connector with {field.name}={shown(size)} cannot be made")
        if self.width % self.heads:
            raise UserError(
                f"a connector's width {self.width} is no multiple of {self.heads} heads"
            )


class Connector(nn.Module):
    """States of the VLM in, what the UNet attends to out.

    Attributes:
        config: its sizes.
        layers: the transformer's.
        gradient_checkpointing: compute a layer again for its gradient, in place of keeping it.
    """

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.enter = nn.Linear(config.in_features, config.width)
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, config.out_features)
        self.reset()

    def reset(self) -> None:
        """Draw first weights, from torch's own generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL)
                nn.init.zeros_(module.bias)
        for layer in self.layers:  # so that the sum of all layers starts at their inputs' scale
            for last in (layer.out, layer.down):
                nn.init.normal_(last.weight, std=INITIAL / math.sqrt(2 * len(self.layers)))

    def forward(self, states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D) and what is no padding of it → (B, L, C), zeros where it is padding."""
        hidden_BLW = self.enter(states_BLD)
        keys_B11L = mask_BL.bool()[:, None, None, :]
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden_BLW = checkpoint(layer, hidden_BLW, keys_B11L, use_reentrant=False)
            else:
                hidden_BLW = layer(hidden_BLW, keys_B11L)
        context_BLC = self.leave(self.norm(hidden_BLW))
        return context_BLC * mask_BL.bool()[..., None]

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        tensors = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        write_aside(folder / FILE, save(tensors, {"format": "pt"}))
        told = json.dumps(asdict(self.config), indent=2) + "\n"
        write_aside(folder / CONFIG, told.encode())

    @classmethod
    def load(cls, weights: Weights, dtype: torch.dtype = torch.float32) -> Self:
        """A connector as ``save`` wrote it, on the CPU, in eval mode.

        Raises:
            UserError: it is missing, damaged, or its weights are of other sizes.
        """
        with reading(weights, "a connector of MUMU"):
            written = parse_json(read_bytes(weights.file(CONFIG)))
            config = _config(written)
            tensors = load(read_bytes(weights.file(FILE)))
            with torch.device("meta"):
                connector = cls(config)
            connector.load_state_dict(tensors, assign=True)
            if not all(value.isfinite().all() for value in tensors.values()):
                raise ValueError("it holds numbers that are not finite")
        return connector.to(dtype).eval().requires_grad_(False)


class Layer(nn.Module):
    """Attention between all tokens, then an MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden_BLW: Tensor, keys_B11L: Tensor) -> Tensor:
        """(B, L, W), and which keys are no padding → (B, L, W)."""
        hidden_BLW = hidden_BLW + self._attend(self.norm_1(hidden_BLW), keys_B11L)
        return hidden_BLW + self.down(functional.gelu(self.up(self.norm_2(hidden_BLW))))

    def _attend(self, hidden_BLW: Tensor, keys_B11L: Tensor) -> Tensor:
        q_BHLK, k_BHLK, v_BHLK = (
            self.qkv(hidden_BLW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        seen_BHLK = functional.scaled_dot_product_attention(
            q_BHLK, k_BHLK, v_BHLK, attn_mask=keys_B11L
        )
        return self.out(seen_BHLK.transpose(1, 2).flatten(2))


def _config(written: Any) -> ConnectorConfig:
    names = {field.name for field in fields(ConnectorConfig)}
    if not isinstance(written, dict) or set(written) != names:
        raise ValueError(f"its {CONFIG} does not name {', '.join(sorted(names))} and no more")
    return ConnectorConfig(**written)
