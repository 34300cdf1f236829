"""The augmenter: an image and a question in, faithful and different images out. Read this first.

    image x, question g ── describe ──► C ── generate ──► candidates ── judge ──► views x̂₁ … x̂ₙ
                           (describe/)       (generators/)              (views/choice.py)

Every description, candidate and score is looked up in the store first (store/). Their keys are
known before a model is loaded (views/plan.py), so a call that was made before imports no torch.
What is missing is made in batches (views/make.py), each kept as soon as it is made (store/fill.py),
and a context is handed out as soon as its views are there. Without a judge all are shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any, SupportsIndex

from hb_tta.context import (
    MOST_VIEWS,
    DescribedContext,
    MultimodalContext,
    check_task,
    evaluation_context,
)
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import SCORE, Drafting
from hb_tta.device import default_device, default_dtype
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import Family, get_family
from hb_tta.generators import ALIASES, DEFAULT, Default, build_spec, get_method, used_settings
from hb_tta.store import AnyStore, MemoryStore, Store, TieredStore, content_key, open_store
from hb_tta.views.augmentation import Augmentation, augmentation_of
from hb_tta.views.choice import Refused
from hb_tta.views.encode import PNG, read_format
from hb_tta.views.familiar import FamiliarSpec
from hb_tta.views.judges import NONE, JudgeSpec
from hb_tta.views.make import numbered
from hb_tta.views.models import Models
from hb_tta.views.outlook import Look, Outlook
from hb_tta.views.roles import (
    Source,
    describer_spec,
    drafting_of,
    familiar_spec,
    judge_spec,
)
from hb_tta.views.seeds import BY_CONTEXT, FIXED, check_seeds, first_seeds, whole
from hb_tta.views.select import Selection
from hb_tta.views.work import Asked, OnFailure, Work
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.generators import GeneratorSpec
    from hb_tta.views.plan import PlannedContext

__all__ = ["OFFERED", "Augmentation", "Augmenter"]

OFFERED = ("base", "image_encoder", "lora", "num_inference_steps", "guidance_scale")
"""Settings that many methods have: of one that has no use for them a warning says so."""


class Augmenter:
    """Generates views of images: ``augmenter(image, question, n=4)`` for one, ``augment`` for many.

        augmenter = Augmenter.from_pretrained("hummingbird", family="pocket")
        views = augmenter(image, "Is there a red circle left of the square?", n=4, seed=0)

    Models are loaded when a call needs them. The same view is never generated twice: not in
    another call, not by another process on the same store. Ctrl-C loses the batch in work alone.

    Args:
        generator: the spec of the method, from ``get_method(name)``.
        describer: who writes the descriptions; ``None``: every context must come with one.
        selection: how the shown views are chosen among candidates; by default all are shown.
        drafting: how many drafts of a description there are, and what is made of them.
        seeds: "fixed": view ``i`` of every context has the same; "by_context": each context its
            own (``hb_tta.views.plan.seeds_of``).
        familiar: by which an image is known that these models are not for; ``None``: nobody warns.
        store: a ``Store`` or its folder; ``None``: the default one; ``False``: keep nothing
            after the call; a ``MemoryStore``: as long as that lives.
        task: of ``augmenter(image, question)``; the contexts of ``augment`` have their own.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size: views a call of the generator, and kept at once; ``None``: what suits it.
        cpu_offload: keep each part of the pipeline on the GPU only while it works.
        keep_loaded: whether all models stay on the device together; ``None``: on a CPU and on a
            GPU of 40 GiB or more (LLaVA 7B, SDXL and BLIP-2 with room to work). Else describer,
            generator and judge take turns.
        deterministic: make each view by itself, on one thread, so that its bytes depend on nothing
            else (on one kind of device, with one version of torch). Slower; such views are kept
            apart from the others. Otherwise views made together with others, or on another
            number of threads, may differ by rounding.
        format: of the views' files: "png", "webp" (without loss) or "webp:80", a quality.
    """

    def __init__(
        self,
        generator: GeneratorSpec,
        describer: DescriberSpec | None = None,
        *,
        selection: Selection = Selection(),  # noqa: B008  frozen
        drafting: Drafting = Drafting(),  # noqa: B008  frozen
        seeds: str = FIXED,
        familiar: FamiliarSpec | None = None,
        store: Store | TieredStore | MemoryStore | str | PathLike[str] | bool | None = None,
        task: str = "vqa",
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
        deterministic: bool = False,
        format: str = PNG,
    ) -> None:
        check_task(task)
        check_seeds(seeds)
        if drafting.count > 1 and drafting.by == SCORE and selection.judge is None:
            raise UserError(f"drafts={drafting} needs a judge: name one, as in judge=fine_grained")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: use 1 or more")
        self.task = task
        self.store = named_store(store)
        self.generator_spec = generator
        self.describer_spec = describer if generator.needs_description else None
        # Without a description there is nothing to judge by.
        self.selection = selection if generator.needs_description else Selection()
        self.drafting = drafting
        self.seeds = seeds
        self._batch_size = batch_size
        self._models = Models(
            generator,
            self.describer_spec,
            self.selection.judge,
            familiar=familiar,
            device=device,
            batch_size=1 if deterministic else batch_size,
            cpu_offload=cpu_offload,
            keep_loaded=keep_loaded,
            deterministic=deterministic,
            format=read_format(format),
            known={} if self.store is None else self.store.known_weights(),
            store=self.store,
        )

    @classmethod
    def from_pretrained(
        cls,
        method: str,
        *,
        family: str | Family = "sdxl",
        describer: Source | DescriberSpec | Default | None = DEFAULT,
        candidates: int | None = None,
        judge: str | JudgeSpec | None = None,
        min_score: float | str | None = None,
        seeds: str = FIXED,
        drafts: int | str | Drafting = 1,
        device: str | None = None,
        dtype: str | None = None,
        store: Store | TieredStore | MemoryStore | str | PathLike[str] | bool | None = None,
        task: str = "vqa",
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
        deterministic: bool = False,
        format: str = PNG,
        **settings: Any,
    ) -> Augmenter:
        """An augmenter from a method's name and a family of models. Loads no model yet.

        Args:
            method: "hummingbird", "i2t2i", "jitter" or another of ``list_methods()``.
            family: "sdxl" (hub weights, the paper's scale) or "pocket" (bundled, CPU).
            describer: a folder or hub id in place of the family's. ``None``: every context must
                come with its description; a ``DescriberSpec`` sets the description's length too.
            candidates: images that are generated, of which the judge's best n are shown; at least
                n; ``None``: n.
            judge: who scores them against their description: a reward by name ("fine_grained" or
                "itm", "global" or "itc", "clip_text", "pickscore", …), or "vqa_yes", the family's
                MLLM; weights may stand behind it ("vqa_yes:FOLDER"). "none", ``None``: nobody.
            min_score: a view below it is not shown: a number, or "real", "real-0.1" (the real
                image's own score, with something added or taken off).
            seeds: "fixed" or "by_context", see the class.
            drafts: of each description: 5, "5+sampled", … (``Drafting``).
            dtype: "float32", "bfloat16" or "float16"; ``None``: float32 on a CPU, bfloat16 on a
                GPU.
            device, store, task, batch_size, cpu_offload, keep_loaded, deterministic, format: see
                the class.
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
        if not spec.needs_description:
            said = {"describer": not isinstance(describer, Default | None)}
            said |= {"judge": judge not in (None, NONE), "drafts": drafts not in (1, Drafting())}
            _warn_ignored(method, [name for name, is_said in said.items() if is_said])
            describer, judge, candidates, min_score, drafts = None, None, None, None, 1
        written_by = describer_spec(describer, models, dtype)
        return cls(
            spec,
            written_by,
            selection=Selection(judge_spec(judge, models, dtype), candidates, min_score),
            drafting=drafting_of(drafts),
            seeds=seeds,
            familiar=familiar_spec(models, spec, written_by),
            store=store,
            task=task,
            device=device,
            batch_size=batch_size,
            cpu_offload=cpu_offload,
            keep_loaded=keep_loaded,
            deterministic=deterministic,
            format=format,
        )

    def __repr__(self) -> str:
        spec: Any = self.generator_spec
        told = {one.name: getattr(spec, one.name) for one in fields(spec)}
        told |= {"describer": self.describer_spec and self.describer_spec.mllm, "task": self.task}
        told |= {"device": self._models.device}
        told |= {
            "store": str(self.store.root) if isinstance(self.store, Store | TieredStore) else None
        }
        named = (f"{name}={_short(value)}" for name, value in told.items() if value is not None)
        return f"<Augmenter {spec.method}: {', '.join(named)}>"

    @property
    def spec(self) -> dict[str, Any]:
        """Plain JSON that names everything that decides the views: ``Augmentation.spec``.

        Raises:
            UserError: the describer's or the judge's weights are missing.
        """
        return self._spec(described=self.describer_spec is not None)

    @property
    def device(self) -> str:
        """Where the models run, or will."""
        return self._models.device

    def __call__(self, image: Any, question: str = "", n: int = 4, seed: int = 0) -> list[Image]:
        """``n`` generated views of an image; view ``i`` uses ``seed + i``.

        Fewer where the augmenter has a ``min_score``, or the method makes no more.

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
        self,
        contexts: Iterable[Any],
        n: int = 4,
        seed: int = 0,
        *,
        progress: bool | None = None,
        on_failure: OnFailure | None = None,
    ) -> Iterator[Augmentation]:
        """Views of many contexts, each handed out as soon as its views are there.

        Contexts are planned, described and given views in growing windows: the first views come
        after the first batch, and no more than a window is in memory. What is not asked for is
        not made.

        Args:
            contexts: ``MultimodalContext``s, or ``DescribedContext``s to say what the generator is
                told. Images as in ``__call__``; of paths only those in work are in memory. A
                sequence is checked before anything is made, another iterable as it is read.
            n: views a context, at least 1.
            seed: candidate ``i`` of every context uses ``seed + i``, or that and its own number
                where ``seeds`` is "by_context"; at least 0.
            progress: tell how far it is, in a terminal by bars, elsewhere by a line every half
                minute; ``None``: where there is much to do.
            on_failure: told the number of a context that alone is at fault, and why: its image
                cannot be read, or a model refuses it. The others go on. ``None``: it is raised.

        Returns:
            One ``Augmentation`` a context, in order; none of those that failed.

        Raises:
            UserError: an image cannot be read, a context carries its ground truth, a model cannot
                be loaded, the store cannot be written.
        """
        fail = on_failure or _raise
        return self._handed_out(_checked(contexts), self._asked(n, seed), progress, fail)

    def make(
        self,
        contexts: Sequence[Any],
        n: int = 4,
        seed: int = 0,
        *,
        progress: bool | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        """Have the store hold the views of ``augment``, and hand out none.

        For who needs the device afterwards. See ``iter_augment`` for the arguments.
        """
        if self.store is None:
            raise UserError("an augmenter with store=False keeps nothing: give it a store")
        work = self._work(self.store, self._asked(n, seed), progress)
        fail = on_failure or _raise
        for plans in work.planned(_checked(contexts), fail):
            for refused in work.chooser.make(plans):
                fail(refused.plan.context.number, refused.why)

    def view_keys(
        self, contexts: Sequence[Any], n: int = 4, seed: int = 0
    ) -> list[list[str] | None]:
        """The keys under which the store keeps, or will keep, the candidates of ``augment``.

        Without a judge these are the views. None for a context whose description is still to be
        written: its views' keys follow from it. Nothing is made and no model is loaded. See
        ``iter_augment`` for the arguments.
        """
        work = self._work(self._store(), self._asked(n, seed), False)
        plans = work.planned_so_far(_checked(contexts))
        return [None if plan is None else list(plan.keys) for plan in plans]

    def lacks(self, contexts: Sequence[Any], n: int = 4, seed: int = 0) -> bool:
        """Whether ``augment`` would need a model: something is not in the store.

        Nothing is made and no model is loaded. See ``iter_augment`` for the arguments.
        """
        work = self._work(self._store(), self._asked(n, seed), False)
        plans = work.planned_so_far(_checked(contexts))
        known = [plan for plan in plans if plan is not None]
        return len(known) < len(plans) or work.chooser.lacks(known)

    def outlook(
        self,
        contexts: Iterable[Any],
        n: int = 4,
        seed: int = 0,
        *,
        lacking: list[DescribedContext] | None = None,
    ) -> Outlook:
        """What ``augment`` would have to make: nothing is made and no model is loaded.

        Contexts are looked at as they come, a window in memory at a time.

        Args:
            contexts, n, seed: see ``iter_augment``.
            lacking: takes the first contexts for which something is to be made, ``SOME`` at most.
        """
        work = self._work(self._store(), self._asked(n, seed), False)
        return work.outlook(_checked(contexts), [] if lacking is None else lacking)

    def lacking(
        self, contexts: Iterable[Any], n: int = 4, seed: int = 0
    ) -> Iterator[tuple[Look, str | None]]:
        """What the store lacks of each context, in order; no model is loaded.

        For who has it made elsewhere. See ``iter_augment`` for the arguments.

        Yields:
            The look at a context, and where something lacks a key of 64 hex digits: contexts of
            one key need the same.
        """
        asked = self._asked(n, seed)
        for look in self._work(self._store(), asked, False).looked(_checked(contexts)):
            yield look, self._key(look.planned, asked) if look.lacks else None

    def descriptions(
        self,
        contexts: Iterable[Any],
        *,
        progress: bool | None = None,
        on_failure: OnFailure | None = None,
    ) -> list[str | None]:
        """What the generator would be told of contexts; no view is made.

        None for each where the method needs none. See ``iter_augment`` for the arguments.
        """
        work = self._work(self._store(), self._asked(self.selection.candidates or 1, 0), progress)
        windows = work.planned(_checked(contexts), on_failure or _raise)
        return [plan.description for plans in windows for plan in plans]

    def with_models_of(self, other: Augmenter) -> Augmenter:
        """This augmenter, with the models that another of the same specs loads, and no own ones."""
        own = (self.generator_spec, self.describer_spec, self.selection.judge)
        assert own == (other.generator_spec, other.describer_spec, other.selection.judge)
        self._models = other._models
        return self

    def unload(self) -> None:
        """Frees the device; the next call that needs a model loads it again."""
        self._models.unload()

    def _handed_out(
        self,
        contexts: Iterable[DescribedContext],
        asked: Asked,
        progress: bool | None,
        fail: OnFailure,
    ) -> Iterator[Augmentation]:
        work = self._work(self._store(), asked, progress)
        for plans in work.planned(contexts, fail):
            for chosen in work.chooser.chosen(plans):
                context = chosen.plan.context
                if isinstance(chosen, Refused):
                    fail(context.number, chosen.why)
                    continue
                spec = self._spec(described=bool(context.description_keys))
                yield augmentation_of(chosen, spec, asked.notes)

    def _work(self, store: AnyStore, asked: Asked, progress: bool | None) -> Work:
        return Work(
            self._models,
            store,
            asked,
            needs_description=self.generator_spec.needs_description,
            tells_guidance=self.generator_spec.tells_guidance,
            selection=self.selection,
            drafting=self.drafting,
            by_context=self.seeds == BY_CONTEXT,
            batch_size=self._batch_size,
            progress=progress,
        )

    def _store(self) -> AnyStore:
        return MemoryStore() if self.store is None else self.store

    def _asked(self, n: SupportsIndex, seed: SupportsIndex) -> Asked:
        """The numbers of a call, checked."""
        shown, most = whole("n", n), self.generator_spec.outputs
        if not 1 <= shown <= MOST_VIEWS:
            raise UserError(f"n={shown} is no number of views: use 1 to {MOST_VIEWS}")
        number, notes = self.selection.number(shown), []
        if most is not None and number > most:
            notes.append(
                f"{self.generator_spec.method} makes {most} view of an image, whatever the seed: "
                f"n={shown} gives {most}"
            )
            warnings.warn(notes[0], HbTtaWarning, stacklevel=4)
            number = shown = most
        return Asked(shown, first_seeds(seed, number), notes)

    def _key(self, planned: PlannedContext, asked: Asked) -> str:
        """Of all that decides what a context needs."""
        return content_key(
            {
                "entry": "context",
                "pixels": planned.digest,
                "guidance": planned.guidance,
                "task": planned.task,
                "description": planned.description,
                "spec": self._spec(described=bool(planned.description_keys)),
                "seeds": [asked.seeds.start, asked.seeds.stop],
                "shown": asked.shown,
            }
        )

    def _spec(self, *, described: bool) -> dict[str, Any]:
        models, drafting = self._models, self.drafting
        describer = models.describer_json if described else None
        if describer is not None and drafting.count > 1:
            describer = {**describer, "drafts": str(drafting)}
        spec = {"generator": models.generator_json, "describer": describer}
        if models.judge_json is not None:
            spec["selection"] = self.selection.to_json(models.judge_json)
        return spec if self.seeds == FIXED else {**spec, "seeds": self.seeds}


def _raise(number: int, error: UserError) -> None:
    raise numbered(number, error) from error


def _checked(contexts: Iterable[Any]) -> Iterable[DescribedContext]:
    """Contexts without a place for a ground truth; a sequence is looked through at once."""
    each = (evaluation_context(it, number, pairs=False) for number, it in enumerate(contexts))
    return list(each) if isinstance(contexts, Sequence) else each


def _short(value: Any) -> str:
    """A setting in a line."""
    if isinstance(value, Weights):
        inside = f"/{value.subfolder}" if value.subfolder else ""
        return repr(value.location + inside)
    return repr(value)


def named_store(
    store: Store | TieredStore | MemoryStore | str | PathLike[str] | bool | None,
) -> Store | TieredStore | MemoryStore | None:
    """The store that a person names; ``None``: they want none."""
    if store is False:
        return None
    if store is None or store is True:
        return open_store()
    return store if isinstance(store, Store | TieredStore | MemoryStore) else open_store(store)


def _warn_ignored(method: str, settings: Sequence[str]) -> None:
    """Say that a method without descriptions has no use for some settings."""
    for name in settings:
        message = f"{method} needs no description: the {name} is ignored"
        warnings.warn(message.replace("drafts is", "drafts are"), HbTtaWarning, stacklevel=3)
