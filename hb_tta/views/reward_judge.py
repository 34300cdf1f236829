"""A reward as a judge of views: images in, numbers out, no gradients.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hb_tta.rewards.registry import get_reward
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image


class RewardJudge:
    """One reward of a reward's class, in float32.

    Args:
        name: of the reward.
        weights: of its class.
        device: where it computes.
    """

    def __init__(self, name: str, weights: Weights, device: str) -> None:
        self._name, self._device = name, device
        self._reward = get_reward(name).from_pretrained(weights, dtype=torch.float32).to(device)

    @torch.no_grad()
    def score(
        self, images: Sequence[Image], references: Sequence[Image], texts: Sequence[str]
    ) -> list[float]:
        """See ``ViewJudge.score``."""
        asked = list(zip(map(id, references), texts, strict=True))
        places = {pair: place for place, pair in enumerate(dict.fromkeys(asked))}
        firsts = [asked.index(pair) for pair in places]  # a context's candidates share their row
        targets = self._reward.targets([references[i] for i in firsts], [texts[i] for i in firsts])
        scores = torch.empty(len(images), dtype=torch.float64)
        for rows, pixels_BCHW in _same_sizes(images):
            own = {n: rows_of[[places[asked[i]] for i in rows]] for n, rows_of in targets.items()}
            found = self._reward(pixels_BCHW.to(self._device), own)[self._name]
            scores[rows] = found.double().cpu()
        return scores.tolist()


def _same_sizes(images: Sequence[Image]) -> Iterator[tuple[list[int], Tensor]]:
    """Images that fit into one tensor, in [0, 1], with their places."""
    from torchvision.transforms.functional import pil_to_tensor

    by_size: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(image.size, []).append(place)
    for places in by_size.values():
        rows = [pil_to_tensor(images[place].convert("RGB")) for place in places]
        yield places, torch.stack(rows).float() / 255
