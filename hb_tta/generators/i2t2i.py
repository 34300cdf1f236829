"""I2T2I: the reference image's description alone, through a stock text-to-image pipeline.

The paper's "I2T2I SDXL" (Le et al., section 5.1): no image embedding, no LoRA. Importing this
module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.context import DescribedContext
from hb_tta.generators.pipeline import PipelineSpec
from hb_tta.generators.protocol import Conditions

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class I2T2ISpec(PipelineSpec):
    """Image to text to image: the description alone, through stock SDXL.

    The paper's "I2T2I SDXL" (section 5.1): no image embedding, no LoRA. Any other text-to-image
    pipeline of diffusers will do as ``base``.
    """

    method: ClassVar[str] = "i2t2i"
    needs_description: ClassVar[bool] = True

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        from hb_tta.generators.bases import sampling_version

        return {**self.fields_json(), "version": sampling_version(self.base)}

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
        """See ``PipelineSpec.encode``; the contexts' images are not looked at."""
        from diffusers import StableDiffusionXLPipeline

        from hb_tta.generators.sdxl import conditions_of

        descriptions = [context.description for context in contexts]
        if not isinstance(pipe, StableDiffusionXLPipeline):
            return {"prompt": descriptions}  # which every one of them encodes for itself
        return conditions_of(
            *pipe.encode_prompt(descriptions, device=device, do_classifier_free_guidance=guided)
        )
