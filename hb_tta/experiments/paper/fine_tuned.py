"""Hummingbird before and after its fine-tuning, as tables 4, 9 and 12 and figures 1 (g) and 6 show.

A family that bundles no LoRA has the one that table 5 trains on both rewards, once it is trained.
"""

from __future__ import annotations

from pathlib import Path

from hb_tta.experiments.methods import TUNED, UNTUNED, Arm
from hb_tta.experiments.paper.lora import Training, tuned
from hb_tta.experiments.reproduction import Options
from hb_tta.weights import Weights, as_weights

BEFORE = Arm(UNTUNED, "hummingbird", (("lora", None),))


def trainings(options: Options) -> list[Training]:
    """What gives Hummingbird its LoRA: nothing, where the family or the person names one."""
    if _is_named(options) or "questions" not in options.family.recipes:
        return []
    return [tuned("both rewards")]


def lora_of(options: Options) -> Weights | None:
    """That asked for, else the family's; of one without, what table 5 trained, once it is."""
    if asked := options.settings.get("lora"):
        return as_weights(asked)
    if "lora" in options.family.roles:
        return options.family.weights("lora")
    trained = _trained(options)
    return None if trained is None else Weights(str(trained))


def before_and_after(options: Options) -> list[Arm]:
    """Both; where there is no LoRA, and none may be trained, Hummingbird as it is."""
    trained = _trained(options)
    settings = () if trained is None else (("lora", str(trained)),)
    after = Arm(TUNED, "hummingbird", settings)
    will_be_trained = options.train and trainings(options)
    return [BEFORE, after] if trained or will_be_trained or _is_named(options) else [after]


def explained(options: Options) -> list[str]:
    """A sentence for a table, where the LoRA is not the family's own."""
    if _trained(options) is None:
        return []
    return [f"{TUNED}'s LoRA: the family bundles none; table 5's, of both rewards."]


def lacking(options: Options) -> list[str]:
    """A sentence where there is nothing to set side by side."""
    if len(before_and_after(options)) > 1:
        return []
    return [
        f"family {options.family.name!r} has no LoRA, and so {TUNED} stands alone: `hb-tta "
        "reproduce table5 --train` with the same --out trains one"
    ]


def _is_named(options: Options) -> bool:
    return "lora" in options.family.roles or "lora" in options.settings


def _trained(options: Options) -> Path | None:
    return next((found for one in trainings(options) if (found := one.lora(options))), None)
