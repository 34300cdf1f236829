"""The spec that the entry point names: light, frozen, all that decides a pixel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hb_tta.generators import DEFAULT

if TYPE_CHECKING:
    from hb_tta_mirror.generator import MirrorGenerator


@dataclass(frozen=True)
class MirrorSpec:
    """Mirrors the reference image for odd seeds and leaves it for even ones."""

    method: ClassVar[str] = "mirror"
    needs_description: ClassVar[bool] = False

    @classmethod
    def from_family(
        cls,
        family: Any,
        *,
        lora: Any = DEFAULT,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        dtype: str | None = None,
    ) -> Self:
        if lora not in (None, DEFAULT):
            warnings.warn("mirror ignores the LoRA", stacklevel=2)
        return cls()

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "version": 1}

    def load(self, device: str | None = None) -> MirrorGenerator:
        from hb_tta_mirror.generator import MirrorGenerator

        return MirrorGenerator(self)
