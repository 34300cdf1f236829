"""A plain LoRA, whose every layer adds alpha/r · B A to a weight: what all formats are read as."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from hb_tta.errors import UserError, shown
from hb_tta.lora.parts import Part

Number = TypeVar("Number", int, float)
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Lora:
    """A LoRA of a UNet.

    Attributes:
        parts: "<module>.lora_A.weight" (r, in) and "<module>.lora_B.weight" (out, r), of a
            convolution with two dimensions more; a module's name is its whole path in the UNet.
        alphas: of every module; its scale is alpha/r.
        target_modules: the names that the modules were chosen by, each a path or its end: PEFT's
            rule. Empty: by their whole paths, and no others.
    """

    parts: Mapping[str, Part]
    alphas: Mapping[str, float]
    target_modules: tuple[str, ...] = ()

    @property
    def modules(self) -> list[str]:
        """The paths of the layers that it changes."""
        return sorted(key.removesuffix(DOWN) for key in self.parts if key.endswith(DOWN))

    @property
    def ranks(self) -> dict[str, int]:
        """r of every module."""
        return {module: self.parts[module + DOWN].shape[0] for module in self.modules}

    @property
    def rank(self) -> int:
        """r of most modules."""
        return most_common(self.ranks)

    @property
    def alpha(self) -> float:
        """alpha of most modules."""
        return most_common(self.alphas)

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(part.size for part in self.parts.values())

    def scales(self) -> dict[str, float]:
        """alpha/r of every module."""
        return {module: self.alphas[module] / rank for module, rank in self.ranks.items()}

    def scaled(self, factor: float) -> Lora:
        """The same with every alpha multiplied."""
        return replace(self, alphas={name: alpha * factor for name, alpha in self.alphas.items()})


def most_common(values: Mapping[str, Number]) -> Number:
    """The value that most modules have; of several the smallest."""
    counts = Counter(values.values())
    return min(counts, key=lambda value: (-counts[value], value))


def named_by(module: str, names: tuple[str, ...]) -> bool:
    """Whether a module is chosen by one of the names, as PEFT chooses: a path or the end of one."""
    return any(module == name or module.endswith("." + name) for name in names)


def check_whole(lora: Lora, where: str) -> Lora:
    """The LoRA, if every layer has both parts, of shapes that fit each other, and a scale.

    Raises:
        UserError: it has not.
    """
    downs = {key.removesuffix(DOWN) for key in lora.parts if key.endswith(DOWN)}
    ups = {key.removesuffix(UP) for key in lora.parts if key.endswith(UP)}
    if not downs or downs != ups:
        odd = min(downs ^ ups, default=None)
        lacks = "it has no layer" if odd is None else f"{shown(odd)} has one part of two"
        raise UserError(f"{where} is no whole LoRA: {lacks}; fetch it again")
    for module in lora.modules:
        _check_shapes(module, lora.parts[module + DOWN].shape, lora.parts[module + UP].shape, where)
        alpha = lora.alphas[module]
        if not (math.isfinite(alpha) and alpha):
            raise UserError(f"{where} has alpha {alpha} for {shown(module)}: its scale is unknown")
    return lora


def _check_shapes(module: str, down: tuple[int, ...], up: tuple[int, ...], where: str) -> None:
    fit = len(down) == len(up) and len(down) in (2, 4) and down[0] == up[1]
    if not fit or any(side != 1 for side in up[2:]):
        raise UserError(
            f"{where} has parts of the shapes {down} and {up} for {shown(module)}, which make no "
            "plain LoRA: give one of a linear layer or a convolution"
        )
