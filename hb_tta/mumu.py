"""MUMU: prompts of words and pictures in, images out (Berman & Peysakhovich, 2024).

    from hb_tta import Mumu
    mumu = Mumu.from_pretrained("my-mumu")
    images = mumu(["a", man, "man and his", dog, "dog"], n=4, seed=0)

An image is looked up in the store first; its key is made of the prompt's words, the pixels of its
pictures, the models and their settings, and the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any

from hb_tta.augment import Augmentation, named_store
from hb_tta.context import MOST_VIEWS
from hb_tta.device import default_device, default_dtype
from hb_tta.errors import UserError
from hb_tta.families import Family, get_family, list_families
from hb_tta.generators.mumu.folder import read_index
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.generators.mumu.spec import PromptSpec
from hb_tta.generators.settings import spec_from_family
from hb_tta.store import AnyStore, MemoryStore, NewEntry, Store
from hb_tta.views.encode import encoded
from hb_tta.views.fills import bar, have
from hb_tta.views.make import VIEWS_PER_BATCH
from hb_tta.views.models import Models
from hb_tta.views.plan import prompt_key
from hb_tta.views.seeds import first_seeds, whole
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE = "<image>"
"""What stands for a picture where a prompt is told."""

Source = str | PathLike[str] | Weights


class Mumu:
    """Makes images of prompts: ``mumu(prompt, n=4)`` for one, ``iter_draw`` for many.

    Models are loaded when a call needs them.

    Args:
        spec: from ``PromptSpec.from_family`` or by hand.
        store: a ``Store`` or its folder; ``None``: the default one; ``False``: keep nothing.
        device, batch_size, cpu_offload, deterministic: see ``Augmenter``.

    Raises:
        UserError: weights are missing.
    """

    def __init__(
        self,
        spec: PromptSpec,
        *,
        store: Store | str | PathLike[str] | bool | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        deterministic: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: use 1 or more")
        self.spec = spec
        self.store = named_store(store)
        self._batch_size = 1 if deterministic else batch_size or VIEWS_PER_BATCH
        self._models = Models(
            spec,
            None,
            device=device,
            batch_size=1 if deterministic else batch_size,
            cpu_offload=cpu_offload,
            deterministic=deterministic,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: Source | Family,
        *,
        generator: Source | None = None,
        device: str | None = None,
        dtype: str | None = None,
        store: Store | str | PathLike[str] | bool | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        deterministic: bool = False,
        **settings: Any,
    ) -> Mumu:
        """A MUMU by the name of a family, or from what a training wrote. Loads no model yet.

        Args:
            source: "pocket", "sdxl" or another family that has the role; or a folder or hub id
                with a ``mumu.json``.
            generator: the Stable Diffusion XL to draw with, a fine-tune for example; ``None``: the
                one that it was trained on.
            device, dtype, store, batch_size, cpu_offload, deterministic: see ``Augmenter``.
            **settings: ``tokens`` an image, ``image_scale``, ``steps``, ``guidance``, ``height``,
                ``width``, ``vlm``: fields of ``PromptSpec``.

        Raises:
            UserError: weights are missing, or a setting is unknown or out of range.
        """
        family = _family(source)
        if generator is not None:
            settings["base"] = as_weights(generator)
        dtype = dtype or default_dtype(device or default_device())
        return cls(
            spec_from_family(PromptSpec, family, settings, dtype),
            store=store,
            device=device,
            batch_size=batch_size,
            cpu_offload=cpu_offload,
            deterministic=deterministic,
        )

    def __call__(
        self, prompt: Prompt | str | Sequence[Any], n: int = 4, seed: int = 0
    ) -> list[Image]:
        """``n`` images of a prompt; image ``i`` uses ``seed + i``.

        Args:
            prompt: strings and images in the order of reading, at most four images, each before
                the word that it shows: ``["a", man, "man"]``; or one text with its images' files in
                it: ``"a <img:man.png> man"``.

        Returns:
            RGB images.

        Raises:
            UserError: see ``iter_draw``.
        """
        return next(self.iter_draw([prompt], n, seed)).views

    def iter_draw(
        self,
        prompts: Iterable[Prompt | str | Sequence[Any]],
        n: int = 4,
        seed: int = 0,
        *,
        progress: bool | None = None,
    ) -> Iterator[Augmentation]:
        """Images of many prompts, handed out a batch after the other.

        Args:
            prompts: see ``__call__``.
            n: images a prompt, at least 1.
            seed: image ``i`` of every prompt uses ``seed + i``; at least 0.
            progress: tell how far it is; ``None``: where there is more than one batch.

        Returns:
            One ``Augmentation`` a prompt, in order; its description is the prompt with
            ``<image>`` for every picture.

        Raises:
            UserError: a prompt is none, an image cannot be read, a model cannot be loaded, or the
                store cannot be written.
        """
        number = whole("n", n)
        if not 1 <= number <= MOST_VIEWS:
            raise UserError(f"n={number} is no number of images: use 1 to {MOST_VIEWS}")
        return self._drawn(prompts, first_seeds(seed, number), progress)

    def unload(self) -> None:
        """Frees the device; the next call that needs a model loads it again."""
        self._models.unload()

    def _drawn(
        self, prompts: Iterable[Any], seeds: Sequence[int], progress: bool | None
    ) -> Iterator[Augmentation]:
        store = MemoryStore() if self.store is None else self.store
        total = len(prompts) * len(seeds) if isinstance(prompts, Sequence) else None
        rest = map(Prompt.of, prompts)
        with bar("generating", "image", total, self._batch_size, progress) as shown:
            while some := list(islice(rest, max(1, self._batch_size // len(seeds)))):
                yield from self._some(store, some, seeds)
                shown.update(len(some) * len(seeds))

    def _some(
        self, store: AnyStore, prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> Iterator[Augmentation]:
        generator = self._models.generator_json
        keys = [[prompt_key(p.to_json(), generator, seed) for seed in seeds] for p in prompts]
        wanted = {
            key: (prompt, seed)
            for prompt, its in zip(prompts, keys, strict=True)
            for key, seed in zip(its, seeds, strict=True)
        }
        files: dict[str, bytes] = {}
        have(
            store,
            "views",
            wanted,
            lambda payload: payload,
            lambda some: self._made([(key, *wanted[key]) for key in some]),
            files,
            refused=(),
            job=("generating", "image"),
            batch_size=self._batch_size,
            progress=False,
        )
        for prompt, its in zip(prompts, keys, strict=True):
            yield Augmentation(
                files=[files[key] for key in its],
                seeds=list(seeds),
                description=prompt.written(IMAGE),
                spec={"generator": generator, "describer": None},
                keys=its,
            )

    def _made(self, asked: Sequence[tuple[str, Prompt, int]]) -> Iterator[NewEntry]:
        """The entries of one batch: (key, prompt, seed) each."""
        prompts = list({id(prompt): prompt for _, prompt, _ in asked}.values())
        places = {id(prompt): place for place, prompt in enumerate(prompts)}
        seeds: list[list[int]] = [[] for _ in prompts]
        for _, prompt, seed in asked:
            seeds[places[id(prompt)]].append(seed)
        made = [iter(its) for its in self._models.generate(prompts, seeds)]
        images = [next(made[places[id(prompt)]]) for _, prompt, _ in asked]
        with ThreadPoolExecutor() as pool:  # zlib works outside Python's lock
            for (key, prompt, seed), png in zip(asked, pool.map(encoded, images), strict=True):
                yield NewEntry(key, png, self._about(prompt, seed))

    def _about(self, prompt: Prompt, seed: int) -> dict[str, Any]:
        """What people find beside an image."""
        about = {"prompt": prompt.to_json(), "generator": self._models.generator_json}
        return {**about, "seed": seed}


def _family(source: Source | Family) -> Family:
    """The family of that name; or that of a folder's base, with the folder in its role."""
    if isinstance(source, Family) or source in list_families():
        return get_family(source)
    mumu = as_weights(source)
    base = read_index(mumu).generator
    if base in list_families():
        return get_family(base).with_roles(mumu=mumu)
    return get_family("sdxl").with_roles(mumu=mumu, generator=base)
