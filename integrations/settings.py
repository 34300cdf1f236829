"""What ``--augment`` and ``--augment_args`` mean: which views, and how answers are combined."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.errors import UserError, choose_from
from hb_tta.generators import list_methods
from hb_tta.settings import ViewSettings, by_name
from hb_tta.store import content_key
from hb_tta.tta.combine import Combiner, rules_for
from hb_tta.tta.rule import WORDS

if TYPE_CHECKING:
    from hb_tta.augment import Augmenter

VOTE = "vote"
"""Combines the answers' texts instead of their logits: for backends that only give texts."""


@dataclass(frozen=True)
class Combining:
    """How one answer is made of several views'.

    Attributes:
        combine: a rule of ``hb_tta.tta.combine``, or "vote".
        real_weight, share: of the rule.

    Raises:
        UserError: there is no such rule, or a number is out of range.
    """

    combine: str = "mean"
    real_weight: float = 1.0
    share: float = 0.5

    def __post_init__(self) -> None:
        known = combinations()
        if self.combine not in known:
            raise UserError(
                f"combine={self.combine} in {spelling.ARGS} is no rule"
                f"{choose_from(self.combine, known)}"
            )
        for name in ("real_weight", "share"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        _ = self.combiner

    @cached_property
    def combiner(self) -> Combiner:
        """The rule; of a vote the weights alone count."""
        rule = "mean" if self.combine == VOTE else self.combine
        return Combiner(rule, self.real_weight, self.share)


def combinations() -> list[str]:
    """The choices of ``Combining.combine``."""
    return [*rules_for(WORDS), VOTE]


COMBINING = tuple(one.name for one in fields(Combining))


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentation of a run."""

    views: ViewSettings
    combining: Combining = field(default_factory=Combining)

    @classmethod
    def parse(cls, method: str, arguments: str, device: str | None = None) -> AugmentSettings:
        """From the flags' values.

        Args:
            device: where the views are made, if the arguments do not say it.

        Raises:
            UserError: a key is unknown or given twice, or a value is not of its kind.
        """
        if method not in list_methods():
            raise UserError(
                f"--augment {method}: there is no such method{choose_from(method, list_methods())}"
            )
        asked = by_name(arguments)
        combining = {name: asked.pop(name) for name in COMBINING if name in asked}
        views = ViewSettings.of(method, asked, beside=COMBINING)
        if views.device is None:
            views = replace(views, device=device)
        return cls(views, Combining(**combining))

    @cached_property
    def augmenter(self) -> Augmenter:
        """Loads no model yet.

        Raises:
            UserError: weights are missing.
        """
        return self.views.augmenter()

    @cached_property
    def digest(self) -> str:
        """Names all that decides an answer: the views by content, and how they are combined."""
        views = self.views.digest(self.augmenter.spec)
        return content_key({"views": views, **asdict(self.combining)})[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the method, and what ``--augment_args`` takes."""
        return {**self.views.to_json(), **asdict(self.combining)}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}={value} in {spelling.ARGS}: give a number") from None
