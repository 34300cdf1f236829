"""What a generator is: a frozen spec that names it, and an object that makes the images.

A spec is light (importing it imports no torch), it can be built without loading a model, and its
``to_json`` is the part of the store's key that stands for the generator. ``load`` turns it into
the object that holds the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

from hb_tta.context import DescribedContext, SeenWord
from hb_tta.generators.settings import spec_from_family

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family

ContextLike: TypeAlias = "DescribedContext | tuple[Image, str | None]"
"""What ``generate`` takes as a context."""


Conditions: TypeAlias = "dict[str, Any]"
"""Arguments of a pipeline by name, each with a row per context: a tensor or a list."""

Fitter: TypeAlias = "Callable[[str], tuple[str, bool]]"
"""A description → what the generator takes of it, and whether it was shortened."""

Tensors: TypeAlias = "Mapping[str, Any]"
"""What was learned of one image: tensors by name."""

Keep: TypeAlias = (
    "Callable[[Sequence[Mapping[str, Any]], Callable[[Sequence[int]], Iterable[Tensors]], int], "
    "list[Tensors]]"
)
"""(requests, numbers of requests → their tensors in order, most at once) → every request's
tensors. A request is plain JSON that decides them."""


class Finder(Protocol):
    """Finds words of texts in images."""

    def find(self, images: Sequence[Image], texts: Sequence[str]) -> list[list[SeenWord]]:
        """The words of each text that its RGB image shows, in the order of the text."""
        ...


class FinderSpec(Protocol):
    """All that decides what a ``Finder`` finds: part of the store's key of it."""

    def to_json(self) -> dict[str, Any]:
        """Content fingerprints and settings; never a path or a device."""
        ...

    def load(self, device: str) -> Finder:
        """The finder with its weights on a device."""
        ...


@runtime_checkable
class GeneratorSpec(Protocol):
    """All that decides a generator's pixels, in a frozen dataclass. Its fields are its settings.

    A method inherits from this class and writes ``method``, ``needs_description``, ``to_json`` and
    ``load``; the rest it has from here.

    Attributes:
        method: the name under which ``get_method`` finds the class.
        needs_description: whether ``generate`` refuses a context without a description. Where it
            is false no describer has to run.
        outputs: how many different images there can be of a context; more are never made.
            ``None``: one a seed.
        roles: field → the family's role that fills it. A field that may be ``None`` may find its
            role empty.
        presets: name → settings that belong together; a person gives the name as ``base``.
        tells_guidance: whether, in place of a description, it is told the text guidance itself.
        learns: whether it learns something of each image before it makes views, which ``load``
            is given a place for (``keep``).
        distorts: whether its views are worse copies of the image, as ``combine=contrast`` needs
            them, rather than new pictures.
    """

    method: ClassVar[str]
    needs_description: ClassVar[bool]
    outputs: ClassVar[int | None] = None
    roles: ClassVar[Mapping[str, str]] = MappingProxyType({})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    tells_guidance: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    distorts: ClassVar[bool] = False

    @classmethod
    def from_family(cls, family: Family, *, dtype: str | None = None, **settings: Any) -> Self:
        """The spec of this method on a family's models.

        Args:
            family: which weights fill the roles, and the defaults.
            dtype: "float32", "bfloat16" or "float16"; ``None`` what suits this computer.
            **settings: fields of the spec, or their short names; ``DEFAULT`` is what the family
                has. ``lora=None`` is the untuned generator.

        Raises:
            UserError: the method has no such setting (the sentence lists those that it has), a
                value is none of its type or out of range, or a role is empty.
        """
        return spec_from_family(cls, family, settings, dtype)

    @classmethod
    def settled(cls, values: Mapping[str, Any], said: Set[str]) -> Mapping[str, Any]:
        """The settings of a spec, those changed that nobody said and that its models cannot use.

        Args:
            values: field → value; a field's own default may be left out.
            said: the fields that a person gave.

        Raises:
            UserError: what a person said is of no use to them.
        """
        return values

    def to_json(self) -> dict[str, Any]:
        """Content fingerprints and every setting that changes a pixel; never a path or a device."""
        ...

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> Generator:
        """The generator with its weights.

        Args:
            device: "cpu", "cuda", "cuda:1", …; ``None``: a GPU if there is one.
            batch_size: images a batch; ``None``: what the device has room for. It decides speed
                and memory, no pixel; a generator without batches ignores it.
            cpu_offload: keep each model on the GPU only while it works; a generator that has no
                use for it gives a warning.
        """
        ...

    def fitter(self) -> Fitter:
        """What the generator takes whole of a description; here, any of it."""
        return lambda description: (description, False)

    def finder(self) -> FinderSpec | None:
        """Who finds a description's words in the reference, for ``DescribedContext.boxes``.

        ``None``, as here: the generator does not look at them.
        """
        return None


@runtime_checkable
class Generator(Protocol):
    """Anything that turns described contexts and seeds into images."""

    @property
    def spec(self) -> GeneratorSpec:
        """What recreates this generator."""
        ...

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        output_type: str = "pil",
    ) -> list[list[Image]]:
        """Images of every context, one a seed.

        Args:
            contexts: ``DescribedContext``s or plain (image, description) pairs.
            seeds: one list of seeds a context, of any lengths; an empty one gives an empty list.
                An image depends on its context and its seed alone, not on the others of the call.
            output_type: "pil"; a latent diffusion generator also knows "latent".

        Returns:
            One list a context, one RGB image a seed, in the order of the seeds.

        Raises:
            UserError: a description is missing where the method needs one, or the lists do not
                match.
        """
        ...
