"""Hummingbird: a reference image and its context description in, faithful and different views out.

Le et al., ICLR 2025, section 4.1. The description is SDXL's prompt; the CLIP
embedding of the reference image takes the place of the pooled text embedding, with zeros as its
negative. Nothing else of the stock pipeline changes. Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hb_tta.context import DescribedContext
from hb_tta.device import default_dtype
from hb_tta.errors import UserError
from hb_tta.generators.pipeline import PipelineGenerator, PipelineSpec
from hb_tta.generators.protocol import Conditions
from hb_tta.generators.settings import full_settings
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionXLPipeline


@dataclass(frozen=True)
class HummingbirdSpec(PipelineSpec):
    """Hummingbird (Le et al., ICLR 2025, section 4.1).

    The description is SDXL's prompt, the reference's CLIP embedding its pooled embedding.

    Attributes:
        image_encoder: the CLIP vision tower, where ``base`` holds none (SDXL Base 1.0 does not).
        lora: a PEFT LoRA folder or hub repository for the UNet; ``None``: the untuned generator.
        lora_scale: multiplies the LoRA's own alpha/r; 1 is as trained.
    """

    image_encoder: Weights | None = None
    lora: Weights | None = None
    lora_scale: float = 1.0

    method: ClassVar[str] = "hummingbird"
    needs_description: ClassVar[bool] = True
    roles: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"base": "generator", "image_encoder": "image_encoder", "lora": "lora"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.lora_scale):
            raise UserError(f"lora_scale={self.lora_scale} is not a number: 1 is as trained")

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``. The scale of no LoRA changes no pixel."""
        scale = None if self.lora is None else float(self.lora_scale)
        return {**self.fields_json(), "version": 1, "lora_scale": scale}

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> HummingbirdGenerator:
        """See ``GeneratorSpec.load``."""
        return HummingbirdGenerator(
            self, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )

    def load_pipeline(self) -> StableDiffusionXLPipeline:
        """SDXL with the vision tower, and the LoRA merged into the UNet's weights."""
        from hb_tta.generators.loading import load_sdxl
        from hb_tta.generators.lora import merge_lora

        pipe = load_sdxl(
            self.base,
            dtype=self.dtype,
            image_encoder=self.image_encoder,
            embeds_images=True,
            unet_dtype=None if self.lora is None else "float32",
            solver=self.solver,
        )
        if self.lora is not None:
            folder = self.lora.local_folder()
            merge_lora(pipe.unet, folder, scale=self.lora_scale, dtype=self.dtype)
        return pipe

    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """See ``PipelineSpec.encode``."""
        from hb_tta.generators.sdxl import image_conditions

        texts = [context.description or "" for context in contexts]
        images = [context.image for context in contexts]
        return image_conditions(pipe, texts, images, guided=guided, device=device)


class HummingbirdGenerator(PipelineGenerator):
    """The method's generator, on its device; made of a folder by ``from_pretrained``."""

    spec: HummingbirdSpec

    @classmethod
    def from_pretrained(
        cls,
        base: str | PathLike[str] | Weights,
        *,
        image_encoder: str | PathLike[str] | Weights | None = None,
        lora: str | PathLike[str] | Weights | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
        **settings: Any,
    ) -> HummingbirdGenerator:
        """The generator of a pipeline folder or hub repository.

        Args:
            base: SDXL in diffusers' layout.
            image_encoder: the CLIP vision tower; ``None``: the base's own. SDXL Base 1.0 has none
                and goes with "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k".
            lora: a PEFT LoRA folder for the UNet; ``None``: the untuned generator.
            device: "cpu", "cuda", …; ``None``: a GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; ``None``: what suits the device.
            batch_size: views a batch; ``None``: what the device has room for.
            cpu_offload: keep each model on the GPU only while it works.
            **settings: other fields of ``HummingbirdSpec``, such as ``num_inference_steps``.

        Raises:
            UserError: weights are missing, damaged or do not fit each other, or a setting is out
                of range.
        """
        spec = HummingbirdSpec(
            base=as_weights(base),
            image_encoder=None if image_encoder is None else as_weights(image_encoder),
            lora=None if lora is None else as_weights(lora),
            dtype=dtype or default_dtype(device),
            **full_settings(HummingbirdSpec, settings),
        )
        return cls(spec, device=device, batch_size=batch_size, cpu_offload=cpu_offload)
