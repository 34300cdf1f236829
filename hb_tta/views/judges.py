"""Who judges views: a reward, or a VLM that is asked, by name and weights.

Imports no torch: a judge's part of a score's key is known before, and often instead of, the judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hb_tta.describe import DescriberSpec
from hb_tta.errors import UserError
from hb_tta.families import Family
from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.registry import REWARDS, get_reward
from hb_tta.spelling import Unfit
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

NONE = "none"
VQA_YES = "vqa_yes"
ALIASES: Mapping[str, str] = MappingProxyType({"itm": "fine_grained", "itc": "global"})
"""Short names: those of BLIP-2's two heads."""


class ViewJudge(Protocol):
    """Tells how well images show what texts say; made by ``JudgeSpec.load``."""

    def score(
        self, images: Sequence[Image], references: Sequence[Image], texts: Sequence[str]
    ) -> list[float]:
        """A score an image, larger for a better one, on the judge's own scale.

        Args:
            images: RGB, of any sizes.
            references: the real image that each was made of.
            texts: what each is to show.

        Returns:
            Numbers that do not depend on what else is in the call, to 1e-5.
        """
        ...


def list_judges() -> list[str]:
    """What ``judge`` can be beside "none": the rewards, other packages' too, and ``vqa_yes``."""
    return [*REWARDS.names(), VQA_YES]


def read_judge(value: Any) -> str:
    """A judge as a person spells it: a name, or ``NAME:WEIGHTS``; aliases become their names.

    Raises:
        Unfit: there is no such judge.
    """
    if value is None:
        return NONE
    name, colon, weights = str(value).strip().partition(":")
    name = ALIASES.get(name, name)
    if name == NONE and not colon:
        return NONE
    if name not in list_judges() or (colon and not weights):
        known = ", ".join([NONE, *list_judges()])
        raise Unfit(f"is no judge: choose from {known}, with :FOLDER or :ID behind it for weights")
    return f"{name}{colon}{weights}"


@dataclass(frozen=True)
class JudgeSpec:
    """All that decides a score beside the image and the text, in a frozen dataclass.

    Attributes:
        name: of ``list_judges()``.
        weights: its model's.
        dtype: of a VLM. A reward computes in float32, so that a score is the same whatever else
            is in its batch.
    """

    name: str
    weights: Weights
    dtype: str = "float32"

    @classmethod
    def from_family(cls, judge: str, family: Family, *, dtype: str) -> JudgeSpec | None:
        """The judge that a person named, with a family's weights if they named none.

        Args:
            judge: as ``read_judge`` takes it; "none" gives ``None``.
            dtype: of the family's models.

        Raises:
            UserError: there is no such judge, or nothing fills its role.
        """
        try:
            name, _, location = read_judge(judge).partition(":")
        except Unfit as error:
            raise UserError(f"judge={judge!r} {error}") from None
        if name == NONE:
            return None
        weights = Weights(location) if location else _weights_of(name, family)
        return cls(name, weights, dtype if name == VQA_YES else "float32")

    @property
    def chat_model(self) -> DescriberSpec | None:
        """The VLM that the judge asks; ``None`` of a reward."""
        return DescriberSpec(self.weights, dtype=self.dtype) if self.name == VQA_YES else None

    def to_json(self) -> dict[str, Any]:
        """The judge's part of a score's key: its weights by content; never a path."""
        told = {"score": self.name, "weights": self.weights.fingerprint(), "dtype": self.dtype}
        if self.name == VQA_YES:
            from hb_tta.views.vqa_yes import PROMPT_VERSION

            return {**told, "prompt": PROMPT_VERSION}
        package = REWARDS.package(self.name)
        return told if package is None else {**told, "package": package}

    def load(self, device: str) -> ViewJudge:
        """The judge with its weights on a device.

        Raises:
            UserError: they are missing, or of another kind.
        """
        if self.name == VQA_YES:
            from hb_tta.views.vqa_yes import VqaYes

            assert self.chat_model is not None
            return VqaYes(self.chat_model.load(device))
        from hb_tta.views.reward_judge import RewardJudge

        return RewardJudge(self.name, self.weights, device)


def _weights_of(name: str, family: Family) -> Weights:
    if name == VQA_YES:
        return family.weights("mllm")
    if name in REWARDS.built_in:
        return default_weights(name, family)
    return get_reward(name).default_weights(family)
