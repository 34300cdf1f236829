"""The frozen specs of the built-in generators. Imports no torch: ``load`` does.

What ``to_json`` leaves out on purpose: the device, the batch size and the libraries' versions.
They move a view by rounding alone (a golden test holds that), so a store outlives an upgrade.
``version`` counts changes of our own that move it by more.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hb_tta.device import check_dtype, default_dtype
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.arguments import (
    check_guidance_scale,
    check_num_inference_steps,
    check_side,
)
from hb_tta.generators.protocol import DEFAULT, Default
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from hb_tta.families import Family
    from hb_tta.generators.hummingbird import HummingbirdGenerator
    from hb_tta.generators.i2t2i import I2T2IGenerator
    from hb_tta.generators.randaugment import RandAugmentGenerator


@dataclass(frozen=True)
class SDXLSettings:
    """What every generator on a Stable Diffusion XL base has.

    Attributes:
        base: a pipeline folder or hub repository in diffusers' layout.
        num_inference_steps: DDIM steps, at least 1.
        guidance_scale: classifier-free guidance, at least 0; 1 or less turns it off.
        height, width: of a view in pixels, multiples of 8; ``None`` the base's own size.
        dtype: "float32", "bfloat16" or "float16".
    """

    base: Weights
    num_inference_steps: int = 25  # with guidance 15: the released synthetic-data script
    guidance_scale: float = 15.0
    height: int | None = None
    width: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_num_inference_steps(self.num_inference_steps)
        check_guidance_scale(self.guidance_scale)
        check_side("height", self.height)
        check_side("width", self.width)

    def settings_json(self) -> dict[str, Any]:
        """The part of ``to_json`` that the settings give."""
        return {
            "base": self.base.fingerprint(),
            "scheduler": "ddim",
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": float(self.guidance_scale),
            "height": self.height,
            "width": self.width,
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class HummingbirdSpec(SDXLSettings):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.lora_scale):
            raise UserError(f"lora_scale={self.lora_scale} is not a number: 1 is as trained")

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
        """See ``GeneratorSpec.from_family``."""
        tuned = family.roles.get("lora") if isinstance(lora, Default) else lora
        return cls(
            image_encoder=family.roles.get("image_encoder"),
            lora=None if tuned is None else as_weights(tuned),
            **_settings(family, num_inference_steps, guidance_scale, dtype),
        )

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {
            "method": self.method,
            "version": 1,
            **self.settings_json(),
            "image_encoder": _fingerprint(self.image_encoder),
            "lora": _fingerprint(self.lora),
            "lora_scale": None if self.lora is None else float(self.lora_scale),
        }

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> HummingbirdGenerator:
        """See ``HummingbirdGenerator.from_pretrained`` for the keyword arguments."""
        from hb_tta.generators.hummingbird import HummingbirdGenerator

        return HummingbirdGenerator(
            self, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )


@dataclass(frozen=True)
class I2T2ISpec(SDXLSettings):
    """Image to text to image: the description alone, through stock SDXL.

    The paper's "I2T2I SDXL" (section 5.1): no image embedding, no LoRA.
    """

    method: ClassVar[str] = "i2t2i"
    needs_description: ClassVar[bool] = True

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
        """See ``GeneratorSpec.from_family``. A LoRA is ignored."""
        _warn_ignored(cls.method, lora=lora)
        return cls(**_settings(family, num_inference_steps, guidance_scale, dtype))

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {"method": self.method, "version": 1, **self.settings_json()}

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> I2T2IGenerator:
        """See ``HummingbirdGenerator.from_pretrained`` for the keyword arguments."""
        from hb_tta.generators.i2t2i import I2T2IGenerator

        return I2T2IGenerator(self, device=device, batch_size=batch_size, cpu_offload=cpu_offload)


@dataclass(frozen=True)
class RandAugmentSpec:
    """RandAugment (Cubuk et al., 2020) of the image itself, with torchvision's defaults.

    Attributes:
        num_ops: transformations one after the other, at least 1.
        magnitude: of all of them, 0 to 30.
    """

    num_ops: int = 2
    magnitude: int = 9

    method: ClassVar[str] = "randaugment"
    needs_description: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_ops < 1:
            raise UserError(f"num_ops={self.num_ops} changes nothing: use 1 or more")
        if not 0 <= self.magnitude <= 30:
            raise UserError(f"magnitude={self.magnitude} is out of range: use 0 to 30")

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
        """See ``GeneratorSpec.from_family``. No model is used: every setting is ignored."""
        _warn_ignored(
            cls.method,
            lora=lora,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        return cls()

    def to_json(self) -> dict[str, Any]:
        """See ``GeneratorSpec.to_json``."""
        return {
            "method": self.method,
            "version": 1,
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
        }

    def load(self, device: str | None = None) -> RandAugmentGenerator:
        """Nothing is loaded; it runs on the CPU whatever the device."""
        from hb_tta.generators.randaugment import RandAugmentGenerator

        return RandAugmentGenerator(self)


def as_weights(source: str | PathLike[str] | Weights) -> Weights:
    """A folder, hub id or ``Weights`` as ``Weights``."""
    return source if isinstance(source, Weights) else Weights(fspath(source))


def _settings(
    family: Family,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    dtype: str | None,
) -> dict[str, Any]:
    given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    return {
        "base": family.weights("generator"),
        **{name: family.defaults[name] if it is None else it for name, it in given.items()},
        "dtype": dtype or default_dtype(),
    }


def _fingerprint(weights: Weights | None) -> str | None:
    return None if weights is None else weights.fingerprint()


def _warn_ignored(method: str, **settings: Any) -> None:
    """Says which settings a method has no use for."""
    given = {name: value for name, value in settings.items() if value not in (None, DEFAULT)}
    if given:
        named = ", ".join(f"{name}={value!r}" for name, value in given.items())
        warnings.warn(f"{method} ignores {named}", HbTtaWarning, stacklevel=3)
