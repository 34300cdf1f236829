"""Textual inversion: one word learned for the one reference image, and pictures "of" it.

Gal et al., 2023, as the paper uses it (appendix N): a new embedding is learned for a reference, and
the prompt "a photo of <context>" makes its views. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.generators.pipeline import PipelineSpec
from hb_tta.generators.protocol import Conditions, Keep

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from hb_tta.generators.inversion import TextualInversionGenerator


@dataclass(frozen=True)
class TextualInversionSpec(PipelineSpec):
    """Textual inversion (Gal et al., 2023): one word is learned for the image, then told.

    What is learned is kept in the store. Stable Diffusion and SDXL can do it.

    Attributes:
        learning_steps: of each image's word, at least 1; each is one pass of the denoiser and back.
        learning_rate: of Adam, above 0.
    """

    learning_steps: int = 500
    learning_rate: float = 5e-3  # Gal et al., section 4

    method: ClassVar[str] = "textual_inversion"
    needs_description: ClassVar[bool] = False
    learns: ClassVar[bool] = True
    roles: ClassVar[Mapping[str, str]] = MappingProxyType({"base": "generator"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_steps < 1:
            raise UserError(f"learning_steps={self.learning_steps} learns nothing: use 1 or more")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"learning_rate={self.learning_rate} is out of range: use more than 0")

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {**self.fields_json(), "version": 1}

    def learning_json(self) -> dict[str, Any]:
        """What of it decides an image's word: neither the solver nor how views are sampled."""
        names = ("base", "height", "width", "dtype", "learning_steps", "learning_rate")
        fields = self.fields_json()
        return {"entry": "learned word", "version": 1, **{name: fields[name] for name in names}}

    def load(
        self,
        device: str | None = None,
        *,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        keep: Keep | None = None,
    ) -> TextualInversionGenerator:
        """See ``GeneratorSpec.load``.

        Args:
            keep: where learned words are looked up and kept; ``None``: in memory.
        """
        from hb_tta.generators.inversion import TextualInversionGenerator

        return TextualInversionGenerator(
            self, device=device, batch_size=batch_size, cpu_offload=cpu_offload, keep=keep
        )

    def load_pipeline(self) -> DiffusionPipeline:
        """The text-to-image pipeline that the base's own index names."""
        from hb_tta.generators.loading import load_text_to_image

        return load_text_to_image(self.base, dtype=self.dtype, solver=self.solver)

    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """See ``PipelineSpec.encode``; the words of these images are learned for this call."""
        from hb_tta.generators.inversion import learn, told_conditions

        words = learn(pipe, [context.image for context in contexts], self, device)
        return told_conditions(pipe, words, guided=guided, device=device)
