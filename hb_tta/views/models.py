"""The describer, the generator and the judge of an augmenter: loaded when needed, taking turns."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hb_tta.describe import DescriberSpec
from hb_tta.device import check_device, default_device
from hb_tta.errors import UserError
from hb_tta.views.encode import PNG
from hb_tta.views.familiar import Familiar, FamiliarSpec
from hb_tta.weights import known_by

if TYPE_CHECKING:
    from hb_tta.context import DescribedContext, SeenWord
    from hb_tta.generators import GeneratorSpec
    from hb_tta.generators.protocol import Fitter, Keep
    from hb_tta.store import AnyStore, MemoryStore
    from hb_tta.views.judges import JudgeSpec, ViewJudge

ROOM_FOR_ALL = 40 * 2**30  # bytes: LLaVA 7B, SDXL and BLIP-2 take about 31 GiB, and work in it


class Named(Protocol):
    """A spec: what it loads is named by its JSON."""

    def to_json(self) -> dict[str, Any]:
        """Content fingerprints and settings."""
        ...


class Models:
    """The models' specs, and the models themselves once somebody asks for them.

    Args:
        generator: the method's spec.
        describer: ``None``: there is none.
        judge: ``None``: there is none.
        familiar: by which an image is known that they are not for; ``None``: none is.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size, cpu_offload: see ``GeneratorSpec.load``.
        keep_loaded: whether all stay on the device together; ``None``: where it has room.
        store: where what the generator learns of images is kept; ``None``: in memory.
        deterministic: work as ``same_bytes`` says; what is made so has keys of its own.
        known: names of weights that need not be here, see ``hb_tta.weights.known_by``: what they
            made is found, and more is not made.
        format: of the views' files (``hb_tta.views.encode``); other than PNG it is in their keys.

    Attributes:
        generator_json: the generator's part of every key.

    Raises:
        UserError: the generator's weights are missing.
    """

    def __init__(
        self,
        generator: GeneratorSpec,
        describer: DescriberSpec | None,
        judge: JudgeSpec | None = None,
        *,
        familiar: FamiliarSpec | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
        deterministic: bool = False,
        format: str = PNG,
        known: Mapping[str, str] = MappingProxyType({}),
        store: AnyStore | MemoryStore | None = None,
    ) -> None:
        self.device = device or default_device()
        self.deterministic = deterministic
        self.format = format
        self._known = known
        self._absent: dict[str, list[str]] = {}  # role → names of its weights
        self._made_by = self._json(generator, "generator")
        kept = {} if format == PNG else {"format": format}
        self.generator_json = {**self._made_by, **kept}
        self._generator_spec, self._describer_spec = generator, describer
        self._judge_spec = judge
        self._load_options: dict[str, Any] = {"batch_size": batch_size, "cpu_offload": cpu_offload}
        if generator.learns and store is not None:
            self._load_options["keep"] = self._kept_in(store)
        self._keep_loaded = keep_loaded
        self._familiar_spec = familiar
        self._on_device: dict[str, Any] = {}

    @cached_property
    def describer_json(self) -> dict[str, Any] | None:
        """The describer's part of a key; its weights need not be there before they are asked for.

        Raises:
            UserError: they are missing.
        """
        return (
            None if self._describer_spec is None else self._json(self._describer_spec, "describer")
        )

    @cached_property
    def judge_json(self) -> dict[str, Any] | None:
        """The judge's part of a score's key, as of ``describer_json``."""
        return None if self._judge_spec is None else self._json(self._judge_spec, "judge")

    @cached_property
    def familiar(self) -> Familiar | None:
        """Tells which images the models are not for; ``None``: nobody knows."""
        if self._familiar_spec is None or self._absent.get("generator"):
            return None  # its encoder is one of the generator's weights
        check_device(self.device)
        return self._familiar_spec.load(self.device)

    @cached_property
    def fit(self) -> Fitter:
        """See ``GeneratorSpec.fitter``."""
        self._check_here("generator")
        return self._generator_spec.fitter()

    @cached_property
    def finder_json(self) -> dict[str, Any] | None:
        """The finder's part of a key of boxes; ``None``: the generator does not look at them.

        Raises:
            UserError: its weights are missing.
        """
        finder = self._generator_spec.finder()
        return None if finder is None else self._json(finder, "finder")

    def describe(
        self, contexts: Sequence[Any], seeds: Sequence[int | None] | None = None
    ) -> list[str]:
        """See ``Describer.describe``."""
        assert self._describer_spec is not None
        describer = self._turn("describer", self._describer_spec, self.describer_json)
        with _enough_memory(self.device), self._arithmetic():
            return describer.describe(contexts, seeds)

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Sequence[int]]) -> list[list[Any]]:
        """See ``Generator.generate``."""
        generator = self._turn(
            "generator", self._generator_spec, self._made_by, **self._load_options
        )
        with _enough_memory(self.device), self._arithmetic():
            return generator.generate(contexts, seeds)

    def find(self, contexts: Sequence[DescribedContext]) -> list[list[SeenWord]]:
        """The words of descriptions that their images show. See ``Finder.find``."""
        finder = self._turn("finder", self._generator_spec.finder(), self.finder_json)
        with _enough_memory(self.device), self._arithmetic():
            return finder.find(
                [context.image for context in contexts],
                [context.description or "" for context in contexts],
            )

    def score(
        self, images: Sequence[Any], references: Sequence[Any], texts: Sequence[str]
    ) -> list[float]:
        """See ``ViewJudge.score``."""
        assert self._judge_spec is not None
        judge = self._asked_describer() or self._turn("judge", self._judge_spec, self.judge_json)
        with _enough_memory(self.device), self._arithmetic():
            return judge.score(images, references, texts)

    @property
    def loaded(self) -> list[str]:
        """Which of "describer", "finder", "generator" and "judge" are on the device now."""
        roles = ("describer", "finder", "generator", "judge")
        return [role for role in roles if role in self._on_device]

    @property
    def together(self) -> bool:
        """Whether the device has room for all; else they take turns on it."""
        if self._keep_loaded is not None or not self.device.startswith("cuda"):
            return self._keep_loaded is not False
        import torch

        return torch.cuda.get_device_properties(self.device).total_memory >= ROOM_FOR_ALL

    def unload(self) -> None:
        """Frees the device of all."""
        if not self._on_device:
            return
        self._on_device.clear()
        gc.collect()
        torch = sys.modules.get("torch")  # a model that needs none has not imported it
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _kept_in(self, store: AnyStore | MemoryStore) -> Keep:
        """What a generator learns of images, kept beside their views."""

        def keep(requests: Sequence[Mapping[str, Any]], make: Any, batch_size: int) -> list[Any]:
            from hb_tta.store.features import kept_tensors

            marked = [self._marked(request) for request in requests]
            return kept_tensors(store, marked, make, batch_size)

        return keep

    def _turn(self, role: str, spec: Any, json: dict[str, Any] | None, **options: Any) -> Any:
        """The model of a role, on the device: alone there, where there is no room for all."""
        if role not in self._on_device:
            check_device(self.device)
            self._check_here(role)
            if not self.together:
                self.unload()
            model = spec.load(self.device, **options)
            self._check_same(role, spec, json)
            self._on_device[role] = model
        return self._on_device[role]

    def _asked_describer(self) -> ViewJudge | None:
        """The judge that asks the describer's own model, which is then loaded once."""
        assert self._judge_spec is not None
        asked, describer = self._judge_spec.chat_model, self._describer_spec
        if asked is None or describer is None:
            return None
        if (asked.mllm, asked.dtype) != (describer.mllm, describer.dtype):
            return None
        from hb_tta.views.vqa_yes import VqaYes

        return VqaYes(self._turn("describer", describer, self.describer_json))

    def _json(self, spec: Named, role: str) -> dict[str, Any]:
        """A model's part of a key; without the setting it is what it always was."""
        with known_by(self._known) as known:
            told = spec.to_json()
        self._absent[role] = list(dict.fromkeys(known.used))
        return self._marked(told)

    def _marked(self, json: Mapping[str, Any]) -> dict[str, Any]:
        return {**json, **({"deterministic": True} if self.deterministic else {})}

    def _check_here(self, role: str) -> None:
        if absent := self._absent.get(role):
            raise UserError(
                f"something is missing in the store that the {role} would have to make, and its "
                f"weights are not on this machine ({', '.join(absent)}): import a set that holds "
                "it (hb-tta store import), ask for the settings that the set was made with, or "
                "fetch the weights (hb-tta download)"
            )

    def _check_same(self, role: str, spec: Named, json: dict[str, Any] | None) -> None:
        """What is made with new weights must not be kept under the old ones' name."""
        if self._json(spec, role) != json:
            raise UserError(
                "the weights on disk changed after the augmenter was made: make it again "
                "(Augmenter.from_pretrained)"
            )

    def _arithmetic(self) -> AbstractContextManager[None]:
        return same_bytes(self.device) if self.deterministic else nullcontext()


@contextmanager
def same_bytes(device: str) -> Iterator[None]:
    """Arithmetic whose last bit does not depend on the day: one thread, kernels that do not race.

    Sums are rounded by the order of their parts, which follows from the shape of the batch (the
    caller's: one row at a time), from the number of threads and from the kernel. It holds for one
    kind of processor or GPU and one version of torch.
    """
    import torch

    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tuning, kernels = cudnn.benchmark, cudnn.deterministic
    if device.startswith("cuda"):  # read when the library starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(1)
        cudnn.benchmark, cudnn.deterministic = False, True
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.benchmark, cudnn.deterministic = tuning, kernels
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)


@contextmanager
def _enough_memory(device: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(
            f"{device} has too little memory free: use a smaller batch_size, keep_loaded=False or "
            "cpu_offload=True, or free some of it"
        ) from error
