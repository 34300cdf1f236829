"""The augmenter: an image and a question in, faithful and different images out. Read this first.

    image x, question g ── describe ──► context description C ── generate ──► views x̂₁ … x̂ₙ
                           (describe/)                            (generators/)

Every description and every view is looked up in the store first (store/). Its key is known
before a model is loaded (views/plan.py), so a call that was made before imports no torch. What is
missing is made in batches, each kept as soon as it is made (store/fill.py).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, SupportsIndex

from hb_tta.context import MultimodalContext, check_task, evaluation_contexts
from hb_tta.describe import DescriberSpec
from hb_tta.device import default_device, default_dtype
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import Family, get_family
from hb_tta.generators import ALIASES, DEFAULT, Default, build_spec, get_method, used_settings
from hb_tta.images import load_image
from hb_tta.store import Store
from hb_tta.store.fill import MemoryStore
from hb_tta.views.make import SHORTENED, TRIES, VANISHED, WORDLESS, Maker
from hb_tta.views.models import Models
from hb_tta.views.plan import Item, plan
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.generators import GeneratorSpec

Source = str | PathLike[str] | Weights

OFFERED = ("base", "image_encoder", "lora", "num_inference_steps", "guidance_scale")
"""Settings that many methods have: of one that has no use for them a warning says so."""


@dataclass(frozen=True)
class Augmentation:
    """What one context gives.

    Attributes:
        views: the generated images, RGB; exactly what the store keeps.
        seeds: one a view.
        description: the context description that the generator was given, shortened to its text
            encoders' window where it had to be; ``None`` for a method that needs none.
        spec: ``{"generator": …, "describer": …}``, plain JSON that names everything that decided
            the views; the describer is ``None`` where it had no part.
        keys: the views' keys in the store's namespace "views".
        warnings: what was shortened or is missing, a sentence each.
    """

    views: list[Image]
    seeds: list[int]
    description: str | None
    spec: dict[str, Any]
    keys: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Augmenter:
    """Generates views of images: ``augmenter(image, question, n=4)`` for one, ``augment`` for many.

        augmenter = Augmenter.from_pretrained("hummingbird", family="pocket")
        views = augmenter(image, "Is there a red circle left of the square?", n=4, seed=0)

    Models are loaded when a call needs them. The same view is never generated twice: not in
    another call, not by another process on the same store. Ctrl-C loses the batch in work alone.

    Args:
        generator: the spec of the method, from ``get_method(name)``.
        describer: who writes the descriptions; ``None``: every context must come with one.
        store: a ``Store`` or its folder; ``None``: the default one; ``False``: keep nothing
            after the call.
        task: of ``augmenter(image, question)``; the contexts of ``augment`` have their own.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size: views a call of the generator, and kept at once; ``None``: what suits it.
        cpu_offload: keep each part of the pipeline on the GPU only while it works.
        keep_loaded: whether describer and generator stay on the device together; ``None``: on a
            CPU and on a GPU of 40 GiB or more (LLaVA 7B and SDXL in bf16 with room to work).
    """

    def __init__(
        self,
        generator: GeneratorSpec,
        describer: DescriberSpec | None = None,
        *,
        store: Store | str | PathLike[str] | bool | None = None,
        task: str = "vqa",
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
    ) -> None:
        check_task(task)
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: use 1 or more")
        self.task = task
        self.store = _open(store)
        self.generator_spec = generator
        self.describer_spec = describer if generator.needs_description else None
        self._batch_size = batch_size
        self._models = Models(
            generator,
            self.describer_spec,
            device=device,
            batch_size=batch_size,
            cpu_offload=cpu_offload,
            keep_loaded=keep_loaded,
        )

    @classmethod
    def from_pretrained(
        cls,
        method: str,
        *,
        family: str | Family = "sdxl",
        describer: Source | DescriberSpec | Default | None = DEFAULT,
        device: str | None = None,
        dtype: str | None = None,
        store: Store | str | PathLike[str] | bool | None = None,
        task: str = "vqa",
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
        **settings: Any,
    ) -> Augmenter:
        """An augmenter from a method's name and a family of models. Loads no model yet.

        Args:
            method: "hummingbird", "i2t2i", "randaugment" or another of ``list_methods()``.
            family: "sdxl" (hub weights, the paper's scale) or "pocket" (bundled, CPU).
            describer: a folder or hub id in place of the family's. ``None``: every context must
                come with its description; a ``DescriberSpec`` sets the description's length too.
            dtype: "float32", "bfloat16" or "float16"; ``None``: float32 on a CPU, bfloat16 on a
                GPU.
            device, store, task, batch_size, cpu_offload, keep_loaded: see the class.
            settings: the method's own, by the names of its spec's fields (`hb-tta list` tells
                them): ``lora=None`` for the untuned generator, ``base=`` a folder or hub id,
                ``steps=``, ``guidance=``, ``magnitude=``, …

        Raises:
            UserError: a name is unknown (the sentence lists the choices), weights are missing, or
                a setting is out of range. A setting that other methods have and this one ignores
                gives a warning.
        """
        models = get_family(family)
        dtype = dtype or default_dtype(device or default_device())
        offered = {n: value for n, value in settings.items() if ALIASES.get(n, n) in OFFERED}
        own = {name: value for name, value in settings.items() if name not in offered}
        own |= used_settings(get_method(method), offered)
        spec = build_spec(method, models, own, dtype=dtype)
        if not spec.needs_description and not isinstance(describer, Default | None):
            warnings.warn(
                f"{method} needs no description: the describer is ignored",
                HbTtaWarning,
                stacklevel=2,
            )
        return cls(
            spec,
            _describer_spec(describer, models, dtype) if spec.needs_description else None,
            store=store,
            task=task,
            device=device,
            batch_size=batch_size,
            cpu_offload=cpu_offload,
            keep_loaded=keep_loaded,
        )

    @property
    def spec(self) -> dict[str, Any]:
        """Plain JSON that names everything that decides the views: ``Augmentation.spec``.

        Raises:
            UserError: the describer's weights are missing.
        """
        return {
            "generator": self._models.generator_json,
            "describer": self._models.describer_json,
        }

    def __call__(self, image: Any, question: str = "", n: int = 4, seed: int = 0) -> list[Image]:
        """``n`` generated views of an image; view ``i`` uses ``seed + i``.

        Args:
            image: a Pillow image, a path, or the bytes of an image file.
            question: the text guidance g, in any script; instructions on how to answer it are
                taken off.

        Returns:
            RGB images.

        Raises:
            UserError: see ``augment``.
        """
        context = MultimodalContext(image, question, self.task)
        return self.augment([context], n=n, seed=seed)[0].views

    def augment(
        self, contexts: Sequence[Any], n: int = 4, seed: int = 0, *, progress: bool | None = None
    ) -> list[Augmentation]:
        """Views of many contexts, batched across them. See ``iter_augment``."""
        return list(self.iter_augment(contexts, n, seed, progress=progress))

    def iter_augment(
        self, contexts: Sequence[Any], n: int = 4, seed: int = 0, *, progress: bool | None = None
    ) -> Iterator[Augmentation]:
        """Views of many contexts: all are made first, then handed out one context at a time.

        Args:
            contexts: ``MultimodalContext``s, or ``DescribedContext``s (a plain (image,
                description) pair will do) to say what the generator is told. Images as in
                ``__call__``; of paths only those in work are in memory.
            n: views a context, at least 1.
            seed: view ``i`` of every context uses ``seed + i``; at least 0.
            progress: show progress bars; ``None``: where there is much to do, in a terminal.

        Returns:
            One ``Augmentation`` a context, in order; their images are decoded as they are asked
            for.

        Raises:
            UserError: an image cannot be read, a context carries its ground truth, a model cannot
                be loaded, the store cannot be written.
        """
        items = self._plan(contexts, n, seed)
        store = MemoryStore() if self.store is None else self.store
        maker = Maker(self._models, store, batch_size=self._batch_size, progress=progress)
        maker.make(items)
        return (self._assemble(item, maker, store) for item in items)

    def view_keys(self, contexts: Sequence[Any], n: int = 4, seed: int = 0) -> list[list[str]]:
        """The keys under which the store keeps, or will keep, the views of ``augment``.

        Nothing is made and no model is loaded. See ``iter_augment`` for the arguments.
        """
        return [list(item.view_keys) for item in self._plan(contexts, n, seed)]

    def unload(self) -> None:
        """Frees the device; the next call that needs a model loads it again."""
        self._models.unload()

    def _plan(self, contexts: Sequence[Any], n: int, seed: int) -> list[Item]:
        described = evaluation_contexts(contexts)
        to_describe = self.generator_spec.needs_description and any(
            context.description is None for context in described
        )
        return plan(
            described,
            _seeds(n, seed),
            generator=self._models.generator_json,
            needs_description=self.generator_spec.needs_description,
            describer=self._models.describer_json if to_describe else None,
        )

    def _assemble(self, item: Item, maker: Maker, store: Store | MemoryStore) -> Augmentation:
        payloads = _payloads(item, maker, store)
        meta = store.manifest("views", item.view_keys[0]) or {}
        notes = list(item.warnings)
        if meta.get("shortened"):
            notes.append(SHORTENED)
        if item.description_key and not meta.get("description"):
            notes.append(WORDLESS)
        return Augmentation(
            views=[load_image(payload) for payload in payloads],
            seeds=list(item.seeds),
            description=meta.get("description"),
            spec={
                "generator": self._models.generator_json,
                "describer": self._models.describer_json if item.description_key else None,
            },
            keys=list(item.view_keys),
            warnings=notes,
        )


def _payloads(item: Item, maker: Maker, store: Store | MemoryStore) -> list[bytes]:
    """The PNG bytes of an item's views, made again if somebody removed them meanwhile."""
    for _ in range(TRIES):
        payloads = [store.get("views", key) for key in item.view_keys]
        whole = [payload for payload in payloads if payload is not None]
        if len(whole) == len(payloads):
            return whole
        maker.make([item])
    raise UserError(VANISHED)


def _seeds(n: SupportsIndex, seed: SupportsIndex) -> range:
    """The views' seeds, checked."""
    number, first = _whole("n", n), _whole("seed", seed)
    if number < 1:
        raise UserError(f"n={number} views are none: use 1 or more")
    if not 0 <= first <= 2**63 - number:
        raise UserError(f"seed={first} is out of range: use 0 to 2**63 - n")
    return range(first, first + number)


def _whole(name: str, value: SupportsIndex) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise UserError(f"{name}={value!r} is no whole number: give an int")


def _open(store: Store | str | PathLike[str] | bool | None) -> Store | None:
    if store is False:
        return None
    if store is None or store is True:
        return Store()
    return store if isinstance(store, Store) else Store(store)


def _describer_spec(
    describer: Source | DescriberSpec | Default | None, family: Family, dtype: str
) -> DescriberSpec | None:
    if describer is None or isinstance(describer, DescriberSpec):
        return describer
    if isinstance(describer, Default):
        return DescriberSpec(family.weights("mllm"), dtype=dtype)
    return DescriberSpec(as_weights(describer), dtype=dtype)
