"""Image translation: the reference, noised half-way and denoised again with the question as prompt.

Boomerang (Luzi et al., 2024) as the paper compares with it (section 5.1), which is what diffusers'
image-to-image pipelines do at strength 0.5. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.context import DescribedContext
from hb_tta.generators.arguments import check_strength
from hb_tta.generators.pipeline import PipelineSpec
from hb_tta.generators.protocol import Conditions
from hb_tta.weights import Weights

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class ImageTranslationSpec(PipelineSpec):
    """Image translation (Boomerang): noised half-way, and denoised with the question as prompt.

    The reference is brought to the view's size first, its sides each for itself. base=paper is
    the paper's run, on Stable Diffusion 1.4.

    Attributes:
        strength: how far the image is noised, above 0 and up to 1; so much of the steps is taken.
    """

    strength: float = 0.5

    method: ClassVar[str] = "image_translation"
    needs_description: ClassVar[bool] = False
    tells_guidance: ClassVar[bool] = True
    constants: ClassVar[tuple[str, ...]] = ("strength",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {
            # Steps and guidance are the stock pipeline's, for the paper gives none.
            "paper": MappingProxyType(
                {
                    "base": Weights("CompVis/stable-diffusion-v1-4"),
                    "num_inference_steps": 50,
                    "guidance_scale": 7.5,
                    "solver": "ddim",  # whatever a family's own generator is sampled by
                }
            )
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength, self.num_inference_steps)

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        from hb_tta.generators.bases import sampling_version

        return {**self.fields_json(), "version": sampling_version(self.base)}

    @property
    def resizes(self) -> bool:
        """See ``PipelineSpec.resizes``: the image that is noised has the view's size."""
        return True

    def load_pipeline(self) -> DiffusionPipeline:
        """The image-to-image pipeline of the base's kind."""
        from hb_tta.generators.loading import load_image_to_image

        return load_image_to_image(self.base, dtype=self.dtype, solver=self.solver)

    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """See ``PipelineSpec.encode``: the texts, and the images at the view's size."""
        from hb_tta.generators.sampling import at_view_size

        texts = [c.guidance if c.description is None else c.description for c in contexts]
        images = [at_view_size(pipe, c.image, self.height, self.width) for c in contexts]
        return {"prompt": texts, "image": images}
