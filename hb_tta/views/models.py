"""The describer and the generator of an augmenter: loaded when needed, on one device in turn."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta.describe import Describer, DescriberSpec
from hb_tta.device import default_device
from hb_tta.errors import UserError
from hb_tta.views.familiar import Familiar, FamiliarSpec

if TYPE_CHECKING:
    from hb_tta.generators import Generator, GeneratorSpec
    from hb_tta.generators.protocol import Fitter

ROOM_FOR_BOTH = 40 * 2**30  # bytes: LLaVA 7B and SDXL in bf16 take about 27 GiB, and work in it


class Models:
    """Both models' specs, and the models themselves once somebody asks for them.

    Args:
        generator: the method's spec.
        describer: ``None``: there is none.
        familiar: by which an image is known that they are not for; ``None``: none is.
        device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
        batch_size, cpu_offload: see ``GeneratorSpec.load``.
        keep_loaded: whether both stay on the device together; ``None``: where it has room.
        deterministic: work as ``same_bytes`` says; what is made so has keys of its own.

    Attributes:
        generator_json: the generator's part of every key.

    Raises:
        UserError: the generator's weights are missing.
    """

    def __init__(
        self,
        generator: GeneratorSpec,
        describer: DescriberSpec | None,
        *,
        familiar: FamiliarSpec | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep_loaded: bool | None = None,
        deterministic: bool = False,
    ) -> None:
        self.device = device or default_device()
        self.deterministic = deterministic
        self.generator_json = self._json(generator)
        self._generator_spec, self._describer_spec = generator, describer
        self._load_options: dict[str, Any] = {"batch_size": batch_size, "cpu_offload": cpu_offload}
        self._keep_loaded = keep_loaded
        self._familiar_spec = familiar
        self._generator: Generator | None = None
        self._describer: Describer | None = None

    @cached_property
    def describer_json(self) -> dict[str, Any] | None:
        """The describer's part of a key; its weights need not be there before they are asked for.

        Raises:
            UserError: they are missing.
        """
        return None if self._describer_spec is None else self._json(self._describer_spec)

    @cached_property
    def familiar(self) -> Familiar | None:
        """Tells which images the models are not for; ``None``: nobody knows."""
        return None if self._familiar_spec is None else self._familiar_spec.load(self.device)

    @cached_property
    def fit(self) -> Fitter:
        """See ``GeneratorSpec.fitter``."""
        return self._generator_spec.fitter()

    def describe(self, contexts: Sequence[Any]) -> list[str]:
        """See ``Describer.describe``."""
        if self._describer is None:
            assert self._describer_spec is not None
            if self._generator is not None and not self._has_room():
                self._release_generator()
            self._describer = self._describer_spec.load(self.device)
            self._check_same(self._describer_spec, self.describer_json)
        with _enough_memory(self.device), self._arithmetic():
            return self._describer.describe(contexts)

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Sequence[int]]) -> list[list[Any]]:
        """See ``Generator.generate``."""
        if self._generator is None:
            if self._describer is not None and not self._has_room():
                self._release_describer()
            self._generator = self._generator_spec.load(self.device, **self._load_options)
            self._check_same(self._generator_spec, self.generator_json)
        with _enough_memory(self.device), self._arithmetic():
            return self._generator.generate(contexts, seeds)

    @property
    def loaded(self) -> list[str]:
        """Which of "describer" and "generator" are on the device now."""
        models = {"describer": self._describer, "generator": self._generator}
        return [name for name, model in models.items() if model is not None]

    def unload(self) -> None:
        """Frees the device of both."""
        if self._describer is not None:
            self._release_describer()
        if self._generator is not None:
            self._release_generator()

    def _json(self, spec: GeneratorSpec | DescriberSpec) -> dict[str, Any]:
        """A model's part of a key; without the setting it is what it always was."""
        return {**spec.to_json(), **({"deterministic": True} if self.deterministic else {})}

    def _check_same(self, spec: GeneratorSpec | DescriberSpec, json: dict[str, Any] | None) -> None:
        """What is made with new weights must not be kept under the old ones' name."""
        if self._json(spec) != json:
            raise UserError(
                "the weights on disk changed after the augmenter was made: make it again "
                "(Augmenter.from_pretrained)"
            )

    def _arithmetic(self) -> AbstractContextManager[None]:
        return same_bytes(self.device) if self.deterministic else nullcontext()

    def _has_room(self) -> bool:
        if self._keep_loaded is not None or not self.device.startswith("cuda"):
            return self._keep_loaded is not False
        import torch

        return torch.cuda.get_device_properties(self.device).total_memory >= ROOM_FOR_BOTH

    def _release_describer(self) -> None:
        assert self._describer is not None
        self._describer.unload()
        self._describer = None

    def _release_generator(self) -> None:
        import torch

        self._generator = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{device} has too little memory free: use a smaller batch_size, keep_loaded=False or "
            "cpu_offload=True, or free some of it"
        ) from error
