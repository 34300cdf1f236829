"""Any pipeline of diffusers that takes an image: by a thin table of the shapes of their calls.

    --method diffusers --augment_args pipeline=black-forest-labs/FLUX.2-klein-4B

What a pipeline's call takes says which shape it has; no pipeline is known by its name. Importing
this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.generators.arguments import check_strength
from hb_tta.generators.calls import CALLS, Call, call_of
from hb_tta.generators.pipeline import PipelineSpec
from hb_tta.generators.protocol import Conditions
from hb_tta.weights import Weights

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

_SDXL = Weights("stabilityai/stable-diffusion-xl-base-1.0")
_BIG_G = Weights("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Distilled for four steps without guidance; Apache-2.0.
        "flux2-klein": MappingProxyType(
            {
                "base": Weights("black-forest-labs/FLUX.2-klein-4B"),
                "num_inference_steps": 4,
                "guidance_scale": 1.0,
            }
        ),
        "sdxl-ip-adapter": MappingProxyType(
            {
                "base": _SDXL,
                "ip_adapter": Weights("h94/IP-Adapter", subfolder="sdxl_models"),
                "ip_adapter_file": "ip-adapter_sdxl.safetensors",
                "image_encoder": _BIG_G,  # with which that adapter was trained
                "num_inference_steps": 25,
                "guidance_scale": 5.0,  # the stock pipeline's
            }
        ),
        # Hummingbird's LoRA on a few-step SDXL: its own sampler, and guidance distilled into it.
        "sdxl-lcm": MappingProxyType(
            {
                "base": _SDXL,
                "image_encoder": _BIG_G,
                "lora": Weights("lmquan/hummingbird", subfolder="lora_unet_65000"),
                "few_step_lora": Weights("latent-consistency/lcm-lora-sdxl"),
                "solver": "lcm",
                "num_inference_steps": 4,
                "guidance_scale": 1.0,
            }
        ),
    }
)


@dataclass(frozen=True)
class DiffusersSpec(PipelineSpec):
    """Any diffusers pipeline that takes an image: edit, image-to-image, IP-Adapter, variation.

    base (or pipeline) is a folder, a hub id or a preset: flux2-klein, sdxl-ip-adapter, or sdxl-lcm,
    which is Hummingbird in four steps. An edit model is told an instruction, and gets one image a
    call.

    Attributes:
        num_inference_steps: denoising steps; ``None``: the pipeline's own default.
        guidance_scale: as the pipeline means it; ``None``: its own default.
        call: the shape of its call; auto: what its arguments say.
        prompt_template: the text, with {description} in it; ``None``: an instruction for edit
            models, else the description alone.
        strength: of image-to-image: how far the image is noised, above 0 and up to 1.
        ip_adapter: the folder or hub repository of an IP-Adapter.
        ip_adapter_file: its file there, of safetensors.
        ip_adapter_scale: its weight beside the text.
        image_encoder: the CLIP vision tower for an adapter or SDXL, where the base holds none.
        lora: a LoRA for the UNet, such as Hummingbird's.
        lora_scale: multiplies its own alpha/r.
        few_step_lora: one that makes a base of few steps (LCM), merged first.
        solver: see the other methods; here the base's own is the default.
    """

    num_inference_steps: int | None = None  # type: ignore[assignment]
    guidance_scale: float | None = None  # type: ignore[assignment]
    call: Literal["auto", "edit", "img2img", "ip_adapter", "image", "input_images", "embedded"] = (
        "auto"
    )
    prompt_template: str | None = None
    strength: float = 0.5
    ip_adapter: Weights | None = None
    ip_adapter_file: str | None = None
    ip_adapter_scale: float = 0.6
    image_encoder: Weights | None = None
    lora: Weights | None = None
    lora_scale: float = 1.0
    few_step_lora: Weights | None = None
    solver: Literal["ddim", "dpmsolver++", "lcm", "own"] = "own"

    method: ClassVar[str] = "diffusers"
    needs_description: ClassVar[bool] = True
    roles: ClassVar[Mapping[str, str]] = MappingProxyType({})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength, self.num_inference_steps if self.call == "img2img" else None)
        for name in ("lora_scale", "ip_adapter_scale"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name}={getattr(self, name)} is no finite number: use 1")
        if (self.ip_adapter is None) != (self.ip_adapter_file is None):
            raise UserError("an IP-Adapter is a folder and a file: give both, or neither")
        if self.call == "ip_adapter" and self.ip_adapter is None:
            raise UserError("call=ip_adapter needs an ip_adapter: give one, or leave call out")
        if self.ip_adapter is not None and self.call not in ("auto", "ip_adapter"):
            raise UserError(
                f"ip_adapter={self.ip_adapter.location!r} is of no use to call={self.call}: leave "
                "one of them out"
            )
        template = self.prompt_template
        if template is not None and "{description}" not in template:
            raise UserError(f"prompt_template={template!r} has no {{description}} in it: say where")

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {**self.fields_json(), "version": 2}

    @property
    def shape(self) -> Call:
        """How its pipeline is called, as its arguments or ``call`` say it.

        Raises:
            UserError: the base is no pipeline, or takes no image.
        """
        return CALLS[call_of(self) if self.call == "auto" else self.call]

    @property
    def at_once(self) -> int | None:
        """See ``PipelineSpec.at_once``: of a list many take each image as one more reference."""
        return self.shape.at_once

    @property
    def resizes(self) -> bool:
        """See ``PipelineSpec.resizes``."""
        return self.shape.resizes

    def arguments(self) -> dict[str, Any]:
        """See ``PipelineSpec.arguments``."""
        return {name: getattr(self, name) for name in self.shape.constants}

    def prompt(self, description: str) -> str:
        """See ``PipelineSpec.prompt``. Braces in a description stay what they are."""
        if self.prompt_template is None:
            return self.shape.told(description)
        return self.prompt_template.replace("{description}", description)

    def load_pipeline(self) -> DiffusionPipeline:
        """The pipeline of its shape, with the adapter and the LoRAs in it."""
        from hb_tta.generators.calls import load_call

        return load_call(self.shape, self)

    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """See ``PipelineSpec.encode``."""
        told = [c._replace(description=self.prompt(c.description or "")) for c in contexts]
        return self.shape.encode(pipe, told, self, guided, device)
