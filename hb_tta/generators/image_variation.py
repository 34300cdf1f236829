"""Image variation: pictures from the reference image alone, without a word.

The paper names Versatile Diffusion (Xu et al., 2023; section 5.1), which diffusers no longer keeps;
the authors' code ran sd-image-variations, with guidance 3. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.generators.pipeline import PipelineSpec
from hb_tta.generators.protocol import Conditions
from hb_tta.weights import Weights

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class ImageVariationSpec(PipelineSpec):
    """Image variation: the image alone decides, through its CLIP embedding.

    The base's own class says how: StableDiffusionImageVariationPipeline takes the image; Stable
    Diffusion XL takes its embedding in place of the pooled text's, beside an empty text.

    Attributes:
        image_encoder: the CLIP vision tower of an SDXL base that holds none.
    """

    guidance_scale: float = 3.0  # the released code's
    image_encoder: Weights | None = None

    method: ClassVar[str] = "image_variation"
    needs_description: ClassVar[bool] = False
    roles: ClassVar[Mapping[str, str]] = MappingProxyType({"base": "variation"})

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {**self.fields_json(), "version": 1}

    def load_pipeline(self) -> DiffusionPipeline:
        """The pipeline that the base's own index names."""
        from hb_tta.generators.bases import check_no_image_encoder
        from hb_tta.generators.loading import arguments_of, load_pipeline, load_sdxl
        from hb_tta.generators.reading import is_sdxl

        if is_sdxl(self.base):
            return load_sdxl(
                self.base,
                dtype=self.dtype,
                image_encoder=self.image_encoder,
                embeds_images=True,
                solver=self.solver,
            )
        check_no_image_encoder(self.base, self.image_encoder)
        pipe = load_pipeline(self.base, dtype=self.dtype, solver=self.solver)
        if "image" not in arguments_of(pipe) or "prompt" in arguments_of(pipe):
            raise UserError(
                f"base={self.base.location!r} is a {type(pipe).__name__}, which makes no pictures "
                "from an image alone: name an SDXL, or one like sd-image-variations"
            )
        return pipe

    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """See ``PipelineSpec.encode``; texts are not looked at."""
        from diffusers import StableDiffusionXLPipeline

        from hb_tta.generators.sdxl import image_conditions

        images = [context.image.convert("RGB") for context in contexts]
        if not isinstance(pipe, StableDiffusionXLPipeline):
            return {"image": images}
        return image_conditions(pipe, [""] * len(images), images, guided=guided, device=device)
