"""PEFT's configuration of a LoRA: a white list of what is understood, the rest refused by name.

A setting that switches something on which is not known here would make another LoRA of the same
tensors. One that says nothing (null, false, empty) switches nothing on, whatever its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hb_tta.errors import UserError, shown

# What says where a LoRA comes from or how it was trained, and nothing of what it computes.
_OF_NO_ACCOUNT = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout",
        "megatron_core", "peft_version", "qalora_group_size", "revision", "task_type",
    }
)  # fmt: skip
# Ways to draw first weights; others (pissa, olora, corda, loftq) change the base's weights too.
_INITIAL = (True, False, "gaussian", "orthogonal", "eva")
_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern"}
)
_NAME = re.compile(r"\^?[A-Za-z0-9_.]+", re.ASCII)
PLAIN = "only a plain LoRA, whose scale is alpha/r, can be used"


@dataclass(frozen=True)
class Config:
    """What a configuration says.

    Attributes:
        rank, alpha: of modules that no pattern names.
        ranks, alphas: of those whose paths end with a name.
        target_modules: names that choose modules. Empty: a regular expression did, which is never
            run: those with tensors are meant.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    target_modules: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """r of a module."""
        return _by_pattern(self.ranks, module, self.rank)

    def alpha_of(self, module: str) -> float:
        """alpha of a module."""
        return _by_pattern(self.alphas, module, self.alpha)


def read_config(written: Any, where: str) -> Config:
    """What a configuration says, as JSON gives it.

    Args:
        written: the object.
        where: what to call it in a sentence.

    Raises:
        UserError: it is no plain LoRA's, or says something that is not understood.
    """
    if not isinstance(written, dict):
        raise UserError(f"{where} is no LoRA's configuration: it holds no JSON object")
    if written.get("peft_type") != "LORA":
        raise UserError(
            f"{where} describes peft_type {shown(written.get('peft_type'))}: only LORA can be used"
        )
    for name, value in written.items():
        if not _understood(name, value):
            raise UserError(f"{where} sets {shown(name)[1:-1]}={shown(value)}: {PLAIN}")
    return Config(
        rank=_rank(written.get("r"), "r", where),
        alpha=_alpha(written.get("lora_alpha"), "lora_alpha", where),
        ranks=_pattern(written, "rank_pattern", _rank, where),
        alphas=_pattern(written, "alpha_pattern", _alpha, where),
        target_modules=_targets(written.get("target_modules"), where),
    )


def _understood(name: str, value: Any) -> bool:
    if name in _READ or name in _OF_NO_ACCOUNT:
        return True
    if name == "bias":
        return value == "none"
    if name == "init_lora_weights":
        return value is None or any(value is known or value == known for known in _INITIAL)
    return value is None or value is False or value in ({}, [], "")


def _rank(value: Any, name: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where} says {name}={shown(value)}: it must be a whole number from 1 on")
    return value


def _alpha(value: Any, name: str, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or abs(value) > 1e30 or not math.isfinite(value) or value == 0:
        raise UserError(f"{where} says {name}={shown(value)}: it must be a number other than 0")
    return float(value)


def _targets(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        return ()
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{where} says target_modules={shown(value)}: it must be names of layers")
    return tuple(sorted(set(names)))


def _pattern(written: Mapping[str, Any], name: str, read: Any, where: str) -> dict[str, Any]:
    found = written.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where} says {name}={shown(found)}: it must be an object")
    for key in found:
        if not _NAME.fullmatch(key):  # an expression could take for ever
            raise UserError(
                f"{where} has the expression {shown(key)} in {name}: only names of layers are "
                "understood; write their paths"
            )
    return {key: read(value, f"{name}.{shown(key)[1:-1]}", where) for key, value in found.items()}


def _by_pattern(values: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """PEFT's choice: the first key that the module's path ends with; ``^``: that it is."""
    for key, value in values.items():
        path = key.removeprefix("^")
        if module == path or (path == key and module.endswith("." + key)):
            return value
    return otherwise
