"""The views of an image: itself, its crops, generated ones, in this order; and their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

from hb_tta.augment import Augmenter
from hb_tta.context import MultimodalContext
from hb_tta.device import enough_memory
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.store import AnyStore
from hb_tta.store.features import cached_tensors, image_identities
from hb_tta.tpt.models import Clip

FORMAT = 1
"""Counts the changes of what a key or an entry means."""

_VIEWS_AT_ONCE = 256  # pixels in memory: 150 MB at 224×224


class ViewRequest(NamedTuple):
    """An image and what the describer is told of it. No label has a place here."""

    image: Path | Image
    guidance: str = ""
    task: str = "object"


def crop_views(image: Image, size: int, n: int, seed: int = 0) -> list[Image]:
    """TPT's views of an image: ``RandomResizedCrop`` with torchvision's defaults, and flips.

    Args:
        image: RGB.
        size: of the crops, in pixels.
        n: how many; crop ``i`` uses ``seed + i``.
    """
    crop = Compose([RandomResizedCrop(size), RandomHorizontalFlip()])
    views = []
    for index in range(n):
        # torchvision draws from torch's global CPU generator: seed it, then put it back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + index)
            views.append(crop(image))
    return views


def feature_request(
    identities: Sequence[str],
    told: Sequence[Sequence[str]],
    *,
    clip: dict[str, str],
    crops: int,
    generated: dict[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """Plain JSON that decides the features of images; its ``content_key`` is theirs.

    Args:
        identities: see ``image_identities``.
        told: guidance and task of each, where there are generated views.
        clip: ``Clip.identity``.
        generated: how many views by whom; None: there are none.
        seed: of the first crop and of the first generated view.
    """
    return {
        "entry": "view features",
        "format": FORMAT,
        "clip": clip,
        "crops": crops,
        "generated": generated,
        "seed": seed,
        "images": [[identity, *its] for identity, its in zip(identities, told, strict=True)],
    }


class ViewFeatures:
    """Features of images and their views, encoded once and kept in the store.

    Args:
        clip: encodes them.
        store: where features are kept; the augmenter has its own for the views.
        augmenter: makes the generated views; None: there are none.
        generated: how many an image.
        crops: how many random crops an image.
        seed: of the first crop and of the first generated view.
    """

    def __init__(
        self,
        clip: Clip,
        store: AnyStore,
        *,
        augmenter: Augmenter | None = None,
        generated: int = 0,
        crops: int = 0,
        seed: int = 0,
    ) -> None:
        if generated < 0 or crops < 0:
            raise UserError(f"{min(generated, crops)} views are out of range: use 0 or more")
        self.clip, self.store = clip, store
        self.augmenter = augmenter if generated else None
        self.generated = generated if augmenter else 0
        self.crops, self.seed = crops, seed

    @property
    def views(self) -> int:
        """How many an image has, with itself."""
        return 1 + self.crops + self.generated

    def real_only(self) -> ViewFeatures:
        """The same without crops and generated views."""
        return ViewFeatures(self.clip, self.store)

    def without_generated(self) -> ViewFeatures:
        """The same with the crops alone."""
        return ViewFeatures(self.clip, self.store, crops=self.crops, seed=self.seed)

    def request(self, images: Sequence[ViewRequest]) -> dict[str, Any]:
        """Plain JSON that decides the features of these images."""
        return feature_request(
            image_identities(image.image for image in images),
            [[image.guidance, image.task] if self.augmenter else [] for image in images],
            clip=self.clip.identity,
            crops=self.crops,
            generated=self._generator_json(),
            seed=self.seed if self.views > 1 else 0,
        )

    def features(self, images: Sequence[ViewRequest]) -> Tensor:
        """(B, V, D) features of length 1, on the CPU.

        Where an image has fewer generated views than others, the image itself is in their place.

        Raises:
            UserError: an image cannot be read, a view cannot be made, memory does not suffice.
        """
        return self.features_and_shown(images)[0]

    def features_and_shown(self, images: Sequence[ViewRequest]) -> tuple[Tensor, Tensor]:
        """``features``, and how many generated views each image has: (B,)."""
        made = cached_tensors(self.store, self.request(images), lambda: self._encode(images))
        every = torch.full((len(images),), self.generated)
        return made["features"], made.get("shown", every)

    def _generator_json(self) -> dict[str, Any] | None:
        if self.augmenter is None:
            return None
        return {"n": self.generated, **self.augmenter.spec}

    def _encode(self, images: Sequence[ViewRequest]) -> dict[str, Tensor]:
        generated: list[list[Image]] = [[] for _ in images]
        if self.augmenter is not None:
            contexts = [MultimodalContext(i.image, i.guidance, i.task) for i in images]  # type: ignore[arg-type]
            made = self.augmenter.augment(contexts, n=self.generated, seed=self.seed)
            generated = [augmentation.views for augmentation in made]
        shown = torch.tensor([len(its) for its in generated])
        encoder = self.clip.encoder
        at_once = max(1, _VIEWS_AT_ONCE // self.views)
        parts = []
        for start in range(0, len(images), at_once):
            rows = slice(start, start + at_once)
            with enough_memory(f"{self.views} views of an image", "use fewer views or crops"):
                pixels = [
                    self._pixels(load_image(image.image), its)
                    for image, its in zip(images[rows], generated[rows], strict=True)
                ]
                parts.append(encoder.encode_images(torch.stack(pixels)).cpu())
        return {"features": torch.cat(parts), "shown": shown}

    def _pixels(self, image: Image, generated: list[Image]) -> Tensor:
        size = self.clip.image_size
        missing = [image] * (self.generated - len(generated))
        views = [image, *crop_views(image, size, self.crops, self.seed), *generated, *missing]
        return torch.stack([self.clip.preprocess(view) for view in views])
