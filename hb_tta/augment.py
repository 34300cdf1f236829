"""The augmenter: an image and a question in, faithful and different images out. Read this first.

    image x, question g ── describe ──► context description C ── generate ──► views x̂₁ … x̂ₙ
                           (describe/)                            (generators/)

Every description and every view is looked up in the store first (store/). Their keys are known
before a model is loaded (views/plan.py), so a call that was made before imports no torch. What is
missing is made in batches (views/make.py), each kept as soon as it is made (store/fill.py), and a
context is handed out as soon as its views are there.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, SupportsIndex

from hb_tta.context import (
    DescribedContext,
    MultimodalContext,
    check_task,
    evaluation_context,
    evaluation_contexts,
)
from hb_tta.describe import DescriberSpec
from hb_tta.device import default_device, default_dtype
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import Family, get_family
from hb_tta.generators import ALIASES, DEFAULT, Default, build_spec, get_method, used_settings
from hb_tta.images import PixelDigests, load_image
from hb_tta.store import MemoryStore, Store
from hb_tta.views.make import SHORTENED, WORDLESS, Stored, ViewMaker, bar
from hb_tta.views.models import Models
from hb_tta.views.plan import FIRST_WINDOW, PlannedContext, PlannedViews, Planner, windows
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
        pngs: the generated images as PNG files; exactly the bytes that the store keeps.
        seeds: one a view.
        description: the context description that the generator was given, shortened to its text
            encoders' window where it had to be; ``None`` for a method that needs none.
        spec: ``{"generator": …, "describer": …}``, plain JSON that names everything that decided
            the views; the describer is ``None`` where it had no part.
        keys: the views' keys in the store's namespace "views".
        warnings: what was shortened or is missing, a sentence each.
    """

    pngs: list[bytes] = field(repr=False)
    seeds: list[int]
    description: str | None
    spec: dict[str, Any]
    keys: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def views(self) -> list[Image]:
        """The generated images, RGB, decoded when they are first asked for."""
        return [load_image(png) for png in self.pngs]


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
        self, contexts: Iterable[Any], n: int = 4, seed: int = 0, *, progress: bool | None = None
    ) -> list[Augmentation]:
        """Views of many contexts, batched across them. See ``iter_augment``."""
        return list(self.iter_augment(contexts, n, seed, progress=progress))

    def iter_augment(
        self, contexts: Iterable[Any], n: int = 4, seed: int = 0, *, progress: bool | None = None
    ) -> Iterator[Augmentation]:
        """Views of many contexts, each handed out as soon as its views are there.

        Contexts are planned, described and given views in growing windows: the first views come
        after the first batch, and no more than a window is in memory. What is not asked for is
        not made.

        Args:
            contexts: ``MultimodalContext``s, or ``DescribedContext``s (a plain (image,
                description) pair will do) to say what the generator is told. Images as in
                ``__call__``; of paths only those in work are in memory. A sequence is checked
                before anything is made, another iterable as it is read.
            n: views a context, at least 1.
            seed: view ``i`` of every context uses ``seed + i``; at least 0.
            progress: show progress bars; ``None``: where there is much to do, in a terminal.

        Returns:
            One ``Augmentation`` a context, in order.

        Raises:
            UserError: an image cannot be read, a context carries its ground truth, a model cannot
                be loaded, the store cannot be written.
        """
        return self._handed_out(_checked(contexts), _seeds(n, seed), progress)

    def make(
        self, contexts: Sequence[Any], n: int = 4, seed: int = 0, *, progress: bool | None = None
    ) -> None:
        """Have the store hold the views of ``augment``, and hand out none.

        For who needs the device afterwards. See ``iter_augment`` for the arguments.
        """
        if self.store is None:
            raise UserError("an augmenter with store=False keeps nothing: give it a store")
        maker = self._maker(self.store, progress)
        for plans in self._planned(_checked(contexts), _seeds(n, seed), maker, progress):
            maker.make(plans)

    def view_keys(
        self, contexts: Sequence[Any], n: int = 4, seed: int = 0
    ) -> list[list[str] | None]:
        """The keys under which the store keeps, or will keep, the views of ``augment``.

        None for a context whose description is still to be written: its views' keys follow from
        it. Nothing is made and no model is loaded. See ``iter_augment`` for the arguments.
        """
        planner, seeds = self._planner(PixelDigests()), _seeds(n, seed)
        planned = [planner.context(context, i) for i, context in enumerate(_checked(contexts))]
        texts: dict[str, str] = {}
        keys = {context.description_key: None for context in planned if context.description_key}
        self._maker(self._store(), False).read_descriptions(keys, texts)
        return [
            None
            if context.description_key and context.description_key not in texts
            else list(planner.views(context, _told(context, texts), seeds).keys)
            for context in planned
        ]

    def descriptions(
        self, contexts: Iterable[Any], *, progress: bool | None = None
    ) -> list[str | None]:
        """What the generator would be told of contexts; no view is made.

        None for each where the method needs none. See ``iter_augment`` for the arguments.
        """
        planner, maker = self._planner(PixelDigests()), self._maker(self._store(), progress)
        found: list[str | None] = []
        for window in windows(enumerate(_checked(contexts))):
            planned = [planner.context(context, number) for number, context in window]
            texts = maker.descriptions(planned)
            found += [_told(context, texts) for context in planned]
        return found

    def unload(self) -> None:
        """Frees the device; the next call that needs a model loads it again."""
        self._models.unload()

    def _handed_out(
        self, contexts: Iterable[DescribedContext], seeds: range, progress: bool | None
    ) -> Iterator[Augmentation]:
        maker = self._maker(self._store(), progress)
        for plans in self._planned(contexts, seeds, maker, progress):
            for plan, stored in maker.views(plans):
                yield self._augmentation(plan, stored)

    def _planned(
        self,
        contexts: Iterable[DescribedContext],
        seeds: range,
        maker: ViewMaker,
        progress: bool | None,
    ) -> Iterator[list[PlannedViews]]:
        """A window after the other, its descriptions written."""
        digests = PixelDigests()
        planner = self._planner(digests)
        total = operator.length_hint(contexts) or None
        try:
            with bar("planning", "image", total, FIRST_WINDOW, progress) as shown:
                for window in windows(enumerate(contexts)):
                    planned = []
                    for number, context in window:
                        planned.append(planner.context(context, number))
                        shown.update()
                    texts = maker.descriptions(planned)
                    yield [planner.views(each, _told(each, texts), seeds) for each in planned]
        finally:
            digests.save()

    def _planner(self, digests: PixelDigests) -> Planner:
        needs = self.generator_spec.needs_description
        return Planner(self._models, needs_description=needs, digests=digests)

    def _maker(self, store: Store | MemoryStore, progress: bool | None) -> ViewMaker:
        return ViewMaker(self._models, store, batch_size=self._batch_size, progress=progress)

    def _store(self) -> Store | MemoryStore:
        return MemoryStore() if self.store is None else self.store

    def _augmentation(self, plan: PlannedViews, stored: Sequence[Stored]) -> Augmentation:
        meta = stored[0][1]
        written = plan.context.description_key is not None
        notes = list(plan.context.warnings)
        if meta.get("shortened"):
            notes.append(SHORTENED)
        if written and not plan.description:
            notes.append(WORDLESS)
        return Augmentation(
            pngs=[payload for payload, _ in stored],
            seeds=list(plan.seeds),
            description=meta.get("description"),
            spec={
                "generator": self._models.generator_json,
                "describer": self._models.describer_json if written else None,
            },
            keys=list(plan.keys),
            warnings=notes,
        )


def _checked(contexts: Iterable[Any]) -> Iterable[DescribedContext]:
    """Contexts without a place for a ground truth; a sequence is looked through at once."""
    if isinstance(contexts, Sequence):
        return evaluation_contexts(contexts)
    return (evaluation_context(context, number) for number, context in enumerate(contexts))


def _told(context: PlannedContext, texts: Mapping[str, str]) -> str | None:
    """What the generator is told of a context whose description is there."""
    return texts[context.description_key] if context.description_key else context.description


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
