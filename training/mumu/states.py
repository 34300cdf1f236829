"""What the VLM says of prompts; of a frozen one kept on disk, a file a prompt.

Shape suffixes: B prompts, L tokens, D the VLM's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hb_tta.disk import write_aside
from hb_tta.generators.mumu.encoder import Encoder
from hb_tta.training.mumu.prompts import Drawn
from hb_tta.training.trained import Key

FOLDERS = 256  # that the files are spread over


class States:
    """States of prompts.

    Args:
        encoder: with the gradient of what of it is trained.
        tokens: an image.
        folder: of what is kept; ``None``: nothing is.
    """

    def __init__(self, encoder: Encoder, tokens: int, folder: Path | None = None) -> None:
        self._encoder, self._tokens, self._folder = encoder, tokens, folder

    def __call__(
        self, drawn: Sequence[Drawn], keys: Sequence[Key] | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """States (B, L, D) and their mask (B, L) of prompts.

        Args:
            keys: of the samples, by whose index the states are kept; ``None``: they are not.
        """
        if self._folder is None or keys is None:
            return self._made(drawn, device)
        paths = [self._path(key) for key in keys]
        known = [_read(path) for path in paths]
        lacking = [place for place, states in enumerate(known) if states is None]
        if lacking:
            made, mask_BL = self._made([drawn[place] for place in lacking], device)
            for row, place in enumerate(lacking):
                states_LD = made[row][mask_BL[row].bool()].half().cpu()
                write_aside(paths[place], save({"states": states_LD}), flush=False)
                known[place] = states_LD
        return padded([states.float().to(device) for states in known if states is not None])

    def _made(self, drawn: Sequence[Drawn], device: torch.device) -> tuple[Tensor, Tensor]:
        inputs = self._encoder.inputs([one.prompt for one in drawn], self._tokens)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        trained = any(p.requires_grad for p in self._encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            states_BLD = self._encoder(**inputs)
        return states_BLD, inputs["attention_mask"].bool()

    def _path(self, key: Key) -> Path:
        assert self._folder is not None
        epoch, index = key
        part = "held_out" if epoch >= 2**31 else "training"
        return self._folder / part / f"{index % FOLDERS:02x}" / f"{index:09d}.safetensors"


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """States (L, D) of any lengths as (B, L, D), and which of them are no padding (B, L)."""
    states_BLD = pad_sequence(list(rows), batch_first=True)
    ends_B1 = torch.tensor([[len(row)] for row in rows], device=states_BLD.device)
    return states_BLD, torch.arange(states_BLD.shape[1], device=states_BLD.device)[None] < ends_B1


def _read(path: Path) -> Tensor | None:
    """What is kept; ``None`` where nothing sound is."""
    try:
        return load_file(path)["states"]
    except (OSError, SafetensorError, KeyError):
        return None
