"""What ``--augment`` and ``--augment_args`` mean: which views, and how answers are combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.describe.rewording import check_rewordings
from hb_tta.device import check_device
from hb_tta.errors import UserError, choose_from
from hb_tta.generators import get_method, list_methods
from hb_tta.presets import at_harness
from hb_tta.settings.asked import by_name
from hb_tta.settings.value import ViewSettings
from hb_tta.store import content_key
from hb_tta.tta.combine import CONTRAST, Combiner, rules_for
from hb_tta.tta.rule import WORDS

if TYPE_CHECKING:
    from hb_tta.augment import Augmenter

VOTE = "vote"
"""Combines the answers' texts instead of their logits: for backends that only give texts."""
RESCORE = "rescore"
"""Each view proposes an answer, and all of them score it: for engines that score prompts."""
CONCAT = "concat"
"""All pictures in one prompt: for whatever takes several."""
DESCRIBE = "describe"
"""The mean, with one row more: the description in the image's place."""


@dataclass(frozen=True)
class Combining:
    """How one answer is made of several views'.

    Attributes:
        combine: a rule of ``hb_tta.tta.combine``, "describe", "vote", "rescore" or "concat".
        real_weight, share, alpha: of the rule.
        paraphrases: other wordings of the question, each asked about the real image and every view.

    Raises:
        UserError: there is no such rule, or a number is out of range.
    """

    combine: str = "mean"
    real_weight: float = 1.0
    share: float = 0.5
    alpha: float = 1.0
    paraphrases: int = 0

    def __post_init__(self) -> None:
        known = combinations()
        if self.combine not in known:
            raise UserError(
                f"combine={self.combine} in {spelling.ARGS} is no rule"
                f"{choose_from(self.combine, known)}"
            )
        for name in ("real_weight", "share", "alpha"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        object.__setattr__(self, "paraphrases", _whole("paraphrases", self.paraphrases))
        check_rewordings(self.paraphrases)
        _ = self.combiner

    @cached_property
    def combiner(self) -> Combiner:
        """The rule; where it is none of words, the weights alone count."""
        rule = self.combine if self.combine in rules_for(WORDS) else "mean"
        return Combiner(rule, self.real_weight, self.share, self.alpha)


def combinations() -> list[str]:
    """The choices of ``Combining.combine``."""
    return [*rules_for(WORDS), DESCRIBE, VOTE, RESCORE, CONCAT]


COMBINING = tuple(one.name for one in fields(Combining))
AT_ONCE = "at_once"
_FROM_TEXTS = (VOTE, RESCORE, CONCAT)


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentation of a run.

    Attributes:
        views: which views a question gets.
        combining: how one answer is made of them.
        no_views: whether there are none, said by n=0: text alone is added to the question.
        at_once: questions that are answered in one batch, which no answer depends on; None: what
            suits the way of answering.

    Raises:
        UserError: what is asked for does not go together.
    """

    views: ViewSettings
    combining: Combining = field(default_factory=Combining)
    no_views: bool = False
    at_once: int | None = None

    def __post_init__(self) -> None:
        _check_together(self.views, self.combining, self.no_views)

    @classmethod
    def parse(
        cls, method: str, arguments: str | Mapping[str, Any], device: str | None = None
    ) -> AugmentSettings:
        """From the flags' values.

        Args:
            arguments: text, or a mapping of the same keys.
            device: where the views are made, if the arguments do not say it.

        Raises:
            UserError: a key is unknown or given twice, a value is not of its kind, or this machine
                has no such device.
        """
        if method not in list_methods():
            raise UserError(
                f"--augment {method}: there is no such method{choose_from(method, list_methods())}"
            )
        asked = by_name(arguments)
        combining = Combining(**{name: asked.pop(name) for name in COMBINING if name in asked})
        no_views = str(asked.get("n")) == "0"
        if no_views:
            del asked["n"]
        at_once = _at_once(asked.pop(AT_ONCE, None))
        if combining.combine in _FROM_TEXTS and "gate" not in asked:
            asked["gate"] = None  # whoever gives texts alone has no probability for it
        views = ViewSettings.of(method, at_harness(method, asked), beside=(*COMBINING, AT_ONCE))
        if views.device is None:
            views = replace(views, device=device)
        check_device(views.device)
        return cls(views, combining, no_views, at_once)

    @property
    def n(self) -> int:
        """Generated views shown, at most."""
        return 0 if self.no_views else self.views.n

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
        return content_key(
            {
                "views": self.views.digest(self.augmenter.spec),
                "n": self.n,
                "gate": self.views.gate,
                "gate_share": self.views.gate_share,
                **asdict(self.combining),
            }
        )[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the method, and what ``--augment_args`` takes."""
        told = {**self.views.to_json(), "n": self.n, **asdict(self.combining)}
        return {**told, AT_ONCE: self.at_once or "auto"}


def _check_together(views: ViewSettings, combining: Combining, no_views: bool) -> None:
    method, text_alone = views.method, combining.combine == DESCRIBE or combining.paraphrases
    if combining.combine == CONTRAST and (no_views or not get_method(method).distorts):
        known = ", ".join(name for name in list_methods() if get_method(name).distorts)
        raise UserError(
            f"combine=contrast takes off what worse copies of the image say, and "
            f"{'n=0 shows none' if no_views else f'{method} makes none'}: use it with {known}"
        )
    if combining.combine == DESCRIBE and not get_method(method).needs_description:
        raise UserError(
            f"combine=describe needs a description, and {method} has none written: use it with "
            "hummingbird (n=0 for the description alone)"
        )
    if no_views and not text_alone:
        raise UserError("n=0 adds nothing: use n of 1 or more, combine=describe or paraphrases")
    gate = next((name for name in ("gate", "gate_share") if getattr(views, name) is not None), None)
    if combining.combine in (VOTE, RESCORE) and gate:
        raise UserError(
            f"combine={combining.combine} is for models that give no probabilities, and {gate} "
            "needs one: leave one of them out"
        )
    if combining.combine == CONCAT and (no_views or combining.paraphrases):
        raise UserError(
            "combine=concat asks once, with all pictures in the prompt: leave out n=0 and "
            "paraphrases"
        )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}={value} in {spelling.ARGS}: give a number") from None


def _at_once(value: Any) -> int | None:
    if value in (None, "auto"):
        return None
    try:
        return spelling.positive(value)
    except spelling.Unfit as error:
        raise UserError(f"at_once={value!r} in {spelling.ARGS} {error}, or auto") from None


def _whole(name: str, value: Any) -> int:
    try:
        return spelling.whole(value)
    except spelling.Unfit as error:
        raise UserError(f"{name}={value!r} in {spelling.ARGS} {error}") from None
