"""TDA (Karmanov et al. 2024): a stream of images, and a cache of the confident ones among them.

Nothing is trained. Two caches hold, for each class that was predicted, the features of the images
that were least unsure of it: the positive one adds to a class what looks like its entries, the
negative one takes off what looks like images of middling entropy whose probability of it is not
small. What an image is answered with depends on those before it: the order and the part of a data
set that one process sees decide the figures, and both belong into a key.

C classes, V views (the first one the real image), S entries a class, D dimensions of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hb_tta.errors import UserError
from hb_tta.tpt.filters import check_shares, view_entropy

SELECTION = 0.1
"""The most confident share of an image's views, whose means stand for it."""
ORDERS = (0, 1, 2)
"""Seeds of the orders that are reported: one order's figure is one draw."""


@dataclass(frozen=True)
class Cache:
    """A cache's settings; the defaults below are the authors' for ImageNet.

    Attributes:
        shots: entries a class at most.
        alpha: how much the cache counts.
        beta: how fast likeness falls off.
        entropy: of an image's share of the largest entropy, open ends: others do not enter.
        mask: of the probabilities that count in an entry, open ends; None: its predicted class
            counts, as 1.
    """

    shots: int
    alpha: float
    beta: float
    entropy: tuple[float, float] | None = None
    mask: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise UserError(f"a cache of {self.shots} entries a class holds nothing: use 1 or more")


POSITIVE = Cache(shots=3, alpha=2.0, beta=5.0)
NEGATIVE = Cache(shots=2, alpha=0.117, beta=1.0, entropy=(0.2, 0.5), mask=(0.03, 1.0))


class TDA:
    """Answers one image a call, in the order of the stream, and remembers.

        tda = TDA(text_CD)
        for features_VD in stream:
            logits_C = tda(features_VD)

    Args:
        text_CD: text features of length 1.
        logit_scale: the factor of a cosine in a logit.
        selection: the share of an image's views that stand for it; at least one does.
        positive, negative: the caches; None: without it.

    Raises:
        UserError: the share is out of range.
    """

    def __init__(
        self,
        text_CD: Tensor,
        logit_scale: float = 100.0,
        *,
        selection: float = SELECTION,
        positive: Cache | None = POSITIVE,
        negative: Cache | None = NEGATIVE,
    ) -> None:
        check_shares(selection)
        self._text_CD, self._scale = text_CD.float(), float(logit_scale)
        self._selection = selection
        self._positive = positive and _Entries(positive, *text_CD.shape)
        self._negative = negative and _Entries(negative, *text_CD.shape)

    @torch.no_grad()
    def __call__(self, features_VD: Tensor) -> Tensor:
        """Logits (C,) of the next image, from its views' features (V, D) of length 1."""
        seen = self._seen(features_VD.float())
        logits_C = seen.logits_C.clone()
        if self._positive is not None:
            self._positive.take(seen)
            logits_C += self._positive.logits(seen.feature_D)
        if self._negative is not None:
            self._negative.take(seen)
            logits_C -= self._negative.logits(seen.feature_D)
        return logits_C

    def _seen(self, features_VD: Tensor) -> _Seen:
        """The image as its most confident views have it, in the mean."""
        logits_VC = self._scale * features_VD @ self._text_CD.T
        kept = max(1, int(len(features_VD) * self._selection))
        chosen = view_entropy(logits_VC).argsort(stable=True)[:kept]
        logits_C, chances_C = logits_VC[chosen].mean(0), logits_VC[chosen].softmax(-1).mean(0)
        # Of the mean probabilities (TPT's equation 2), as a sum of logarithms.
        log_C = logits_VC[chosen].log_softmax(-1).logsumexp(0) - math.log(kept)
        log_C = log_C.clamp(min=torch.finfo(log_C.dtype).min)
        entropy = float(-(log_C * log_C.exp()).sum())
        return _Seen(
            features_VD[chosen].mean(0), logits_C, chances_C, entropy, int(logits_C.argmax())
        )


@dataclass(frozen=True)
class _Seen:
    """What is kept of an image: its feature, logits, probabilities, entropy, predicted class."""

    feature_D: Tensor
    logits_C: Tensor
    chances_C: Tensor
    entropy: float
    predicted: int


class _Entries:
    """A cache's entries: of each class the least unsure images that were taken for it."""

    def __init__(self, cache: Cache, classes: int, size: int) -> None:
        self._cache = cache
        self._keys_CSD = torch.zeros(classes, cache.shots, size)
        self._values_CSC = torch.zeros(classes, cache.shots, classes, dtype=torch.bool)
        self._entropy_CS = torch.full((classes, cache.shots), math.inf)

    def take(self, seen: _Seen) -> None:
        """Let an image in, in the place of the least sure one where its class is full."""
        cache, classes = self._cache, len(self._keys_CSD)
        share = seen.entropy / math.log2(classes)  # the authors' bits under nats, as they are
        if cache.entropy is not None and not cache.entropy[0] < share < cache.entropy[1]:
            return
        entropies_S = self._entropy_CS[seen.predicted]
        place = int(entropies_S.argmax())  # an empty one is the least sure of all
        if not seen.entropy < entropies_S[place]:
            return
        entropies_S[place] = seen.entropy
        self._keys_CSD[seen.predicted, place] = seen.feature_D
        self._values_CSC[seen.predicted, place] = self._value(seen)

    def logits(self, feature_D: Tensor) -> Tensor:
        """(C,) what the entries that are like an image say."""
        likeness_CS = torch.exp(-self._cache.beta * (1 - self._keys_CSD @ feature_D))
        likeness_CS = torch.where(self._entropy_CS.isfinite(), likeness_CS, 0.0)
        values_NC = self._values_CSC.flatten(0, 1)
        used_N = likeness_CS.flatten().nonzero()[:, 0]
        return self._cache.alpha * likeness_CS.flatten()[used_N] @ values_NC[used_N].float()

    def _value(self, seen: _Seen) -> Tensor:
        if self._cache.mask is not None:
            low, high = self._cache.mask
            return (seen.chances_C > low) & (seen.chances_C < high)
        value_C = torch.zeros(len(seen.chances_C), dtype=torch.bool)
        value_C[seen.predicted] = True
        return value_C


# ── A whole stream ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Stream:
    """How a whole task is gone through.

    Attributes:
        seed: of the order, a shuffle of the images that this process has.
        selection: see ``TDA``.
        positive, negative: the caches.
    """

    seed: int = 0
    selection: float = SELECTION
    positive: Cache | None = field(default=POSITIVE)
    negative: Cache | None = field(default=NEGATIVE)

    def order(self, images: int) -> list[int]:
        """The places of the images in the order in which they come."""
        return np.random.default_rng(self.seed).permutation(images).tolist()

    def to_json(self) -> dict[str, Any]:
        """All that decides the answers beside the images, for a key."""
        return asdict(self)

    def chances(self, text_CD: Tensor, logit_scale: float, images: Sequence[Tensor]) -> Tensor:
        """Probabilities (N, C) of the images, each with its own views (V, D), in their places."""
        tda = TDA(
            text_CD,
            logit_scale,
            selection=self.selection,
            positive=self.positive,
            negative=self.negative,
        )
        found = torch.empty(len(images), len(text_CD))
        for place in self.order(len(images)):
            found[place] = tda(images[place]).softmax(-1)
        return found
