"""Combining what a model says of several views: one table of rules for MLLMs and CLIPs.

A rule says what it works on: the logits of an MLLM's next token, the logits of classes, or both.
Another package adds one to the group ``hb_tta.combiners`` (see ``hb_tta.plugins``):

    @rule(WORDS, CLASSES)
    def median(views): return views.logits_VRK.median(0).values

A rule of words is then a choice of ``combine=``; a rule of classes is one more row of what needs no
tuning in ``hb-tta tpt`` and in CLIP_benchmark. V, R and K: see rule.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError, choose_from
from hb_tta.plugins import Registry
from hb_tta.tta.rule import CLASSES, WORDS, Embedded, Rule, Views

if TYPE_CHECKING:
    from torch import Tensor


CONTRAST = "contrast"
"""The rule whose views are to be worse copies of the image."""

_TUNED = ("tpt", "prototypes", "tda")  # what stands in one table with the rules of classes


def _fault(name: str, found: Any) -> str | None:
    if name in _TUNED:
        return "has the name of what is tuned: rename it there"
    if isinstance(found, Rule) and found.works_on and found.works_on <= {WORDS, CLASSES}:
        return None
    return "is no rule: put @hb_tta.tta.rule.rule(WORDS), (CLASSES) or (WORDS, CLASSES) before it"


RULES = Registry(
    "combiner",
    "combiners",
    {
        "mean": "hb_tta.tta.rules:mean",
        "confidence": "hb_tta.tta.rules:confidence",
        "selection": "hb_tta.tta.rules:selection",
        "contrast": "hb_tta.tta.rules:contrast",
        "zero-shot": "hb_tta.tta.rules:zero_shot",
        "average": "hb_tta.tta.rules:average",
        "zero": "hb_tta.tta.rules:zero",
        "mta": "hb_tta.tta.mta:mta",
    },
    _fault,
)


def rules_for(what: str) -> dict[str, Rule]:
    """The rules that work on ``WORDS`` or on ``CLASSES``, by name.

    Raises:
        UserError: a package claims a name that is taken, or offers what is no rule.
    """
    return {name: rule for name, rule in RULES.all().items() if what in rule.works_on}


@dataclass(frozen=True)
class Combiner:
    """A rule of words and its settings, as a function of logits.

    Attributes:
        rule: one of ``rules_for(WORDS)``.
        real_weight: the weight of the real image beside 1 for each generated one.
        share: of the views that ``selection`` and ``zero`` keep.
        alpha: how much ``contrast`` takes off, 0 or more.

    Raises:
        UserError: the rule is unknown, or a setting is out of range.
    """

    rule: str = "mean"
    real_weight: float = 1.0
    share: float = 0.5
    alpha: float = 1.0

    def __post_init__(self) -> None:
        self._rule  # noqa: B018 - it raises where there is none
        if not (math.isfinite(self.real_weight) and self.real_weight >= 0):
            raise UserError(f"real_weight={self.real_weight} is out of range: use 0 or more")
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} is out of range: use more than 0, at most 1")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UserError(f"alpha={self.alpha} is out of range: use 0 or more")
        if self.rule == CONTRAST and self.real_weight == 0:
            raise UserError("combine=contrast is about the real image: use a real_weight above 0")

    def __call__(self, logits_VRK: Tensor) -> Tensor:
        """(V, R, K) → (R, K), or (V, K) → (K).

        Raises:
            UserError: the real image is the only view and has no weight.
        """
        if self.real_weight == 0 and logits_VRK.shape[0] == 1:
            raise UserError("real_weight=0 leaves no view: use more than 0, or generated views")
        return self._rule(Views(logits_VRK, self.real_weight, self.share, self.alpha))

    @cached_property
    def _rule(self) -> Rule:
        known = rules_for(WORDS)
        if self.rule not in known:
            raise UserError(f"combine={self.rule!r} is unknown{choose_from(self.rule, known)}")
        return known[self.rule]


def combine_classes(logits_RVK: Tensor, chosen_RN: Tensor, embedded: Embedded) -> dict[str, Tensor]:
    """What every rule of classes says of images without any tuning: name → probabilities (R, K).

    Args:
        logits_RVK: of each image's views under the untuned prompt, the real one first.
        chosen_RN: the places of each image's trusted views, by a view filter.
        embedded: what the logits were made from.

    Raises:
        UserError: as of ``rules_for``.
    """
    import torch

    logits_VRK = logits_RVK.transpose(0, 1)
    chosen_VR = torch.zeros(logits_RVK.shape[:2], dtype=torch.bool, device=logits_RVK.device)
    chosen_VR = chosen_VR.scatter(1, chosen_RN, True).T
    views = Views(logits_VRK, chosen_VR=chosen_VR, embedded=embedded)
    return {name: rule(views).softmax(-1) for name, rule in rules_for(CLASSES).items()}
