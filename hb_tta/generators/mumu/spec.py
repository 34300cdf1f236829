"""All that decides the pixels of MUMU's images. Imports no torch.

``PromptSpec``: of prompts that a person wrote. ``MumuSpec``: of descriptions, whose words a
detector finds in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.errors import UserError
from hb_tta.generators.mumu.finding import FinderSpec
from hb_tta.generators.mumu.folder import PROCESSOR, part, read_index, vlm_weights
from hb_tta.generators.mumu.prompt import MOST_IMAGES
from hb_tta.generators.pipeline import SampledSpec
from hb_tta.generators.protocol import Fitter
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from hb_tta.generators.mumu.generator import MumuGenerator, PromptGenerator

MOST_WORDS = 512  # tokens of a description


@dataclass(frozen=True)
class PromptSpec(SampledSpec):
    """MUMU: words and pictures in one prompt.

    Attributes:
        base: any Stable Diffusion XL in diffusers' layout: MUMU's LoRA needs no other training
            for a fine-tune of it (finding 4). Its text encoders are not used.
        mumu: what a training of MUMU wrote: connector and LoRAs (mumu/folder.py).
        vlm: in place of the Idefics2 that ``mumu`` names: a copy of it in a folder.
        tokens: an image, a square number; more keep more detail (finding 1); ``None``: what
            ``mumu`` was trained with.
        image_scale: multiplies what the images' tokens tell the denoiser; 1 is as trained, less
            gives the words more weight.
    """

    num_inference_steps: int = 50  # with guidance 6: section 6
    guidance_scale: float = 6.0
    mumu: Weights = field(kw_only=True)
    vlm: Weights | None = field(default=None, kw_only=True)
    tokens: int | None = field(default=None, kw_only=True)
    image_scale: float = field(default=1.0, kw_only=True)

    method: ClassVar[str] = "mumu"
    needs_description: ClassVar[bool] = True
    roles: ClassVar[Mapping[str, str]] = MappingProxyType({"base": "generator", "mumu": "mumu"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.image_scale) and 0 <= self.image_scale <= 10):
            raise UserError(f"image_scale={self.image_scale} is out of range: use 0 to 10")
        if self.tokens is not None and not _is_square(self.tokens):
            raise UserError(
                f"tokens={self.tokens} is no square number: use 64, 324 or 1296, of small models 4 "
                "or 16"
            )

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``: with the VLM that the folder names, too."""
        index = read_index(self.mumu)
        elsewhere = vlm_weights(self.mumu, index, self.vlm)
        return {
            **self.fields_json(),
            "version": 1,
            "vlm": None if elsewhere is None else elsewhere.fingerprint(),
            "tokens": self.tokens or index.tokens,
        }

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> PromptGenerator | MumuGenerator:
        """What makes images of prompts. See ``GeneratorSpec.load``."""
        from hb_tta.generators.mumu.generator import PromptGenerator

        return PromptGenerator(self, device=device, batch_size=batch_size, cpu_offload=cpu_offload)

    def fitter(self) -> Fitter:
        """See ``GeneratorSpec.fitter``: far more words than any caption of the training has."""
        from hb_tta.generators.description import fit_description
        from hb_tta.generators.mumu.encoder import load_processor

        tokenizer = load_processor(part(self.mumu, PROCESSOR)).tokenizer
        tokenizer.model_max_length = MOST_WORDS
        return partial(fit_description, [tokenizer])

    def load_pipeline(self) -> StableDiffusionXLPipeline:
        """The base without text encoders, with MUMU's LoRA in its UNet, which knows of masks."""
        from hb_tta.generators.loading import load_sdxl
        from hb_tta.generators.lora import merge_lora
        from hb_tta.generators.mumu.folder import unet_lora
        from hb_tta.generators.mumu.masking import install

        lora = unet_lora(self.mumu)
        pipe = load_sdxl(
            self.base,
            dtype=self.dtype,
            image_encoder=None,
            embeds_images=False,
            reads_text=False,
            unet_dtype=None if lora is None else "float32",
            solver=self.solver,
        )
        if lora is not None:
            merge_lora(pipe.unet, lora, dtype=self.dtype)
        install(pipe.unet)
        return pipe


@dataclass(frozen=True)
class MumuSpec(PromptSpec):
    """MUMU: the description, with crops of the reference before the words that they show.

    Attributes:
        detector: finds the description's words in the reference.
        box_threshold, text_threshold: least score of a box, and of a word for a box, 0 to 1.
        crops: of a description at most, 0 to 4.
        least_area: of a crop, pixels.
        most_share: of the image that a crop may have, above 0 and up to 1.
    """

    detector: Weights = field(kw_only=True)
    box_threshold: float = field(default=0.35, kw_only=True)
    text_threshold: float = field(default=0.25, kw_only=True)
    crops: int = field(default=3, kw_only=True)  # this and the next two: section 4
    least_area: int = field(default=150 * 150, kw_only=True)
    most_share: float = field(default=0.75, kw_only=True)

    roles: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"base": "generator", "mumu": "mumu", "detector": "detector"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("box_threshold", "text_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} is out of range: use 0 to 1")
        if not 0 <= self.crops <= MOST_IMAGES:
            raise UserError(f"crops={self.crops} is out of range: use 0 to {MOST_IMAGES}")
        if self.least_area < 0:
            raise UserError(f"least_area={self.least_area} is out of range: use 0 or more pixels")
        if not 0 < self.most_share <= 1:
            raise UserError(
                f"most_share={self.most_share} is out of range: use a number above 0 and up to 1"
            )

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> MumuGenerator:
        """See ``GeneratorSpec.load``."""
        from hb_tta.generators.mumu.generator import MumuGenerator

        return MumuGenerator(self, device=device, batch_size=batch_size, cpu_offload=cpu_offload)

    def finder(self) -> FinderSpec:
        """See ``GeneratorSpec.finder``."""
        return FinderSpec(
            detector=self.detector,
            box_threshold=self.box_threshold,
            text_threshold=self.text_threshold,
            most=self.crops,
            least_area=self.least_area,
            most_share=self.most_share,
            dtype=self.dtype,
        )


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
