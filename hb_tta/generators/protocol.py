"""What a generator is: a frozen spec that names it, and an object that makes the images.

A spec is light (importing it imports no torch), it can be built without loading a model, and its
``to_json`` is the part of the store's key that stands for the generator. ``load`` turns it into
the object that holds the weights.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, TypeAlias, runtime_checkable

from hb_tta.context import DescribedContext

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family
    from hb_tta.weights import Weights

ContextLike: TypeAlias = "DescribedContext | tuple[Image, str | None]"
"""What ``generate`` takes as a context."""


class Default(enum.Enum):
    """The type of ``DEFAULT``, so that ``None`` keeps its own meaning (the untuned generator)."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""The setting that the family gives."""


@runtime_checkable
class GeneratorSpec(Protocol):
    """All that decides a generator's pixels, in a frozen dataclass.

    Attributes:
        method: the name under which ``get_method`` finds the class.
        needs_description: whether ``generate`` refuses a context without a description. Where it
            is false no describer has to run.
    """

    method: ClassVar[str]
    needs_description: ClassVar[bool]

    @classmethod
    def from_family(
        cls,
        family: Family,
        *,
        lora: str | Weights | Default | None = DEFAULT,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        dtype: str | None = None,
    ) -> Self:
        """The spec of this method on a family's models.

        Args:
            family: which weights fill the roles, and the defaults.
            lora: ``DEFAULT`` the family's, ``None`` the untuned generator, else a folder or hub id.
            num_inference_steps: denoising steps, at least 1; ``None`` the family's.
            guidance_scale: classifier-free guidance, 1 or less turns it off; ``None`` the family's.
            dtype: "float32", "bfloat16" or "float16"; ``None`` what suits this computer.

        A setting that the method has no use for gives a warning, never an error.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Content fingerprints and every setting that changes a pixel; never a path or a device."""
        ...

    def load(self, device: str | None = None) -> Generator:
        """The generator with its weights on ``device`` (``None``: a GPU if there is one)."""
        ...


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
